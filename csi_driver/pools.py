"""The pools of this node: opened, watched, and published as records."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import structlog

from csi_driver.errors import Foreign, StorageError, Unready
from csi_driver.ledger import Ledger
from csi_driver.records import Disk, Pool, PoolStatus
from csi_driver.store.base import Stale
from qos.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from csi_driver.backends.base import Backend, Fill
    from csi_driver.records import PoolSpec
    from csi_driver.store.base import Store

log = structlog.get_logger(__name__)

FULL = 0.01
"""The part of a pool that is free when it counts as full: what pods write there is about to fail."""


class ServedPool:
    """Join a pool's record, its bytes and its ledger."""

    def __init__(
        self, record_id: str, spec: PoolSpec, backend: Backend, opened: Callable[[Backend], None] = lambda _: None
    ) -> None:
        """Take the pool's record, its bytes, and whom to tell when they can be used, such as who limits its disks."""
        self.id = record_id
        self._opened = opened
        self.spec = spec
        self.backend = backend
        self.ledger = Ledger(spec.name, self._promisable)
        self._trouble = "not opened yet"
        self._identity = ""
        self._disks: tuple[Disk, ...] = ()

    def open(self, store: Store) -> None:
        """Open the bytes under the identity that the record names; what fails is kept as the pool's trouble."""
        try:
            self._identity = self._open(store)
        except StorageError as error:
            self._note(f"{type(error).__name__}: {error}")
        else:
            self._note("")
            self._opened(self.backend)

    def check(self) -> None:
        """Raise Unready, saying why, unless the pool is open."""
        if self._trouble:
            raise Unready(f"pool {self.spec.name}: {self._trouble}")

    def opened(self) -> bool:
        """Return whether the pool can be used."""
        return not self._trouble

    def publish(self, store: Store) -> None:
        """Write what is left into the record, as a hint. What another write came before is written next time."""
        record = store.get(Pool, self.id)
        if record is None:
            raise Unready(f"pool {self.spec.name} has no record")
        status = self._status(record.status)
        if status != record.status:
            store.put_status(
                dataclasses.replace(record, status=status), durable=status.identity != record.status.identity
            )

    def _open(self, store: Store) -> str:
        record = store.get(Pool, self.id)
        if record is None:
            record = store.create(Pool(self.id, self.spec))
        if record.spec != self.spec:
            if record.spec.backend != self.spec.backend or record.spec.path != self.spec.path:
                raise Foreign(
                    f"its record says {record.spec.backend} at {record.spec.path}; give the new pool a new name"
                )
            record = store.put_spec(dataclasses.replace(record, spec=self.spec))
        self.backend.open(record.status.identity)
        self.backend.fill()  # refuses when nothing can be written
        self._disks = tuple(
            Disk(disk.name, str(disk.dev), disk.serial, disk.model, disk.size_bytes) for disk in self.backend.disks()
        )
        identity = self.backend.identity
        if identity != record.status.identity:
            status = dataclasses.replace(record.status, identity=identity)
            store.put_status(dataclasses.replace(record, status=status))
        return identity

    def _status(self, old: PoolStatus) -> PoolStatus:
        if self._trouble:
            return dataclasses.replace(old, left=0, abnormal=self._trouble)
        try:
            fill = self.backend.fill()
            left = self.ledger.left()
        except StorageError as error:
            self._note(f"{type(error).__name__}: {error}")  # it is opened again when it is well
            return dataclasses.replace(old, left=0, abnormal=self._trouble)
        return PoolStatus(
            identity=self._identity,
            left=left,
            total=fill.total,
            used=fill.used,
            sector_size=self.backend.sector_size,
            clones=self.backend.clones,
            disks=self._disks,
            abnormal=_fullness(fill),
        )

    def _promisable(self) -> int:
        return int(self.backend.fill().total * self.spec.ratio)

    def _note(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("pool is not usable", pool=self.spec.name, reason=trouble)
        self._trouble = trouble


def _fullness(fill: Fill) -> str:
    """Return what to say of a pool that has no room for what its volumes were promised, "" while it has."""
    free = fill.total - fill.used
    if free > fill.total * FULL:
        return ""
    return (
        f"full: {format_bytes(fill.used)} of {format_bytes(fill.total)} are allocated, and volumes can't be written; "
        "delete volumes or snapshots, or make it larger"
    )


class ServedPools:
    """Hold the pools of this node by the id of their record."""

    def __init__(self, pools: Mapping[str, ServedPool]) -> None:
        self._pools = pools

    def __iter__(self) -> Iterator[ServedPool]:
        return iter(self._pools.values())

    def get(self, pool_id: str) -> ServedPool | None:
        """Return a pool of this node, None when it is another's."""
        return self._pools.get(pool_id)

    def opened(self) -> bool:
        """Return whether all can be used."""
        return all(pool.opened() for pool in self)

    def refresh(self, store: Store) -> None:
        """Open what isn't open, and publish all."""
        for pool in self:
            if not pool.opened():
                pool.open(store)
            try:
                pool.publish(store)
            except (Stale, StorageError) as error:
                log.warning("pool is not published", pool=pool.spec.name, reason=str(error))
