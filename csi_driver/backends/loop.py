"""Volumes as files in a folder, sparse unless they are thick, each behind a loop device.

POOL/.sluice-pool     the marker: which pool this is
POOL/images/ID.img    a volume or snapshot; its passport is an extended attribute
POOL/new/ID.img       being made; what is found there at start was never whole, and goes
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from csi_driver.backends import marker, passports
from csi_driver.backends.base import Fill, Found, Passport
from csi_driver.backends.newimage import new_image
from csi_driver.errors import Foreign, Invalid, Lost, NotFound, Unsupported
from csi_driver.host import block, facts
from csi_driver.host.block import disk_under
from csi_driver.host.lengthen import lengthen
from csi_driver.host.reflink import Reflinks
from csi_driver.host.refusals import as_unready, refused
from csi_driver.ids import is_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from csi_driver.backends.base import Frozen
    from csi_driver.backends.image import PoolImage
    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device, Disk
    from csi_driver.host.filesystem import Filesystems
    from csi_driver.host.loopdev import LoopDevices
    from csi_driver.host.syscalls import Kernel

SUFFIX = ".img"


class LoopBackend:
    """Keep one pool of image files, and attach them to loop devices."""

    amends_at_once = True
    cuts_are_whole = True
    splits_at = 0

    def __init__(
        self, folder: Path, kernel: Kernel, loops: LoopDevices, filesystems: Filesystems, image: PoolImage | None = None
    ) -> None:
        """Take the folder of the pool. With `image` the pool lives in a file system of its own, mounted there."""
        self._folder = folder
        self._images = folder / "images"
        self._new = folder / "new"
        self._kernel = kernel
        self._reflinks = Reflinks(kernel)
        self._loops = loops
        self._filesystems = filesystems
        self._image = image
        self._identity = ""
        self._device_number = 0
        self._disks: tuple[Disk, ...] = ()
        self._clones = False
        self._one_log = False
        self._sector_size = 4096

    # the pool

    @property
    def identity(self) -> str:
        """Return the marker's UUID and that of the file system, "" before the pool is open."""
        return self._identity

    @property
    def sector_size(self) -> int:
        """Return the sector size of new volumes: 4096, or the disk's where it can't do direct I/O in such steps."""
        return self._sector_size

    def alone(self) -> AbstractContextManager[object]:
        """Return nothing to wait for: a cut shares nothing with other changes of the pool."""
        return contextlib.nullcontext()

    @property
    def clones(self) -> bool:
        """Return whether the file system copies by reference."""
        return self._clones

    def open(self, identity: str) -> None:
        """Mount the pool's own image if it has one, check who it is, and clear away what was never whole.

        Raises Foreign when the folder isn't the pool that `identity` names, Unready when it can't be used.
        """
        if self._image is not None:
            self._image.mount(self._folder, create=not identity)
        with as_unready(f"pool folder {self._folder}"):
            if not identity:
                marker.claim(self._folder, self._kernel)
            found = marker.identity(self._folder)
            if identity and not marker.same_pool(identity, found):
                raise Foreign(
                    f"{self._folder} is {f'pool {found}' if found else 'no pool'}, its record says {identity}: is the "
                    "right disk mounted there? nothing is touched"
                )
            self._device_number = self._folder.stat().st_dev
            self._one_log = facts.one_log(self._folder)
            for folder in (self._images, self._new):
                if not folder.is_dir():
                    self._kernel.mkdir(folder, 0o700)
            self._kernel.fsync_dir(self._folder)
            # What a killed life renamed or removed may not be durable yet, and records are built on it.
            self._kernel.fsync_dir(self._images)
            for half_made in self._new.iterdir():
                self._kernel.unlink(half_made)
            self._clones = facts.reflinks(self._kernel, self._new).holds
        self._disks = disk_under(self._folder)
        self._identity = found

    def look(self) -> str:
        """Return the identity that stands in the folder now, "" when none does. Changes nothing.

        With an identity, `fill`, `find` and `list` work from here on.
        """
        with as_unready(f"pool folder {self._folder}"):
            found = marker.identity(self._folder)
            if found:
                self._device_number = self._folder.stat().st_dev
        return found

    def claimed(self) -> bool:
        """Return whether a pool was ever made here; where it wasn't, `open` with no identity would make one."""
        return bool(self.look()) or (self._image is not None and self._image.exists())

    def fill(self) -> Fill:
        """Return how full the file system of the pool is, in bytes. Raises Unready when it can't be written."""
        self._check()
        with as_unready(f"pool folder {self._folder}"):
            status = os.statvfs(self._folder)
            if status.f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
        return Fill(total, total - free)

    def disks(self) -> tuple[Disk, ...]:
        """Return the disks under the folder."""
        return self._disks

    def create(self, passport: Passport, size: int) -> bool:
        """Make a file of zeros; it and its passport are durable when this returns. False: it was there."""
        with self._made(passport, empty=True) as fd:
            if fd is None:
                return False
            lengthen(self._kernel, fd, size, allocate=passport.thick, path=passport.id)
        return True

    def cut(self, source: str, passport: Passport, size: int, frozen: Frozen) -> bool:
        """Share the source's extents with a new file. False: it was there."""
        origin = self._open_image(source)
        try:
            with self._made(passport) as fd:
                if fd is None:
                    return False
                with frozen as by:
                    self._clone(origin, fd, source, by)
                if os.fstat(fd).st_size < size:
                    self._kernel.ftruncate(fd, size, path=passport.id)
        finally:
            os.close(origin)
        return True

    def expand(self, record_id: str, size: int) -> bool:
        """Make the file longer; the new part is zeros. False: it was that long."""
        fd = self._open_image(record_id, os.O_RDWR)
        try:
            if os.fstat(fd).st_size >= size:
                return False
            with as_unready(f"image of {record_id}"):
                lengthen(self._kernel, fd, size, allocate=passports.is_thick(fd), path=record_id)
                self._kernel.fsync(fd, path=record_id)
        finally:
            os.close(fd)
        return True

    def delete(self, record_id: str) -> bool:
        """Remove the file; its blocks go when its last opener does. False: there was none."""
        self._check()
        changed = False
        with as_unready(f"image of {record_id}"):
            for path in (self._new / (record_id + SUFFIX), self._path(record_id)):
                with contextlib.suppress(FileNotFoundError):
                    self._kernel.unlink(path)
                    changed = True
            if changed:
                self._kernel.fsync_dir(self._images)
        return changed

    def amend(self, record_id: str, passport: Passport) -> None:
        """Replace the passport. An fsync of the file takes it along, and every flush of a volume is one."""
        fd = self._open_image(record_id, os.O_RDWR)
        try:
            with as_unready(f"passport of {record_id}"):
                passports.write(self._kernel, fd, passport)
        finally:
            os.close(fd)

    def never_written(self, record_id: str) -> bool:
        """Return whether the file has no allocated extent at all."""
        return self._filesystems.never_written(self._path(record_id))

    def take(self, record_id: str) -> None:
        """Do nothing: what is written is known."""

    def find(self, record_id: str) -> Found | None:
        """Return what the file says of itself, None when the pool surely has none."""
        self._check()
        try:
            fd = os.open(self._path(record_id), os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise refused(f"image of {record_id}", error) from error
        try:
            file = os.fstat(fd)
            passport = passports.read(fd)
        finally:
            os.close(fd)
        return Found(
            record_id, passport.kind if passport else "", file.st_size, file.st_blocks * block.SECTOR, passport
        )

    def list(self) -> Iterator[Found]:
        """Return every image file of the pool."""
        self._check()
        for path in sorted(self._images.iterdir()):
            if path.suffix == SUFFIX and is_id(path.stem) and (found := self.find(path.stem)):
                yield found

    # devices

    def attach(self, record_id: str, sector_size: int, deadline: Deadline) -> Device:
        """Return the loop device of the file, attaching it when it isn't."""
        self._check()
        try:
            return self._loops.attach(self._path(record_id), sector_size=sector_size, deadline=deadline)
        except NotFound as error:
            raise Lost(f"the image of {record_id} is LOST: {error}") from error

    def attached(self, record_id: str) -> Device | None:
        """Return the loop device of the file when it has one."""
        return self._loops.find(self._path(record_id))

    def resize(self, record_id: str, deadline: Deadline) -> None:  # noqa: ARG002 - one ioctl, nothing to wait for
        """Let the loop device have the length of the file."""
        device = self.attached(record_id)
        if device is not None and block.size_bytes(device.dev) != self._path(record_id).stat().st_size:
            self._loops.grow(device)

    def detach(self, record_id: str, deadline: Deadline) -> bool:
        """Free the loop device. False: there was none. Raises InUse when somebody holds it."""
        return self._loops.detach(self._path(record_id), deadline)

    # within

    def _path(self, record_id: str) -> Path:
        if not is_id(record_id):
            raise Invalid(f"{record_id[:128]!r} is not an id")
        return self._images / (record_id + SUFFIX)

    def _check(self) -> None:
        """Raise Foreign when the folder is on another file system than when it was opened: it was unmounted."""
        with as_unready(f"pool folder {self._folder}"):
            number = self._folder.stat().st_dev
        if number != self._device_number:
            raise Foreign(f"pool folder {self._folder} is not mounted any more; nothing is touched until it is")

    def _made(self, passport: Passport, *, empty: bool = False) -> AbstractContextManager[int | None]:
        self._check()
        return new_image(self._kernel, self._new, self._path(passport.id), passport, one_log=self._one_log and empty)

    def _clone(self, origin: int, fd: int, source: str, by: Deadline | None) -> None:
        try:
            self._reflinks.clone(origin, fd, source, by)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV):
                raise Unsupported(
                    f"pool folder {self._folder} can't copy by reference: give the pool a size, or a folder on XFS"
                ) from error
            raise

    def _open_image(self, record_id: str, flags: int = os.O_RDONLY) -> int:
        self._check()
        try:
            return os.open(self._path(record_id), flags)
        except FileNotFoundError as error:
            raise Lost(f"the image of {record_id} is LOST: it is not in {self._images}") from error
        except OSError as error:
            raise refused(f"image of {record_id}", error) from error
