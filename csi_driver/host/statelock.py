"""The locks on the state folder: one agent a folder, none beside programs of one before it, one writer of its pools."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from csi_driver.errors import Unready
from csi_driver.host.openers import openers
from csi_driver.host.refusals import as_unready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK, PROGRAMS, POOLS = "agent.lock", "programs.lock", "pools.lock"


@contextlib.contextmanager
def pools_lock(state: Path) -> Iterator[None]:
    """Keep others from adding a pool to the folder's file, from the look at it to the write; waits for one that does.

    The folder is made, 0700, where it isn't there. Raises Unready.
    """
    with as_unready(f"state folder {state}"):
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(state / POOLS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with as_unready(f"lock {state / POOLS}"):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class StateLock:
    """Hold the lock on the state folder: one agent a folder. Commands that only write wishes don't need it."""

    def __init__(self, state: Path) -> None:
        """Take the lock. Raises Unready naming the process that has it."""
        self._fd = os.open(state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise Unready(
                f"state: another sluice (process {holder}) serves {state}; stop it, or give another --state"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let the lock go."""
        os.close(self._fd)


class ProgramsLock:
    """Hold a lock that the programs of a server hold with it, and without it when it dies before they do.

    A program that goes on alone makes or formats what nobody expects any more: its server's records are read by the
    next one, which would look, find nothing, and act on that. An open file's lock is held by all who have inherited it.
    """

    def __init__(self, state: Path) -> None:
        """Open it, empty, so that it can be a program's stdin; `take` takes it."""
        self._path = state.resolve() / PROGRAMS
        self.fd = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Take the lock. False: a program of a server that is gone still runs."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def holders(self) -> list[str]:
        """Return the programs that hold it, as `4711 (lvcreate)`; they may have ended by now."""
        own, path = str(os.getpid()), str(self._path)
        return [who for who in openers(lambda link: link == path) if who.partition(" ")[0] != own]

    def release(self) -> None:
        """Let go of it; programs that run keep it."""
        os.close(self.fd)
