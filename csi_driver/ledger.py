"""What was promised, of a pool's bytes and of a node's disks: folds over the agent's own records, and no second book.

An entry is either what a record's history says was admitted, or what is being admitted while that history is written.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from csi_driver.disks import Disk, lacking
from csi_driver.errors import NoSpace
from qos.iocost import Cost, Floor, Measured
from qos.limits import DevNo
from qos.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


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


class DiskLedger:
    """Promise floors on the disks of a node, never more than a disk can give, however many pools stand on it."""

    def __init__(self, known: Mapping[str, Measured] | None = None) -> None:
        """Take what is known of disks, by serial number or name."""
        self._known = known or {}
        self._lock = threading.Lock()
        self._pools: dict[str, tuple[Disk, ...]] = {}
        self._largest: dict[str, int] = {}
        self._entries: dict[str, tuple[str, tuple[Floor, ...]]] = {}

    def join(self, pool_id: str, disks: Sequence[Disk], largest: int) -> None:
        """Note on which disks a pool stands, and the bytes of the largest request that it is to see.

        Of several pools on a disk the smallest counts: the size of requests is the disk's.
        """
        with self._lock:
            self._pools[pool_id] = tuple(disks)
            self._largest |= {disk.device: min(largest, self._largest.get(disk.device, largest)) for disk in disks}

    def admit(self, record_id: str, pool_id: str, floor: Floor, then: Callable[[], None]) -> None:
        """Promise a record a floor beside what it has, and do `then`, both or none. Raises NoSpace, and what that does.

        What it had counts until `settle`, for it is in force until then: the larger of both, on each disk.
        """
        with self._lock:
            _, had = self._entries.get(record_id, ("", ()))
            more = all(floor.iops > one.iops or floor.bps > one.bps for one in had)
            if more and (why := lacking(self._disks(pool_id, record_id), floor)):
                raise NoSpace(why)
            then()
            self._set(record_id, pool_id, (*had, floor))

    def settle(self, record_id: str, pool_id: str, floor: Floor) -> None:
        """Take over what is in force of a record: its floor, none when it has none in this pool."""
        with self._lock:
            self._set(record_id, pool_id, (floor,))

    def disks(self, pool_id: str) -> tuple[Disk, ...]:
        """Return a pool's disks, with what I/O costs on them and what is promised."""
        with self._lock:
            return self._disks(pool_id)

    def costs(self, pool_id: str) -> dict[DevNo, Cost]:
        """Return what I/O costs on a pool's disks, nothing where nobody knows that of each of them."""
        disks = self.disks(pool_id)
        costs = {DevNo.parse(disk.device): disk.cost for disk in disks if disk.cost is not None}
        return costs if len(costs) == len(disks) else {}

    def _disks(self, pool_id: str, without: str = "") -> tuple[Disk, ...]:
        return tuple(self._figures(disk, without) for disk in self._pools.get(pool_id, ()))

    def _figures(self, disk: Disk, without: str) -> Disk:
        """Return a disk with its figures, less what one record has."""
        measured = self._known.get(disk.serial) or self._known.get(disk.name)
        if measured is None:
            return disk
        cost = Cost.of(measured, self._largest[disk.device])
        sharing = {pool_id for pool_id, disks in self._pools.items() if any(one.device == disk.device for one in disks)}
        promised = sum(
            max(cost.share(floor) for floor in floors)
            for record_id, (pool_id, floors) in self._entries.items()
            if pool_id in sharing and record_id != without
        )
        return disk.with_promised(cost, promised)

    def _set(self, record_id: str, pool_id: str, floors: tuple[Floor, ...]) -> None:
        self._entries.pop(record_id, None)
        if any(floors):
            self._entries[record_id] = (pool_id, floors)
