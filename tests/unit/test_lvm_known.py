"""What is known of a volume group without a look: never what a command that failed, or somebody else, has changed."""

from __future__ import annotations

import itertools
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from csi_driver.backends import lvmtags
from csi_driver.backends.base import Passport
from csi_driver.backends.lvm import LvmBackend
from csi_driver.backends.lvmgroup import Lv
from csi_driver.errors import Unknown
from csi_driver.host import pvlabel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DISK = Path("/dev/null")
SIZE = 64 << 20
POOL = {"lv_name": "thin", "lv_layout": "thin,pool", "vg_uuid": "v", "lv_uuid": "l", "pool_lv": "", "lv_size": "0"}
SIZES = {"vg_extent_size": str(4 << 20), "chunk_size": "65536", "vg_free": str(8 * SIZE)}


class FakeLvm:
    """A group whose commands do what they say, and may then be killed. It counts the reports that were asked for."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changing = False
        self.tags: dict[str, list[str]] = {}
        self.commits = 0
        self.reports = 0
        self.killed = False

    def change(self, _: Sequence[Path], command: str, *words: str, **__: Any) -> None:  # noqa: ANN401 - any deadline
        """Do a command, and be killed at its end if that is wanted."""
        self.commits += 1
        if command == "lvcreate":
            self.tags[words[words.index("-n") + 1]] = [
                tag for word, tag in itertools.pairwise(words) if word == "--addtag"
            ]
        else:
            del self.tags[words[-1].partition("/")[2]]
        if self.killed:
            raise Unknown("it was killed")

    def report(self, _: Sequence[Path], command: str, *__: str) -> list[Mapping[str, str]]:
        """Report what is there."""
        if command == "pvs":
            return [{"pv_name": str(DISK), "pv_missing": "", "vg_uuid": "v", "vg_name": "fast"}]
        self.reports += 1
        lvs = (
            {"lv_name": name, "lv_size": str(SIZE), "lv_tags": ",".join(tags), "pool_lv": "thin"}
            for name, tags in self.tags.items()
        )
        return [POOL | SIZES | {"lv_tags": ""}, *(POOL | SIZES | lv for lv in lvs)]


class NoMapper:
    """Device-mapper without a device."""

    def status(self, _: str) -> None:
        """Tell of none."""

    def info(self, _: str) -> None:
        """Tell of none."""

    def list(self, _: str) -> tuple[str, ...]:
        """Tell of none."""
        return ()


@pytest.fixture
def lvm() -> FakeLvm:
    return FakeLvm()


@pytest.fixture
def backend(lvm: FakeLvm, monkeypatch: pytest.MonkeyPatch) -> LvmBackend:
    monkeypatch.setattr(pvlabel, "physical_volumes", lambda: (DISK,))
    monkeypatch.setattr(pvlabel, "state", lambda _: f"header {lvm.commits}".encode())
    mapper, kernel = NoMapper(), None
    made = LvmBackend("fast", "thin", lvm, mapper, kernel)  # type: ignore[arg-type]
    made.look()
    return made


def passport() -> Passport:
    return Passport(id=str(uuid.uuid4()), kind="volume", name="a", sector_size=512)


def test_what_this_process_changed_is_known_without_a_report(backend: LvmBackend, lvm: FakeLvm) -> None:
    """A volume is made and found by one command."""
    made = passport()
    before = lvm.reports
    backend.create(made, SIZE)
    found = backend.find(made.id)

    assert (found is not None, lvm.reports - before) == (True, 0)


def test_what_a_killed_command_made_is_seen_though_another_command_went_well(backend: LvmBackend, lvm: FakeLvm) -> None:
    """A deletion that believed it to be absent would leave it behind."""
    killed = passport()
    lvm.killed = True
    with pytest.raises(Unknown):
        backend.create(killed, SIZE)
    lvm.killed = False
    lvm.changing = True  # another thread's command
    backend.create(passport(), SIZE)

    assert backend.delete(killed.id)


def test_a_killed_command_is_looked_up_while_another_runs(backend: LvmBackend, lvm: FakeLvm) -> None:
    """What holds before a command that runs holds only if it was known."""
    killed = passport()
    lvm.killed = True
    with pytest.raises(Unknown):
        backend.create(killed, SIZE)
    lvm.changing = True

    assert backend.find(killed.id) is not None


def test_what_others_changed_before_a_command_of_ours_is_not_taken_for_ours(backend: LvmBackend, lvm: FakeLvm) -> None:
    """Between a look and a command there is time: the header that is known after it would hide their change."""
    theirs = passport()
    group = backend._group
    read = group._read_if_changed

    def interfered() -> None:
        if not lvm.tags:
            lvm.tags[f"sluice-{theirs.id}"] = list(lvmtags.write(theirs))
            lvm.commits += 1
        read()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "_read_if_changed", interfered)
        backend.create(passport(), SIZE)

    assert backend.find(theirs.id) is not None


def test_what_thick_volumes_have_and_leave_follows_every_change_of_one(backend: LvmBackend) -> None:
    """Sums that are kept, since they are asked for at each admission; a thin volume takes nothing of the group."""
    group = backend._group
    sums = []
    for record_id, lv in (
        ("a", Lv("a", SIZE, None, thick=True)),
        ("b", Lv("b", SIZE, None)),
        ("a", Lv("a", 3 * SIZE, None, thick=True)),
        ("b", None),
        ("a", None),
        ("a", None),
    ):
        group.keep(record_id, lv)
        sums.append((group.thick // SIZE, group.free // SIZE))

    assert sums == [(1, 7), (1, 7), (3, 5), (3, 5), (0, 8), (0, 8)]
    assert group.lvs == {}
