"""The log of the database, flushed for all who wait for it at once.

With synchronous=FULL SQLite flushes its log within each commit, and nobody else writes meanwhile. So commits don't
flush (NORMAL: each is still whole or absent after a power cut), and a durable one is followed by an fdatasync of the
log from here, which is all that FULL would do. It takes along what others have committed by then.

Until that ends, a commit can be seen and may yet be lost. Who reads such a record flushes the log first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.store.base import Key


class Log:
    """Flush the log behind one connection for writing. Commits are numbered as they come."""

    def __init__(self, path: Path) -> None:
        """Take the path of a database."""
        self._path = path.with_name(f"{path.name}-wal")
        self._fd: int | None = None
        self._committed = 0
        self._flushed = 0
        self._pending: dict[Key, int] = {}
        self._changing = threading.Lock()
        self._flushing = threading.Lock()
        self._failed: OSError | None = None

    def expect(self, key: Key) -> None:
        """Note, before a record's durable commit, that what is read of it from now on may not be flushed."""
        with self._changing:
            self._pending[key] = self._committed + 1

    def committed(self) -> int:
        """Count a commit, or a try that changed nothing, and return the number to flush."""
        with self._changing:
            self._committed += 1
            return self._committed

    def settle(self, kind: str, record_id: str = "") -> None:
        """Flush what was read of a record, or of all of its kind, unless that was done. Raises OSError."""
        if not self._pending:
            return
        with self._changing:
            numbers = [n for key, n in self._pending.items() if key[0] == kind and record_id in {"", key[1]}]
        if numbers:
            self.flush(max(numbers))

    def flush(self, number: int) -> None:
        """Return when a commit is durable, by another's flush if one was begun since. Raises OSError.

        After an error the kernel may have dropped what it could not write: nobody who waited then is told otherwise.
        """
        with self._flushing:
            if self._flushed >= min(number, self._committed):
                return
            if self._failed is not None:
                raise OSError(self._failed.errno, self._failed.strerror, str(self._path))
            target = self._committed
            try:
                self._sync()
            except OSError as error:
                self._failed = error
                raise
            self._flushed = target
            with self._changing:
                for key, pending in list(self._pending.items()):
                    if pending <= target:
                        del self._pending[key]

    def close(self) -> None:
        """Let go of the file; flush before, for those who wait. The next connection for writing has another log."""
        with contextlib.suppress(OSError):  # who waits for it is told
            self.flush(self._committed)
        with self._flushing:
            if self._failed is None:
                self._failed = OSError(errno.EBADF, "it is closed")
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _sync(self) -> None:
        if self._fd is not None:
            os.fdatasync(self._fd)
            return
        self._fd = os.open(self._path, os.O_RDWR)
        os.fdatasync(self._fd)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)  # the log may have been made just now
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
