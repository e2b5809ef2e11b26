"""The bytes that a pool has promised: a fold over its agent's own records, kept current, and no second book.

An entry is either what a record's history says was admitted, or what is being admitted while that history is written.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from csi_driver.errors import NoSpace
from qos.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable


class Ledger:
    """Admit bytes to one pool, never past its limit. All sizes are bytes."""

    def __init__(self, pool: str, limit: Callable[[], int]) -> None:
        """Keep the ledger of the pool with this name. `limit` returns how many bytes may be promised in all."""
        self._pool = pool
        self._limit = limit
        self._lock = threading.Lock()
        self._entries: dict[str, int] = {}
        self._promised = 0

    def admit(self, record_id: str, size: int, note: str = "") -> None:
        """Promise `size` bytes to a record, instead of what it had. Raises NoSpace with the arithmetic and the note."""
        limit = self._limit()
        with self._lock:
            had = self._entries.get(record_id, 0)
            left = limit - self._promised + had
            if size > had and size > left:
                raise NoSpace(
                    f"pool {self._pool} can't take {format_bytes(size)}: {format_bytes(max(left, 0))} of "
                    f"{format_bytes(limit)} can still be promised{note}; free space, or ask another pool"
                )
            self._set(record_id, size)

    def settle(self, record_id: str, size: int) -> None:
        """Take over what a record's history says: `size` bytes, 0 when it has none in this pool."""
        with self._lock:
            self._set(record_id, size)

    def left(self) -> int:
        """Return how many bytes can still be promised."""
        limit = self._limit()
        with self._lock:
            return max(0, limit - self._promised)

    def promised(self) -> int:
        """Return how many bytes were promised."""
        with self._lock:
            return self._promised

    def _set(self, record_id: str, size: int) -> None:
        self._promised += size - self._entries.pop(record_id, 0)
        if size:
            self._entries[record_id] = size
