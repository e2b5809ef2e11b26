"""One lock a volume, taken by agent work and node calls alike. A second call is told, not kept waiting."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_driver.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 3.0
"""Seconds that a call waits for background work: the longest that is usual is an lvm program on a busy machine."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Say who holds a lock."""

    doing: str
    background: bool
    thread: int


class Locks:
    """Hold the locks of all volumes and snapshots of a node."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, Holder] = {}

    @contextmanager
    def hold(self, record_id: str, doing: str, *, background: bool = False) -> Iterator[None]:
        """Hold the lock of one id. Raises Busy, naming what the other does, when it is taken.

        A call waits a little for background work, which is short and which no caller asked for; else a volume that was
        answered as made would be busy in the moment after.
        """
        with self._changed:
            if not background:
                self._changed.wait_for(lambda: not self._in_background(record_id), PATIENCE)
            if (other := self._held.get(record_id)) is not None:
                raise Busy(f"{doing} {record_id}: {other.doing} holds it; try again")
            self._held[record_id] = Holder(doing, background, threading.get_ident())
        try:
            yield
        finally:
            with self._changed:
                del self._held[record_id]
                self._changed.notify_all()

    def held_here(self, record_id: str) -> bool:
        """Return whether this very thread holds the lock of an id."""
        holder = self._held.get(record_id)
        return holder is not None and holder.thread == threading.get_ident()

    def _in_background(self, record_id: str) -> bool:
        holder = self._held.get(record_id)
        return holder is not None and holder.background
