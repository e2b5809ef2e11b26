"""Facts about block devices, read from sysfs and stat. No data is read, and devices are hardly ever opened."""

from __future__ import annotations

import errno
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.errors import Foreign, Invalid, NotFound, Unready
from csi_driver.host.syscalls import LOOP_GET_STATUS64, query
from qos.limits import DevNo

if TYPE_CHECKING:
    from csi_driver.host.syscalls import Kernel

SYS = Path("/sys")
DEV = Path("/dev")
# The unit of /sys/block/*/size and of every device-mapper table, whatever the device's own sector size.
SECTOR = 512
LOOP_MAJOR = 7
LOOP_INFO_SIZE = 232
# linux/loop.h, struct loop_info64: lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit (u64), lo_number,
# lo_encrypt_type, lo_encrypt_key_size, lo_flags (u32), names and keys that we don't read.
_LOOP_INFO = struct.Struct("=QQQQQIIII")
# No real stack is this deep; a loop on a file on a loop on ... is followed no further.
DEEPEST = 16


@dataclass(frozen=True, slots=True)
class Device:
    """Hold a block device: its node, such as /dev/loop3, and its number, such as 7:3."""

    path: Path
    dev: DevNo


@dataclass(frozen=True, slots=True)
class Disk:
    """Hold a whole disk, below all loops, mappings and partitions."""

    dev: DevNo
    name: str
    serial: str
    model: str
    size_bytes: int
    rotational: bool


@dataclass(frozen=True, slots=True)
class Inode:
    """Hold what a file is, whatever its name."""

    dev: DevNo
    number: int


def dev_number(raw: int) -> DevNo:
    """Split the number of st_dev or st_rdev."""
    return DevNo(os.major(raw), os.minor(raw))


def inode_of(target: Path | int) -> Inode:
    """Return the inode of a path (symlinks followed) or descriptor. Raises OSError."""
    status = os.fstat(target) if isinstance(target, int) else target.stat()
    return Inode(dev_number(status.st_dev), status.st_ino)


def device_at(path: Path) -> Device:
    """Return the block device at a path. Raises NotFound, or Invalid if something else is there.

    When a disk goes away its name in /dev is free, and a careless program may have made a regular file there.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise NotFound(f"no block device at {path}: {error.strerror}") from error
    if not stat.S_ISBLK(status.st_mode):
        raise Invalid(f"{path} is not a block device")
    return Device(path, dev_number(status.st_rdev))


def check_identity(device: Device) -> None:
    """Make sure that the node still is this block device. Raises NotFound, Invalid or Foreign."""
    found = device_at(device.path).dev
    if found != device.dev:
        raise Foreign(f"{device.path} is {found} now, {device.dev} was expected")


def sysfs(dev: DevNo, sys: Path = SYS) -> Path:
    """Return a device's folder in sysfs, such as /sys/devices/virtual/block/loop3. Raises NotFound."""
    folder = sys / "dev/block" / str(dev)
    try:
        return folder.resolve(strict=True)
    except OSError as error:
        raise NotFound(f"the kernel has no block device {dev}") from error


def exists(dev: DevNo, sys: Path = SYS) -> bool:
    """Return whether the kernel has a block device of this number."""
    return (sys / "dev/block" / str(dev)).exists()


def named(name: str) -> Device:
    """Return the device with a kernel name, such as dm-3. Raises NotFound, Invalid."""
    return device_at(DEV / name)


def size_bytes(dev: DevNo, sys: Path = SYS) -> int:
    """Return the size in bytes. Raises NotFound, Unready."""
    return _of_device(dev, "size", sys) * SECTOR


def sector_size(dev: DevNo, sys: Path = SYS) -> int:
    """Return the logical sector size in bytes. Raises NotFound, Unready."""
    return _number(_whole(sysfs(dev, sys)) / "queue/logical_block_size")


def read_only(dev: DevNo, sys: Path = SYS) -> bool:
    """Return whether the kernel refuses writes to the device. Raises NotFound, Unready."""
    return _of_device(dev, "ro", sys) != 0


def holders(dev: DevNo, sys: Path = SYS) -> tuple[str, ...]:
    """Return the kernel names of the devices (dm, md) that stand on this one. Mounts are not in it."""
    try:
        return tuple(sorted(entry.name for entry in (sysfs(dev, sys) / "holders").iterdir()))
    except (NotFound, FileNotFoundError):
        return ()


