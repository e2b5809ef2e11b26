"""A pool in memory, for tests and for measuring scale: as strict as a real one, without a kernel below.

`SimPool` is what a disk would be: it outlives the backends that serve it, as bytes outlive a process.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.backends.base import Fill, Found
from csi_driver.errors import Foreign, Lost, NoSpace, Unready
from csi_driver.host.block import Device
from qos.limits import DevNo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from csi_driver.backends.base import Frozen, Passport
    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Disk

SIM_MAJOR = 240
"""The first of the numbers that Linux keeps for local use (Documentation/admin-guide/devices.txt)."""


@dataclass(slots=True)
class SimImage:
    """Hold what a volume's bytes would be: their number, their owner, and what was written by offset."""

    passport: Passport
    size: int
    data: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class SimPool:
    """Hold the images and attached devices of one pool. Sizes in bytes; `others` is what somebody else has written."""

    total: int = 1 << 40
    others: int = 0
    metadata_total: int = 0
    metadata_used: int = 0
    marker: str = ""
    images: dict[str, SimImage] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    disks: tuple[Disk, ...] = ()
    lock: threading.RLock = field(default_factory=threading.RLock)
    next_minor: int = 0


class SimBackend:
    """Serve one SimPool."""

    sector_size = 4096
    clones = True
    amends_at_once = True
    cuts_are_whole = False
    splits_at = 0

    def __init__(self, pool: SimPool) -> None:
        self._pool = pool
        self._open = False

    def alone(self) -> AbstractContextManager[object]:
        """Return nothing to wait for: a cut shares nothing with other changes of the pool."""
        return contextlib.nullcontext()

    @property
    def identity(self) -> str:
        """Return what tells this pool from all others."""
        return self._pool.marker

    def open(self, identity: str) -> None:
        """Claim a new pool, or check that it is the one that the record names."""
        with self._pool.lock:
            if not self._pool.marker and not identity:
                self._pool.marker = str(uuid.uuid4())
            if identity and identity != self._pool.marker:
                raise Foreign(f"this is pool {self._pool.marker}, its record says {identity}")
            self._open = True

    def look(self) -> str:
        """Return the identity of the pool."""
        self._open = bool(self._pool.marker)
        return self._pool.marker

    def claimed(self) -> bool:
        """Return whether a pool was ever made here."""
        return bool(self._pool.marker)

    def fill(self) -> Fill:
        """Return the pool's size and the bytes written."""
        self._check()
        with self._pool.lock:
            used = sum(_allocated(image) for image in self._pool.images.values())
            pool = self._pool
            return Fill(pool.total, used + pool.others, pool.metadata_total, pool.metadata_used)

    def disks(self) -> tuple[Disk, ...]:
        """Return the disks that are said to be below."""
        return self._pool.disks

    def create(self, passport: Passport, size: int) -> bool:
        """Make a volume of zeros. False: it was there."""
        self._check()
        with self._pool.lock:
            if passport.id in self._pool.images:
                return False
            self._check_room(size if passport.thick else 0)
            self._pool.images[passport.id] = SimImage(passport, size)
            return True

    def cut(self, source: str, passport: Passport, size: int, frozen: Frozen) -> bool:
        """Copy a volume or snapshot. False: the copy was there."""
        self._check()
        with self._pool.lock:
            if passport.id in self._pool.images:
                return False
            origin = self._image(source)
            with frozen:
                data = dict(origin.data)
            self._pool.images[passport.id] = SimImage(passport, max(size, origin.size), data)
            return True

    def expand(self, record_id: str, size: int) -> bool:
        """Grow a volume. False: it was that large."""
        self._check()
        with self._pool.lock:
            image = self._image(record_id)
            if image.size >= size:
                return False
            self._check_room(size - image.size if image.passport.thick else 0)
            image.size = size
            return True

    def delete(self, record_id: str) -> bool:
        """Free a volume. False: there was none."""
        self._check()
        with self._pool.lock:
            return self._pool.images.pop(record_id, None) is not None

    def amend(self, record_id: str, passport: Passport) -> None:
        """Replace the passport."""
        with self._pool.lock:
            self._image(record_id).passport = passport

    def never_written(self, record_id: str) -> bool:
        """Return whether nothing was ever written."""
        with self._pool.lock:
            return not self._image(record_id).data

    def write(self, record_id: str, offset: int, data: bytes) -> None:
        """Write as a pod would. Raises NoSpace when the pool is full."""
        with self._pool.lock:
            self._check_room(0 if self._image(record_id).passport.thick else len(data))
            self._image(record_id).data[offset] = data

    def read(self, record_id: str) -> dict[int, bytes]:
        """Return what was written, by offset."""
        with self._pool.lock:
            return dict(self._image(record_id).data)

    def take(self, record_id: str) -> None:
        """Do nothing: what is written is known."""

    def find(self, record_id: str) -> Found | None:
        """Return what stands under this id."""
        self._check()
        with self._pool.lock:
            image = self._pool.images.get(record_id)
            return _found(image) if image else None

    def list(self) -> Iterator[Found]:
        """Return all images."""
        self._check()
        with self._pool.lock:
            return iter([_found(image) for _, image in sorted(self._pool.images.items())])

    def attach(self, record_id: str, sector_size: int, deadline: Deadline) -> Device:  # noqa: ARG002 - the contract's
        """Return the volume's device, attaching it when it isn't."""
        self._check()
        with self._pool.lock:
            self._image(record_id)
            if record_id not in self._pool.devices:
                number = DevNo(SIM_MAJOR, self._pool.next_minor)
                self._pool.next_minor += 1
                self._pool.devices[record_id] = Device(Path(f"/dev/sim{number.minor}"), number)
            return self._pool.devices[record_id]

    def attached(self, record_id: str) -> Device | None:
        """Return the volume's device when it is attached."""
        with self._pool.lock:
            return self._pool.devices.get(record_id)

    def resize(self, record_id: str, deadline: Deadline) -> None:
        """Do nothing: a sim device has the size of its image."""

    def detach(self, record_id: str, deadline: Deadline) -> bool:  # noqa: ARG002 - the contract's
        """Let the device go. False: there was none."""
        with self._pool.lock:
            return self._pool.devices.pop(record_id, None) is not None

    def _check_room(self, wanted: int) -> None:
        if wanted and self.fill().used + wanted > self._pool.total:
            raise NoSpace("the sim pool is full")

    def _image(self, record_id: str) -> SimImage:
        try:
            return self._pool.images[record_id]
        except KeyError:
            raise Lost(f"{record_id} is LOST: the sim pool doesn't have it") from None

    def _check(self) -> None:
        if not self._open:
            raise Unready("the sim pool is not open")


def _found(image: SimImage) -> Found:
    return Found(image.passport.id, image.passport.kind, image.size, _allocated(image), image.passport)


def _allocated(image: SimImage) -> int:
    return image.size if image.passport.thick else sum(len(data) for data in image.data.values())
