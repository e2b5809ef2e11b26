"""`sluice doctor` looks, and changes nothing; `sluice` itself answers a slip in one line."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import structlog
from typer.testing import CliRunner

from csi_driver import assemble
from csi_driver.cli import checks, doctor, formats
from csi_driver.cli.app import app, main
from csi_driver.cli.checks import State
from csi_driver.config import Config
from csi_driver.host import facts
from csi_driver.host.facts import Program
from csi_driver.host.run import PACKAGES
from csi_driver.ids import new_id
from csi_driver.records import Pool, PoolSpec, PoolStatus
from csi_driver.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKER = ".sluice-pool"


@pytest.fixture(autouse=True)
def _no_log_settings_stay() -> Iterator[None]:
    """Undo what the command line sets up for its own process: these tests share theirs with others."""
    yield
    structlog.reset_defaults()


def config(folder: Path, **pool: object) -> Config:
    given = {"name": "fast", "backend": "loop", "path": str(folder / "pool"), **pool}
    return Config.of({"state": folder / "state", "pools": [given], "node_id": "n1", "qos": "off"})


def state_of(folder: Path) -> dict[str, checks.Check]:
    return {check.name: check for check in checks.state_checks(config(folder))}


def pools_of(settings: Config) -> dict[str, checks.Check]:
    return {check.name: check for check in checks.pool_checks(settings, assemble.Machine())}


def made_pool(folder: Path, marker: str = "11111111-1111-1111-1111-111111111111") -> Path:
    pool = folder / "pool"
    pool.mkdir()
    (pool / MARKER).write_text(marker)
    return pool


def record_of(settings: Config, identity: str) -> None:
    settings.state.mkdir(mode=0o700)
    store = SqliteStore(settings.state / assemble.DATABASE)
    spec = settings.pools[0]
    record_id = new_id(settings.scope, Pool.KIND, f"n1/{spec.name}")
    record = store.create(Pool(record_id, PoolSpec(spec.name, "n1", "loop", str(spec.path))))
    store.put_status(Pool(record_id, record.spec, PoolStatus(identity=identity), version=record.version))
    store.close()


def test_a_new_machine_has_no_state_and_that_is_well(tmp_path: Path) -> None:
    """Nothing is there, nothing is made, nothing is missing."""
    found = [*state_of(tmp_path).values(), *pools_of(config(tmp_path)).values()]

    assert all(check.state is not State.MISSING for check in found)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_btrfs_serves_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its programs and its kernel's part are named with what does not work; those of ext4 and XFS must be there."""
    none = [Program(name, "", "", package) for name, package in PACKAGES.items()]
    monkeypatch.setattr(facts, "programs", lambda *_: none)
    monkeypatch.setattr(facts, "kernel_release", lambda: "6.1.0-nowhere")
    monkeypatch.setattr(formats, "copies_mount", lambda: False)
    found = {check.name: check for check in formats.format_checks(assemble.Machine())}

    assert found["mkfs.btrfs"].state is State.WARNING
    assert found["btrfs in the kernel"].state is not State.MISSING
    assert {found[name].state for name in ("mkfs.ext4", "e2fsck", "resize2fs", "mkfs.xfs")} == {State.MISSING}
    assert all(check.remedy for check in found.values() if check.state is not State.OK)
    assert formats._copies().state is State.WARNING
    assert "6.1.0-nowhere" in formats._copies().found


def test_a_damaged_database_is_named_with_its_remedy(tmp_path: Path) -> None:
    """The remedy is adopt, and the file is not touched."""
    (tmp_path / "state").mkdir(mode=0o700)
    file = tmp_path / "state" / assemble.DATABASE
    file.write_bytes(b"not a database" * 100)
    before = file.read_bytes()

    check = state_of(tmp_path)["database"]

    assert check.state is State.MISSING
    assert "adopt" in check.remedy
    assert file.read_bytes() == before


def test_pools_without_records_point_to_adopt(tmp_path: Path) -> None:
    """A pool that is there while the database isn't is what a lost database looks like."""
    made_pool(tmp_path)
    (tmp_path / "state").mkdir(mode=0o700)

    check = state_of(tmp_path)["database"]

    assert check.state is State.WARNING
    assert "adopt" in check.remedy


def test_another_pool_in_the_folder_is_missing_the_right_one(tmp_path: Path) -> None:
    """Identity and record differ: most likely the wrong disk is mounted."""
    made_pool(tmp_path)
    settings = config(tmp_path)
    record_of(settings, "22222222-2222-2222-2222-222222222222@")

    check = pools_of(settings)["pool fast"]

    assert check.state is State.MISSING
    assert "22222222" in check.found


def test_a_pool_that_its_record_knows_is_missing_when_its_folder_is_empty(tmp_path: Path) -> None:
    """The disk isn't mounted: said before the server would say it."""
    (tmp_path / "pool").mkdir()
    settings = config(tmp_path)
    record_of(settings, "22222222-2222-2222-2222-222222222222@")

    assert pools_of(settings)["pool fast"].state is State.MISSING


def test_an_image_that_would_not_fit_is_told(tmp_path: Path) -> None:
    """Before `serve` fails on it."""
    check = pools_of(config(tmp_path, size="1Pi"))["pool fast: room"]

    assert check.state is State.MISSING


def test_qos_off_is_a_warning(tmp_path: Path) -> None:
    """It can serve, and no limit holds: loud, but no failure."""
    (check,) = checks.qos_checks(config(tmp_path))

    assert check.state is State.WARNING


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ((State.OK,), "can serve."),
        ((State.OK, State.WARNING), "with 1 warning."),
        ((State.MISSING, State.WARNING), "can't serve: check 0"),
    ],
)
def test_the_verdict_says_what_is_missing(states: tuple[State, ...], words: str) -> None:
    """One line for a person; the exit status is for programs."""
    found = [checks.Check(f"check {number}", state, "") for number, state in enumerate(states)]

    assert words in doctor.verdict(found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "No such command 'nope'; see: sluice --help"),
        (["size", "--keeep", "3"], "--keeep"),
        (["size", "--gb", "much"], "see: sluice size --help"),
        (["volumes", "--state", "/nonexistent"], "no records in /nonexistent"),
        (["adopt"], "name the pools"),
        (["serve", "--pool", "x"], "key=value"),
        (["serve", "--config", "/nonexistent"], "can't be read"),
    ],
)
def test_a_slip_is_one_line_and_status_1(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, no box: what is wrong, and what to do."""
    monkeypatch.setattr(sys, "argv", ["sluice", *words])

    with pytest.raises(SystemExit) as ended:
        main()

    output, errors = capsys.readouterr()
    assert ended.value.code == 1
    assert output == ""
    assert errors.startswith("sluice: ")
    assert errors.count("\n") == 1
    assert said in errors


@pytest.mark.parametrize("command", ["serve", "doctor", "pool", "volumes", "adopt", "tiers", "size", "demo"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    """A person sees what to type."""
    shown = CliRunner().invoke(app, [command, "--help"])

    assert shown.exit_code == 0
    assert f"Example: sluice {command}" in shown.stdout


def test_serve_imports_none_of_the_other_commands() -> None:
    """A server must be ready at once and small."""
    heavy = ["plotly", "csi_driver.cli.doctor", "csi_driver.cli.demo", "yaml"]
    code = f"import sys, csi_driver.cli.app, csi_driver.cli.serve; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "[]\n"
