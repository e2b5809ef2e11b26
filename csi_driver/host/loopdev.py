"""Loop devices: a file becomes a block device by one ioctl, and stops being one when the kernel says so.

Two facts shape this file (KERNEL.md). LOOP_CTL_GET_FREE gives the same number to everyone who asks at once, so taking
it can fail and is tried again. LOOP_CLR_FD answers 0 while somebody, such as udev's blkid, still has the device open:
it goes at the last close, so only sysfs says when a device is free.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import wait_for
from csi_driver.errors import Busy, Foreign, InUse, NotFound, Unknown, Unready
from csi_driver.host import block, loopinfo
from csi_driver.host.block import Device, Inode, inode_of, loop_status
from csi_driver.host.loopinfo import Attached
from csi_driver.host.refusals import refused
from csi_driver.host.syscalls import (
    BLKROSET,
    LO_FLAGS_DIRECT_IO,
    LO_FLAGS_READ_ONLY,
    LOOP_CLR_FD,
    LOOP_CONFIGURE,
    LOOP_CTL_GET_FREE,
    LOOP_SET_CAPACITY,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.deadline import Deadline
from csi_driver.host.syscalls import Kernel

CONTROL = Path("/dev/loop-control")
LO_NAME_SIZE = 64
# linux/loop.h, struct loop_config (304 bytes): fd, block_size, struct loop_info64 (232 bytes: 5 x u64, 4 x u32,
# file name 64, crypt name 64, key 32, init 2 x u64), reserved 8 x u64.
LOOP_CONFIG = struct.Struct("=II 40x IIII 64s 64x 32x 16x 64x")


class LoopDevices:
    """Attach image files to loop devices, and detach them. Safe to use from many threads."""

    def __init__(self, kernel: Kernel) -> None:
        """Know nothing yet: the first question looks at all devices of the machine, and none after it does.

        From then on every device of our files is attached and detached here, and each answer is still checked with the
        kernel. A file that somebody else attaches meanwhile is not noticed.
        """
        self._kernel = kernel
        self._known: dict[Inode, Device] = {}
        self._looked = False
        self._attaching: set[Inode] = set()
        self._lock = threading.Lock()

    def attach(self, image: Path, *, sector_size: int, read_only: bool = False, deadline: Deadline) -> Device:
        """Return the loop device of this very file, as long as it is, with direct I/O where its file system can.

        `sector_size` is in bytes. Raises NotFound, Busy if another thread attaches the same file, InUse if it is
        attached with another sector size or mode, Unready if the kernel refuses, Unknown at the deadline.
        """
        try:
            fd = os.open(image, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"can't attach {image}: {error.strerror}") from error
        except OSError as error:  # the file is there
            raise refused(f"can't attach {image}", error) from error
        try:
            with self._only_one(image, inode_of(fd)) as inode:
                if found := self._find(inode):
                    if not loopinfo.going(found):
                        device = _same(found, image, sector_size, read_only)
                        if block.size_bytes(device.dev) != _whole_sectors(fd):
                            self.grow(device)
                        return device
                    wait_for(
                        f"{found.path}, which had {image}, is free", lambda: not loopinfo.has(found, inode), deadline
                    )
                device = self._configure(fd, image, sector_size, read_only, deadline)
                self._known[inode] = device
                return device
        finally:
            os.close(fd)

    def find(self, image: Path) -> Device | None:
        """Return the loop device of this very file, None if it has none. Looks at all devices only on a cache miss.

        Of a file that was removed behind our back, the device that still has it.
        """
        try:
            return self._find(inode_of(image))
        except (FileNotFoundError, NotADirectoryError):
            orphan = self._orphan(image)
            return orphan.device if orphan else None

    def detach(self, what: Path | Device | Attached, deadline: Deadline) -> bool:
        """Free the loop device of an image, and wait until sysfs shows it gone. Return whether there was one.

        A bare Device must have been attached or found by this object: only then the file behind it is known to be
        ours. Raises Foreign if it has another file by now, InUse if it is mounted or mapped until the deadline.
        """
        found = self._found(what)
        if found is None:
            return False
        device, inode = found
        wait_for_free = f"{device.path} is no longer mounted, mapped or opened by others"
        try:
            wait_for(wait_for_free, lambda: self._clear(device, inode), deadline)
        except Unknown as error:
            raise InUse(f"can't detach {device.path}: it is mounted or mapped{_by(device)}") from error
        wait_for(
            f"{device.path} is free; a program still has it open", lambda: not loopinfo.has(device, inode), deadline
        )
        self._known.pop(inode, None)  # not before: what could not be freed must be found again
        return True

    def grow(self, device: Device) -> int:
        """Take over the image's new length. Return the device's size in bytes. Raises NotFound, Unready."""
        try:
            with loopinfo.opened(device, os.O_RDONLY) as fd:
                self._kernel.ioctl(fd, LOOP_SET_CAPACITY, path=device.path)
        except OSError as error:
            raise Unready(f"can't grow {device.path}: {error}") from error
        return block.size_bytes(device.dev)

    def list(self, folder: Path) -> tuple[Attached, ...]:
        """Return the loop devices whose files are, or were until deleted, directly in a folder."""
        inside = folder.resolve()
        found = [loopinfo.attached(name, last_name) for name, last_name in loopinfo.bound()]
        return tuple(one for one in found if one and one.image.parent == inside)

    @staticmethod
    def direct_io(device: Device) -> bool:
        """Return whether the device bypasses the page cache. Raises NotFound."""
        try:
            return (block.sysfs(device.dev) / "loop/dio").read_text().strip() == "1"
        except OSError as error:
            raise NotFound(f"{device.path} has no file behind it") from error

    @contextlib.contextmanager
    def _only_one(self, image: Path, inode: Inode) -> Iterator[Inode]:
        # Two devices on one file would each cache it: the second thread must not even look before the first is done.
        with self._lock:
            if inode in self._attaching:
                raise Busy(f"another call is attaching {image}")
            self._attaching.add(inode)
        try:
            yield inode
        finally:
            with self._lock:
                self._attaching.discard(inode)

    def _find(self, inode: Inode) -> Device | None:
        known = self._known.get(inode)
        if known and loopinfo.has(known, inode):
            return known
        with self._lock:
            if known:  # somebody else freed it, or it can't be asked just now: look at all again
                self._known.pop(inode, None)
                self._looked = False
            if not self._looked:
                self._look()
        return self._known.get(inode)

    def _look(self) -> None:
        """Ask every bound device for its file: the name in sysfs may be deleted, renamed over, another namespace's."""
        for name, last_name in loopinfo.bound():
            if (found := loopinfo.attached(name, last_name)) is not None:
                self._known.setdefault(found.inode, found.device)
        self._looked = True

    @staticmethod
    def _orphan(image: Path) -> Attached | None:
        """Return the loop device that still has a file which had this name and was removed, None if there is none."""
        for name, last_name in loopinfo.bound():
            if last_name.name == image.name + loopinfo.DELETED:
                found = loopinfo.attached(name, last_name)
                if found is not None and found.deleted and found.image.parent == image.parent.resolve():
                    return found
        return None

    def _found(self, what: Path | Device | Attached) -> tuple[Device, Inode] | None:
        if isinstance(what, Attached):
            return (what.device, what.inode) if loopinfo.has(what.device, what.inode) else None
        if isinstance(what, Path):
            at = loopinfo.inode_if_there(what)
            if at is None:
                return (orphan.device, orphan.inode) if (orphan := self._orphan(what)) else None
            return (device, at) if (device := self._find(at)) else None
        for inode, device in list(self._known.items()):
            if device == what:
                return (device, inode) if loopinfo.has(device, inode) else None
        if loopinfo.backing(what) is None:
            return None
        raise Foreign(f"not detaching {what.path}: it was not attached here; name the image behind it")

    def _configure(self, fd: int, image: Path, sector_size: int, read_only: bool, deadline: Deadline) -> Device:
        taken: list[Device] = []

        def take() -> bool:
            device = self._take_free(fd, image, sector_size, read_only)
            taken.extend([device] if device else [])
            return device is not None

        wait_for(f"a free loop device could be taken for {image}", take, deadline)
        return taken[0]

    def _take_free(self, fd: int, image: Path, sector_size: int, read_only: bool) -> Device | None:
        flags = LO_FLAGS_DIRECT_IO | (LO_FLAGS_READ_ONLY if read_only else 0)
        name = os.fsencode(image)[-LO_NAME_SIZE + 1 :]
        config = bytearray(LOOP_CONFIG.pack(fd, sector_size, 0, 0, 0, flags, name))
        path = Path("/dev/loop?")
        try:
            with _control() as control:
                path = Path(f"/dev/loop{self._kernel.ioctl(control, LOOP_CTL_GET_FREE, path=CONTROL)}")
            device_fd = os.open(path, os.O_RDONLY if read_only else os.O_RDWR)
        except OSError as error:
            raise Unready(f"no loop device for {image}: {error}; is the module loop loaded?") from error
        try:
            self._kernel.ioctl(device_fd, LOOP_CONFIGURE, config, path=path)
            return self._checked(device_fd, fd, image, path, read_only=read_only)
        except OSError as error:
            if error.errno == errno.EBUSY:  # another process or thread was quicker
                return None
            raise Unready(f"can't attach {image}: {error}") from error
        finally:
            os.close(device_fd)

    def _checked(self, device_fd: int, fd: int, image: Path, path: Path, *, read_only: bool) -> Device:
        device = Device(path, block.dev_number(os.fstat(device_fd).st_rdev))
        inode, offset, limit, _ = loop_status(device_fd)
        size, wanted = block.size_bytes(device.dev), _whole_sectors(fd)
        if inode == inode_of(fd) and (offset, limit) == (0, 0) and size == wanted:
            if block.read_only(device.dev) != read_only:
                # A number keeps what `blockdev --setro` made of it, long after that device is gone.
                self._kernel.ioctl(device_fd, BLKROSET, bytearray(struct.pack("=i", read_only)), path=path)
            return device
        self._kernel.ioctl(device_fd, LOOP_CLR_FD, path=path)
        raise Unready(f"{path} shows {size} bytes of {inode} from {offset}, not the {wanted} bytes of {image}")

    def _clear(self, device: Device, inode: Inode) -> bool:
        try:
            # O_EXCL fails while a mount or a mapping has the device, and so keeps LOOP_CLR_FD from marking a device in
            # use, which would then vanish at its unmount.
            with loopinfo.opened(device, os.O_RDONLY | os.O_EXCL) as fd:
                if loop_status(fd)[0] != inode:
                    raise Foreign(f"not detaching {device.path}: it has another file by now")
                self._kernel.ioctl(fd, LOOP_CLR_FD, path=device.path)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            if error.errno == errno.EBUSY:
                return False
            raise Unready(f"can't detach {device.path}: {error}") from error
        return True


def _same(device: Device, image: Path, sector_size: int, read_only: bool) -> Device:
    """Return the device that already has the image, if it has it in the way that is asked for."""
    sectors, is_read_only = block.sector_size(device.dev), block.read_only(device.dev)
    if (sectors, is_read_only) != (sector_size, read_only):
        modes = {True: "read-only", False: "writable"}
        raise InUse(
            f"{image} is attached at {device.path} with sectors of {sectors} bytes, {modes[is_read_only]}; "
            f"{sector_size} bytes, {modes[read_only]} was asked for: detach it first"
        )
    return device


def _whole_sectors(fd: int) -> int:
    return os.fstat(fd).st_size // block.SECTOR * block.SECTOR


def _by(device: Device) -> str:
    names = block.holders(device.dev)
    return f" by {', '.join(names)}" if names else ""


@contextlib.contextmanager
def _control() -> Iterator[int]:
    fd = os.open(CONTROL, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)
