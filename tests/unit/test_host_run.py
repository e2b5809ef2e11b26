"""The door to programs."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csi_driver.deadline import Deadline
from csi_driver.errors import ToolFailed, Unknown, Unready
from csi_driver.host.deadman import answer
from csi_driver.host.run import Runner


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_a_program_says_what_it_has_to_say() -> None:
    """Both outputs and the status come back, and stdin arrives."""
    output = Runner().run(shell("cat; echo err >&2; exit 3"), deadline=Deadline(10), stdin="secret", accept=(0, 3))

    assert (output.stdout, output.stderr, output.returncode) == ("secret", "err\n", 3)


def test_a_status_that_is_not_accepted_fails_with_the_last_words() -> None:
    """The error has the program, its status and what it said, on one line."""
    with pytest.raises(ToolFailed, match=r"sh failed with status 5: no such thing") as caught:
        Runner().run(shell("echo no such; echo thing; exit 5"), deadline=Deadline(10))

    assert caught.value.returncode == 5


def test_a_program_gets_a_bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """LC_ALL is C, nothing of ours is inherited, and what the caller adds is there."""
    monkeypatch.setenv("SECRET", "1")

    output = Runner().run(["env"], deadline=Deadline(10), env={"ADDED": "2"})

    assert {"LC_ALL=C", "ADDED=2"} <= set(output.stdout.split())
    assert "SECRET" not in output.stdout


def test_a_program_inherits_no_descriptors(tmp_path: Path) -> None:
    """Not even one that was made inheritable."""
    with (tmp_path / "file").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        output = Runner().run(["ls", "-l", "/proc/self/fd"], deadline=Deadline(10))

    assert str(tmp_path) not in output.stdout


def test_a_missing_program_names_its_package() -> None:
    """The message says what to install."""
    runner = Runner()
    runner._found["mkfs.xfs"] = "/nowhere/mkfs.xfs"

    with pytest.raises(Unready, match="Debian package xfsprogs"):
        runner.run(["mkfs.xfs"], deadline=Deadline(10))
    with pytest.raises(Unready, match="no-such-program is missing"):
        runner.run(["no-such-program"], deadline=Deadline(10))


def test_a_prefix_runs_the_program_elsewhere() -> None:
    """With a prefix the program is found there; if it is missing there, that is said, not a status 127."""
    assert Runner().run(["echo", "x"], prefix=["env", "-i"], deadline=Deadline(10)).stdout == "x\n"
    with pytest.raises(Unready, match="e2fsprogs"):
        Runner().run(["mkfs.ext4"], prefix=["env", "-i", "PATH=/nowhere"], deadline=Deadline(10))


def test_the_deadline_kills_the_whole_group(tmp_path: Path) -> None:
    """At the deadline nothing of the program is left, children included, and the outcome is unknown."""
    pid_file = tmp_path / "pid"
    started = time.monotonic()

    with pytest.raises(Unknown, match=r"sh did not end in 0\.\d s"):
        Runner().run(shell(f"sleep 60 & echo $! > {pid_file}; wait"), deadline=Deadline(0.4))

    child = int(pid_file.read_text())
    assert time.monotonic() - started < 5
    assert _gone(child)


def _gone(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_child_that_cant_be_killed_does_not_hold_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in D state ignores SIGKILL: the caller goes on, and the child is reaped whenever it ends."""
    runner = Runner()
    monkeypatch.setattr(os, "killpg", lambda _pid, _signal: None)
    started = time.monotonic()

    with pytest.raises(Unknown):
        runner.run(["sleep", "1.2"], deadline=Deadline(0.2))

    took, left = time.monotonic() - started, list(runner._left_behind)
    left[0].wait(10)
    runner.run(["true"], deadline=Deadline(10))
    assert took < 1
    assert len(left) == 1
    assert runner._left_behind == []


def test_nothing_starts_after_the_deadline() -> None:
    """A program isn't started only to be killed."""
    with pytest.raises(Unknown, match="not started"):
        Runner().run(["true"], deadline=Deadline(0))


def test_much_output_and_much_input_do_not_block() -> None:
    """More than a pipe holds goes both ways at once."""
    output = Runner().run(["cat"], deadline=Deadline(20), stdin="x" * 1_000_000)

    assert len(output.stdout) == 1_000_000


def test_times_are_observed_also_of_failures() -> None:
    """Metrics see every program that was started."""
    seen: list[tuple[str, float]] = []
    runner = Runner(lambda name, seconds: seen.append((name, seconds)))

    runner.run(["true"], deadline=Deadline(10))
    with pytest.raises(ToolFailed):
        runner.run(["false"], deadline=Deadline(10))

    assert [name for name, _ in seen] == ["true", "false"]
    assert all(seconds > 0 for _, seconds in seen)


def test_many_threads_run_programs_at_once() -> None:
    """Each gets its own output."""
    runner = Runner()

    def echo(number: int) -> str:
        return runner.run(["echo", str(number)], deadline=Deadline(30)).stdout

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(echo, range(64)))

    assert said == [f"{number}\n" for number in range(64)]


def test_a_dead_man_refuses_what_it_cant_undo() -> None:
    """What can't be opened isn't armed, and what isn't armed was undone."""
    assert answer("arm token 10 fs 2f6e6f7768657265", {}).startswith("no ")
    assert answer("arm token 10 nothing x", {}).startswith("no ")
    assert answer("arm token soon fs 2f", {}).startswith("no ")
    assert answer("disarm token", {}) == "fired"
    assert answer("rubbish", {}) == "no such request"
