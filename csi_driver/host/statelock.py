"""The lock on the state folder: one agent a folder."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from csi_driver.errors import Unready

if TYPE_CHECKING:
    from pathlib import Path

LOCK = "agent.lock"


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
