"""`sluice pool`: what is asked for is checked before a disk is looked at, and pools are shown as their records say."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from csi_driver import assemble
from csi_driver.cli import pool, poolfile, poolmaking
from csi_driver.cli.app import main
from csi_driver.config import PoolConfig, kept_pools
from csi_driver.disks import Disk
from csi_driver.errors import Conflict
from csi_driver.host.syscalls import Kernel
from csi_driver.ids import new_id
from csi_driver.records import Pool, PoolSpec, PoolStatus
from csi_driver.store.sqlite import SqliteStore
from qos.iocost import Cost, Measured, Speed
from tests.unit.test_thin_pools import SOUND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.host.thinpool import ThinPool

GIB = 1 << 30
SPEED = Speed.rated(1000, 50 << 20)
COST = Cost.of(Measured(SPEED, SPEED), 256 << 10)
FULL = "data is 97 % full: delete what is not needed, or run `sluice pool extend`"


@pytest.fixture(autouse=True)
def _no_log_settings_stay() -> Iterator[None]:
    """Undo what the command line sets up for its own process: these tests share theirs with others."""
    yield
    structlog.reset_defaults()


def sluice(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sluice", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def state_with_pools(folder: Path) -> Path:
    """Make a state folder: one pool that is served, one that isn't yet."""
    poolfile.keep(folder, PoolConfig("fast", "lvm", Path("fast/thin"), ratio=1.5), Kernel())
    poolfile.keep(folder, PoolConfig("new", "lvm", Path("new/thin"), ratio=1.5), Kernel())
    store = SqliteStore(folder / assemble.DATABASE)
    status = PoolStatus(
        identity="v@p",
        promised=90 * GIB,
        total=100 * GIB,
        used=97 * GIB,
        metadata_total=GIB,
        metadata_used=GIB // 4,
        disks=(Disk("sda", "8:0", "S1", cost=COST, promised=500_000), Disk("sdb", "8:16")),
        guard="emergency",
        abnormal=FULL,
    )
    record = store.create(Pool(new_id("x", Pool.KIND, "n1/fast"), PoolSpec("fast", "n1", "lvm", "fast/thin")))
    store.put_status(Pool(record.id, record.spec, status, version=record.version))
    store.close()
    return folder


def test_pools_are_listed_with_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that no server has opened yet too."""
    state = str(state_with_pools(tmp_path))
    status = sluice(monkeypatch, "pool", "list", "--state", state)
    said = capsys.readouterr().out
    sluice(monkeypatch, "pool", "list", "--state", state, "--json")
    served, new = json.loads(capsys.readouterr().out)

    assert status == 0
    assert all(word in said for word in ("100 GiB", "90 GiB", "97 %", "25 %", "emergency", f"fast: {FULL}"))
    assert "fast: of disk S1 50.0 % is promised and 30.0 % free" in said
    assert "sdb" not in said
    assert served["disks"][0]["cost"]["model"]["rbps"] == 64_512_000
    assert (served["name"], served["used"], served["condition"]) == ("fast", 97 * GIB, FULL)
    assert (new["where"], "restart" in new["condition"]) == ("new/thin", True)


def test_where_there_is_no_pool_it_is_said_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is made by looking."""
    state = tmp_path / "state"
    sluice(monkeypatch, "pool", "list", "--state", str(state))

    assert "sluice pool create" in capsys.readouterr().out
    assert not state.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "--name", "fast", "--device", "/dev/x"), "pool fast is there already"),
        (("create", "--name", "more", "--vg", "fast", "--thinpool", "thin"), "pool fast is there already"),
        (("create", "--name", "more"), "device: give --device"),
        (("create", "--name", "more", "--vg", "more"), "device: give --device"),
        (("create", "--name", "a/b", "--device", "/dev/x"), "name 'a/b'"),
        (("create", "--name", "more", "--backend", "loop", "--device", "/dev/x"), "backend: 'loop' is not made here"),
        (("create", "--name", "more", "--device", "/dev/x", "--chunk", "1Ki"), "chunk: '1Ki'"),
        (("create", "--name", "more", "--device", "/dev/x", "--reserve", "95"), "reserve: 95"),
        (("create", "--name", "more", "--device", "/dev/x", "--stripes", "2"), "stripes: 2"),
        (("create", "--name", "more", "--device", "/dev/x", "--metadatasize", "4Ki"), "metadatasize: 4096"),
        (("create", "--name", "more", "--device", "/nonexistent"), "no block device at /nonexistent"),
        (("extend", "fast"), "give --device DEVICE, --size"),
        (("extend", "fast", "--size", "10Gi"), "+10Gi"),
        (("extend", "slow", "--size", "+10Gi"), "no pool 'slow'; there are: fast, new"),
    ],
)
def test_a_slip_is_one_line_and_nothing_is_changed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    """It names the option and its value."""
    state = state_with_pools(tmp_path)
    before = (state / "pools.toml").read_text()
    status = sluice(monkeypatch, "pool", *words, "--state", str(state))
    errors = capsys.readouterr().err

    assert (status, errors.count("\n")) == (1, 1)
    assert said in errors
    assert (state / "pools.toml").read_text() == before


class Making:
    """Make pools that are nothing, slowly, and remember which, and how many were being made at once."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.most = 0
        self._now = 0
        self._both = threading.Barrier(2)

    def take_over(self, pool: PoolConfig, *_: object, **__: object) -> ThinPool:
        """Wait a moment for another."""
        self.names.append(pool.name)
        self._now += 1
        self.most = max(self.most, self._now)
        with contextlib.suppress(threading.BrokenBarrierError):
            self._both.wait(0.2)
        self._now -= 1
        return SOUND


@pytest.mark.parametrize(("names", "kept"), [(["a", "b"], {"a", "b"}), (["a", "a"], {"a"})])
def test_of_two_pools_that_are_made_at_once_none_is_lost_and_none_takes_the_others_name(
    names: list[str], kept: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One waits for the other, and then looks at what that has kept."""
    making = Making()
    monkeypatch.setattr(poolmaking, "take_over", making.take_over)
    refused: list[str] = []

    def create(place: int) -> None:
        try:
            pool.create(names[place], vg=f"group{place}", thinpool="thin", state=tmp_path)
        except Conflict as error:
            refused.append(str(error))

    threads = [threading.Thread(target=create, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {each.name for each in kept_pools(tmp_path)} == kept == set(making.names)
    assert (making.most, len(making.names), len(refused)) == (1, len(kept), 2 - len(kept))
