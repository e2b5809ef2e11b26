"""Connections for reading, lent to one thread after another: threads come and go, and a thread's end closes nothing."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

from csi_driver.store import sqlite_file

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path


class Readers:
    """Hold the connections that nobody reads by just now."""

    def __init__(self, path: Path) -> None:
        """Take the path of a database."""
        self._path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False

    @contextlib.contextmanager
    def lend(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection, a new one when all are lent. One that met an error isn't lent again."""
        try:
            db = self._idle.pop()
        except IndexError:
            db = sqlite_file.connect(self._path)
        try:
            yield db
        except BaseException:
            db.close()
            raise
        self._idle.append(db)
        if self._closed:
            self.close()

    def close(self) -> None:
        """Close what is not lent, and the others when they come back."""
        self._closed = True
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread closed the last one
                self._idle.pop().close()
