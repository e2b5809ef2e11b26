"""The pools of this node: opened, watched, and published as records."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from csi_driver.disks import Disk
from csi_driver.errors import Foreign, NoSpace, StorageError, Unready
from csi_driver.guard import Guard, Level, Share
from csi_driver.ledger import DiskLedger, Ledger
from csi_driver.records import SIZE_STEP, Pool, PoolStatus, Snapshot, Volume
from csi_driver.store.base import Stale
from qos.iocost import LARGEST_REQUEST, MOST_REQUEST, NO_FLOOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from csi_driver.backends.base import Backend, Fill
    from csi_driver.groups import GroupSnapshot
    from csi_driver.host import block
    from csi_driver.records import PoolSpec
    from csi_driver.store.base import Store
    from qos.iocost import Cost, Floor
    from qos.limits import DevNo

log = structlog.get_logger(__name__)

REMEDIES = {"lvm": "run `sluice pool extend`"}
OTHER_REMEDY = "make the file system that it is on larger"


class ServedPool:
    """Join a pool's record, its bytes, its ledger and the guard of its fill.

    `entered` counts how often the guard came to each level, by which way whatever.
    """

    def __init__(
        self,
        record_id: str,
        spec: PoolSpec,
        backend: Backend,
        opened: Callable[[Backend], None] = lambda _: None,
        floors: DiskLedger | None = None,
    ) -> None:
        """Take the pool's record, its bytes, and whom to tell when they can be used, or are on another disk too.

        Such as who limits its disks. `floors` is the ledger that all pools of the node share.
        """
        self.id = record_id
        self._opened = opened
        self.spec = spec
        self.backend = backend
        self.ledger = Ledger(spec.name, self._promisable)
        self.floors = floors or DiskLedger()
        self._trouble = "not opened yet"
        self._identity = ""
        self._disks: tuple[block.Disk, ...] = ()
        self._judging = threading.Lock()
        self._guard = Guard()
        self._fill: Fill | None = None
        self._watched: tuple[Level, str, tuple[block.Disk, ...]] = (Level.OK, self._trouble, ())
        self.entered: Counter[Level] = Counter()

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

    @property
    def level(self) -> Level:
        """Return how bad its fill is, by the last look."""
        return self._guard.level

    @property
    def emergency(self) -> str:
        """Return how full it is while volumes that yield must yield, "" else; by the last look."""
        guard, fill = self._guard, self._fill
        if guard.level is not Level.EMERGENCY or fill is None:
            return ""
        return f"pool {self.spec.name} is nearly full: {guard.fullness(*_shares(fill))}"

    def look(self) -> Fill:
        """Look how full the pool is, and judge it. Raises what prevents that; the last judgement stands then."""
        fill = self.backend.fill()
        with self._judging:
            before = self._guard.level
            self._guard, self._fill = self._guard.next(*_shares(fill)), fill
            level = self._guard.level
            if level is not before:
                self.entered[level] += 1
        if level is not before:
            say = log.warning if level > before else log.info
            say("pool's fill", pool=self.spec.name, was=before.label, now=self._condition(fill) or level.label)
        return fill

    def watch(self) -> bool:
        """Look, and return whether level, trouble or disks are others than at the last watch. What fails is trouble.

        Others look in between, for an admission or a scrape: what they saw first is news here all the same.
        """
        if not self._trouble:
            try:
                self.look()
            except StorageError as error:
                self._note(f"{type(error).__name__}: {error}")
            else:
                self._look_at_disks()
        now = (self.level, self._trouble, self._disks)
        before, self._watched = self._watched, now
        return now != before

    def admit(self, record: Volume | Snapshot | GroupSnapshot) -> None:
        """Promise a record the bytes and the floor that it wants, both or none. Raises NoSpace, with figures.

        A volume that exists can grow, and be cut, for longer than new ones are taken: it can't go elsewhere.
        """
        fill = self.look()
        new = isinstance(record, Volume) and not record.status.history.accepted
        if self.level >= (Level.NO_NEW_VOLUMES if new else Level.NO_NEW_SNAPSHOTS):
            raise NoSpace(f"pool {self.spec.name}: {self._condition(fill)}")
        size = self.counted(record, record.spec.size)
        each = f"; of a thick volume each byte counts {self.spec.ratio:g} times" if size > record.spec.size else ""
        floor = record.spec.qos.floor if isinstance(record, Volume) else NO_FLOOR
        self.floors.admit(record.id, self.id, floor, lambda: self.ledger.admit(record.id, size, each))

    def promise(self, record: Volume) -> None:
        """Promise a volume the floor that it wants, its bytes being as they were. Raises NoSpace, with figures."""
        self.floors.admit(record.id, self.id, record.spec.qos.floor, lambda: None)

    def costs(self) -> dict[DevNo, Cost]:
        """Return what I/O costs on the pool's disks, nothing where nobody knows that of each of them."""
        return self.floors.costs(self.id)

    def settle(self, record_id: str, size: int, floor: Floor = NO_FLOOR) -> None:
        """Take over what a record has by its history: its counted bytes and its floor, none when it is gone."""
        self.ledger.settle(record_id, size)
        self.floors.settle(record_id, self.id, floor)

    def counted(self, record: Volume | Snapshot | GroupSnapshot, size: int) -> int:
        """Return how much of what can be promised a record of `size` bytes takes.

        A thick volume has its bytes, written or not, so that each of them takes the place of all that are promised for
        one: the pool's ratio never promises its bytes to others.
        """
        thick = isinstance(record, Volume) and record.spec.thick
        return math.ceil(size * self.spec.ratio) if thick else size

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
        if self._fill is None:  # who was in an emergency when the server stopped is until it has ended
            level = Level.of(record.status.guard)
            self._guard = Guard(level, level)
        self.look()  # refuses when nothing can be written
        self._join()
        identity = self.backend.identity
        if identity != record.status.identity:
            status = dataclasses.replace(record.status, identity=identity)
            store.put_status(dataclasses.replace(record, status=status))
        return identity

    def _status(self, old: PoolStatus) -> PoolStatus:
        if self._trouble:
            return dataclasses.replace(old, left=0, left_thick=0, guard="", abnormal=self._trouble)
        try:
            fill = self.look()
            left = self.ledger.left() if self.level < Level.NO_NEW_VOLUMES else 0
        except StorageError as error:
            self._note(f"{type(error).__name__}: {error}")  # it is opened again when it is well
            return dataclasses.replace(old, left=0, left_thick=0, guard="", abnormal=self._trouble)
        return PoolStatus(
            identity=self._identity,
            left=left,
            left_thick=self._whole_steps(min(left / self.spec.ratio, fill.room_for_thick)),
            promised=self.ledger.promised(),
            total=fill.total,
            used=fill.used,
            metadata_total=fill.metadata_total,
            metadata_used=fill.metadata_used,
            sector_size=self.backend.sector_size,
            clones=self.backend.clones,
            disks=self.floors.disks(self.id),
            guard=self.level.label,
            abnormal=self._condition(fill),
        )

    def _join(self) -> None:
        """Take the pool's disks as they are, and let the ledger of floors know them."""
        self._disks = self.backend.disks()
        disks = [Disk(disk.name, str(disk.dev), disk.serial, disk.model, disk.size_bytes) for disk in self._disks]
        self.floors.join(self.id, disks, min(MOST_REQUEST, self.backend.splits_at or LARGEST_REQUEST))

    def _look_at_disks(self) -> None:
        """See whether the pool was extended by a disk while it is served, or lost one."""
        before = self._disks
        self._join()
        if before != self._disks:
            log.info("pool's disks", pool=self.spec.name, now=", ".join(disk.name for disk in self._disks))
            self._opened(self.backend)

    def _condition(self, fill: Fill) -> str:
        return self._guard.condition(*_shares(fill), REMEDIES.get(self.spec.backend, OTHER_REMEDY))

    def _promisable(self) -> int:
        """Return what may be promised in all, by the last look; in whole steps, as volumes are."""
        return self._whole_steps((self._fill or self.backend.fill()).total * self.spec.ratio)

    @staticmethod
    def _whole_steps(size: float) -> int:
        return int(size) - int(size) % SIZE_STEP

    def _note(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("pool is not usable", pool=self.spec.name, reason=trouble)
        self._trouble = trouble


def _shares(fill: Fill) -> tuple[Share, Share]:
    return Share(fill.used - fill.thick, fill.total - fill.thick), Share(fill.metadata_used, fill.metadata_total)


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

    def watch(self) -> bool:
        """Look how full they are, and return whether anything changed that is to be published."""
        changed = [pool.watch() for pool in self]
        return any(changed)

    def pressed(self) -> frozenset[str]:
        """Return the ids of those in an emergency."""
        return frozenset(pool.id for pool in self if pool.emergency)

    def refresh(self, store: Store) -> None:
        """Open what isn't open, and publish all."""
        for pool in self:
            if not pool.opened():
                pool.open(store)
            try:
                pool.publish(store)
            except (Stale, StorageError) as error:
                log.warning("pool is not published", pool=pool.spec.name, reason=str(error))
