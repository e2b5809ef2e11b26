"""The lock that programs of a server hold with it, and after it."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from csi_driver.adopting import Rules
from csi_driver.assemble import Machine
from csi_driver.cli import adopt, adoptlv, alone
from csi_driver.cli.adoptlv import Wanted
from csi_driver.config import Config
from csi_driver.deadline import Deadline
from csi_driver.errors import Unready
from csi_driver.host.run import Runner
from csi_driver.host.statelock import ProgramsLock, StateLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def test_a_lock_is_free_when_its_holder_has_no_programs(tmp_path: Path) -> None:
    """Who comes after takes it at once."""
    lock = ProgramsLock(tmp_path)
    assert lock.take()
    lock.release()
    later = ProgramsLock(tmp_path)

    assert later.take()
    later.release()


def left_behind(runner: Runner, stdin: str | None = None) -> int:
    """Run a program that leaves another running, and return that one's process."""
    # A shell takes stdin away from what it leaves behind.
    left = "exec 3<&0; sleep 60 <&3 3<&- >/dev/null 2>&1 & echo $!"
    return int(runner.run(["sh", "-c", left], deadline=Deadline(10), stdin=stdin).stdout)


@pytest.mark.parametrize("stdin", [None, "words"])
def test_a_program_holds_the_lock_for_as_long_as_it_lives(tmp_path: Path, stdin: str | None) -> None:
    """Also when its own server has let go; and who waits is told its name."""
    lock, later, runner = ProgramsLock(tmp_path), ProgramsLock(tmp_path), Runner()
    lock.take()
    runner.sign = lock.fd
    pid = left_behind(runner, stdin)
    lock.release()
    taken, holders = later.take(), later.holders()
    subprocess.run(["kill", str(pid)], check=True)

    assert (taken, holders) == (False, [f"{pid} (sleep)"])
    later.release()


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[int]:
    """Give the process of a program whose server is gone, and let nobody wait long for it."""
    lock, runner = ProgramsLock(tmp_path), Runner()
    lock.take()
    runner.sign = lock.fd
    pid = left_behind(runner)
    lock.release()
    yield pid
    subprocess.run(["kill", str(pid)], check=True)


def test_a_start_gives_up_on_programs_that_hang_and_names_them(
    orphan: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they do is unknown, so nothing that would be seen is true."""
    monkeypatch.setattr(alone, "ORPHAN_SECONDS", 0.05)
    machine = Machine()
    with contextlib.ExitStack() as at_end, pytest.raises(Unready, match=rf" {orphan} \(sleep\); end them"):
        alone.sign_programs(tmp_path, machine, at_end)

    assert machine.runner.sign is None


@pytest.mark.parametrize(
    "command",
    [
        lambda config: adopt.adopt_all(config, Rules(config.scope, {}), yes=False),
        lambda config: adoptlv.take(config, Wanted("fast/mine", "old", "standard"), yes=False),
    ],
    ids=["adopt", "adopt --lv"],
)
@pytest.mark.usefixtures("orphan")
def test_adopt_looks_at_nothing_while_a_program_of_a_dead_server_runs(
    command: Callable[[Config], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that makes would be missing in the plan; and the folder can be served when the command has given up."""
    monkeypatch.setattr(alone, "ORPHAN_SECONDS", 0.05)
    with pytest.raises(Unready, match="programs of a server that died still run"):
        command(Config.of({"state": tmp_path, "pools": [f"name=a,backend=loop,path={tmp_path}"]}))

    StateLock(tmp_path).release()


def test_a_program_without_stdin_reads_an_end(tmp_path: Path) -> None:
    """What it has in the place of stdin is an empty file."""
    lock, runner = ProgramsLock(tmp_path), Runner()
    runner.sign = lock.fd

    assert runner.run(["cat"], deadline=Deadline(10)).stdout == ""
    lock.release()