def claimed(device: Device) -> bool:
    """Return whether someone has the device for himself: a mount, a mapping, a running mkfs.

    Asked by open(2) with O_EXCL, which costs the same however many mounts there are. Raises Unready.
    """
    try:
        fd = os.open(device.path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno in (errno.ENXIO, errno.ENODEV):
            return False
        if error.errno == errno.EBUSY:
            return True
        raise Unready(f"{device.path} can't be opened: {error.strerror}") from error
    os.close(fd)
    return False


def set_read_ahead(kernel: Kernel, dev: DevNo, kib: int) -> bool:
    """Set read-ahead in KiB if it differs. Return whether it did. Raises NotFound, OSError."""
    knob = _whole(sysfs(dev)) / "queue/read_ahead_kb"
    if _number(knob) == kib:
        return False
    kernel.write_file(knob, str(kib).encode())
    return True


def refuse_discards(kernel: Kernel, dev: DevNo) -> None:
    """Let a device take no discard any more, for as long as it is there. Raises NotFound, OSError."""
    knob = _whole(sysfs(dev)) / "queue/discard_max_bytes"
    if _number(knob):
        kernel.write_file(knob, b"0")


def loop_status(fd: int) -> tuple[Inode, int, int, int]:
    """Return a bound loop device's backing inode, offset, size limit (bytes) and LO_FLAGS. ENXIO if it is free."""
    buffer = query(fd, LOOP_GET_STATUS64, bytearray(LOOP_INFO_SIZE))
    device, number, _, offset, limit, _, _, _, flags = _LOOP_INFO.unpack_from(buffer)
    return Inode(dev_number(device), number), offset, limit, flags


def disk_under(path: Path, sys: Path = SYS) -> tuple[Disk, ...]:
    """Return the whole disks that carry a file or a device, by name; several under a striped or mirrored mapping.

    Empty for a file system without a block device of its own: btrfs, overlay, tmpfs, nfs. Raises NotFound.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise NotFound(f"no such file or device: {path}") from error
    is_device = stat.S_ISBLK(status.st_mode)
    return disks_of(dev_number(status.st_rdev if is_device else status.st_dev), sys)


def disks_of(dev: DevNo, sys: Path = SYS) -> tuple[Disk, ...]:
    """Return the whole disks under a device number, by name. Empty if no block device has that number."""
    found: dict[str, Disk] = {}
    pending = [(dev, 0)]
    while pending:
        at, depth = pending.pop()
        if depth > DEEPEST or not exists(at, sys):
            continue
        folder = _whole(sysfs(at, sys))
        below = _below(folder)
        if below is None:
            found[folder.name] = _disk(folder)
        else:
            pending += [(one, depth + 1) for one in below]
    return tuple(found[name] for name in sorted(found))


def pulled_below(dev: DevNo, sys: Path = SYS) -> tuple[str, ...]:
    """Return the names of devices that a mapping holds and the kernel no longer has: disks that were pulled out.

    Whoever is plugged in there next is another device, if it is the same disk. Raises NotFound.
    """
    return tuple(sorted(link.name for link in (sysfs(dev, sys) / "slaves").iterdir() if not link.exists()))


def _below(folder: Path) -> list[DevNo] | None:
    """Return what a whole device stands on; None if it is a disk itself."""
    slaves = folder / "slaves"
    if slaves.is_dir() and (entries := list(slaves.iterdir())):
        return [device_number(entry) for entry in entries]
    if (folder / "loop").is_dir():
        try:
            fd = os.open(DEV / folder.name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return []
        try:
            return [loop_status(fd)[0].dev]
        except OSError:  # freed meanwhile
            return []
        finally:
            os.close(fd)
    # A mapping without a table, or a loop without a file, carries nothing; everything else is a disk.
    return [] if (folder / "dm").is_dir() or folder.name.startswith("loop") else None


def device_number(folder: Path) -> DevNo:
    """Return the number that a device's folder in sysfs tells. Raises OSError."""
    major, minor = (folder / "dev").read_text().split(":")
    return DevNo(int(major), int(minor))


def _whole(folder: Path) -> Path:
    """Return the folder of the whole device: a partition's stands inside it and has no queue."""
    return folder.parent if (folder / "partition").exists() else folder


def _disk(folder: Path) -> Disk:
    return Disk(
        dev=device_number(folder),
        name=folder.name,
        serial=_text(folder / "serial", folder / "device/serial", folder / "wwid", folder / "device/wwid"),
        model=_text(folder / "device/model"),
        size_bytes=_number(folder / "size") * SECTOR,
        rotational=_number(folder / "queue/rotational") != 0,
    )


def _text(*candidates: Path) -> str:
    for candidate in candidates:
        try:
            text = candidate.read_text(errors="replace").strip()
        except OSError:
            continue
        if text:
            return text
    return ""


def _of_device(dev: DevNo, name: str, sys: Path) -> int:
    """Return a number that a device's own folder has. Through the link there: to resolve it first costs ten calls."""
    try:
        return _number(f"{sys}/dev/block/{dev}/{name}")
    except Unready as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise NotFound(f"the kernel has no block device {dev}") from error
        raise


def _number(path: Path | str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            return int(os.read(fd, 64))
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        raise Unready(f"{path} can't be read: {error}") from error
