"""Wrap the doors of this process: system calls, programs, io.max, records and freezes pass a fuse from then on."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any
from unittest import mock

from csi_driver import assemble
from csi_driver.host.freeze import DeadMan
from csi_driver.host.run import Runner
from csi_driver.host.syscalls import Kernel
from csi_driver.store.sqlite import SqliteStore
from qos.cgroup import Cgroup

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.killpoints.fuse import Fuse

LVM = "lvm"
STOPPED = ("sh", "-c", 'kill -STOP $$; exec "$@"', "sh")


def install(fuse: Fuse, hold: Path) -> None:
    """Let every effect of this process pass the fuse, for good."""
    _wrap(fuse, Kernel, "_effect", lambda _, name, path, *__: f"{name} {path}")
    _wrap(fuse, Runner, "run", lambda _, argv, **__: f"run {_named(argv)}")
    _wrap(fuse, Cgroup, "_write", lambda cgroup, name, text: f"write {text.strip()} to {cgroup.path.name}/{name}")
    _wrap(fuse, DeadMan, "_ask", lambda _, line: f"dead man: {line.split(' ')[0]}")
    _inside(fuse, hold)
    mock.patch.object(assemble, "SqliteStore", functools.partial(SqliteStore, hook=fuse)).start()


def _wrap(fuse: Fuse, owner: type, method: str, name: Callable[..., str]) -> None:
    """Pass the fuse before and after each call of a method, whether it succeeds or not."""
    original = getattr(owner, method)

    @functools.wraps(original)
    def wrapped(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - of any door
        effect = name(*given, **named)
        fuse("before", effect)
        try:
            return original(*given, **named)
        finally:
            fuse("after", effect)

    mock.patch.object(owner, method, wrapped).start()


def _inside(fuse: Fuse, hold: Path) -> None:
    """Pass the fuse when a program has been started and is not waited for yet.

    While there is a file `hold`, the process that is to become the program stops first, and its id is written there.
    """
    start = Runner._start

    @functools.wraps(start)
    def started(runner: Runner, program: str, command: Sequence[str], *given: Any) -> subprocess.Popen[str]:  # noqa: ANN401
        at = next(place for place, word in enumerate(command) if word.rpartition("/")[2] == program)
        child = start(runner, program, [*STOPPED, *command] if hold.exists() else command, *given)
        if hold.exists():
            hold.write_text(str(child.pid))
        fuse("inside", f"run {_named(command[at:])}")
        return child

    mock.patch.object(Runner, "_start", started).start()


def _named(argv: Sequence[str]) -> str:
    """Return a program's name; of lvm with what it is to do."""
    name = argv[0].rpartition("/")[2]
    return " ".join((name, argv[1])) if name == LVM else name
