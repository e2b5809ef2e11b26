"""ext4 and xfs: what is there, make, check, grow, measure.

Programs run only where the knowledge is theirs (mkfs, fsck, offline resize). Growing while mounted is one ioctl.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_driver.errors import Invalid, NotFound, OutOfRange, ToolFailed, Unready, Unsupported
from csi_driver.host import block, geometry, signatures
from csi_driver.host.syscalls import EXT4_IOC_RESIZE_FS, XFS_IOC_FSGROWFSDATA

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from csi_driver.deadline import Deadline
    from csi_driver.host.run import Runner
    from csi_driver.host.syscalls import Kernel

EXT4, XFS = "ext4", "xfs"
KINDS = (EXT4, XFS)
BLOCK = 4096
# mkfs.xfs of xfsprogs 6 refuses less; mkfs.ext4 makes a journal from 8 MiB.
SMALLEST = {EXT4: 8 << 20, XFS: 300 << 20}
# XFS drops a last allocation group of fewer blocks (XFS_MIN_AG_BLOCKS), so such a rest never gets used.
XFS_MIN_AG_BLOCKS = 64
# e2fsck(8): 1 is "errors corrected", 2 "corrected, reboot" which concerns a mounted root file system.
FSCK_FINE = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Usage:
    """Hold what statvfs says, in bytes and inodes. `available` is what is left for users that aren't root."""

    total_bytes: int
    used_bytes: int
    available_bytes: int
    total_inodes: int
    used_inodes: int
    available_inodes: int


class Filesystems:
    """Make, check and grow file systems."""

    def __init__(self, runner: Runner, kernel: Kernel) -> None:
        """Take the two doors."""
        self._runner = runner
        self._kernel = kernel

    def kind(self, path: Path, *, brief: bool = False) -> str | None:
        """Return what is on a device or in an image: "ext4", "xfs", another name, "unknown data", or None for zeros.

        Looks at a mebibyte at each end, with `brief` at as much as most superblocks are in.
        Reads past the page cache, which may be older than what a mapping above the device wrote. Raises Unready on any
        read error: what can't be read is not touched.
        """
        try:
            first, last, size = _ends(path, signatures.BRIEF if brief else signatures.AREA)
        except OSError as error:
            raise Unready(f"read error on {path}: {error.strerror}, not touching it") from error
        return signatures.kind_of(first, last, size)

    def never_written(self, image: Path) -> bool:
        """Return whether an image file holds no data at all, by the file system's own word (SEEK_DATA).

        Raises Invalid if it isn't a regular file, Unready on a read error.
        """
        try:
            fd = os.open(image, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise Unready(f"can't open {image}: {error.strerror}, not touching it") from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Invalid(f"{image} is not a file: only its pool can say whether a device was ever written")
            os.lseek(fd, 0, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            raise Unready(f"read error on {image}: {error.strerror}, not touching it") from error
        finally:
            os.close(fd)
        return False

    def make(
        self,
        path: Path,
        fs_type: str,
        *,
        options: Sequence[str] = (),
        sector_size: int,
        blank: bool = False,
        deadline: Deadline,
        prefix: Sequence[str] = (),
    ) -> None:
        """Make a file system on a device or an image, whatever is there: the caller has looked.

        `blank` says that nothing was ever written there: ext4 then writes no zeros, neither now nor later from a kernel
        thread, and a sparse image of 10 GiB takes 4 MiB instead of 68 (after the thread, 228). Wrong, it corrupts.
        `options` go to mkfs after ours, so they win. Raises Invalid, OutOfRange, ToolFailed, Unready, Unknown.
        """
        size = _size_of(path)
        if size < SMALLEST[_known(fs_type)]:
            raise OutOfRange(f"{path} has {size} bytes; {fs_type} needs {SMALLEST[fs_type]}")
        if fs_type == EXT4:
            # Blocks of 4 KiB, since mke2fs takes 1 KiB for small ones, which a sector of 4 KiB can't mount. No discard:
            # nothing was ever written, and it would walk the whole device.
            extended = "nodiscard,assume_storage_prezeroed=1" if blank else "nodiscard"
            argv = ["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-E", extended]
        else:
            argv = ["mkfs.xfs", "-q", "-f", "-K", "-s", f"size={sector_size}"]
        self._runner.run([*argv, *options, str(path)], deadline=deadline, prefix=prefix)

    def check(self, path: Path, fs_type: str, *, deadline: Deadline, prefix: Sequence[str] = ()) -> bool:
        """Make an unmounted file system fit to mount. Return whether a program had to look at it.

        Nothing runs for a clean ext4, nor for one that only has its log to replay, nor for xfs: their mount does that.
        Raises Unready if it needs repair by hand, ToolFailed, Unknown.
        """
        if _known(fs_type) == XFS or geometry.ext4_needs_no_check(geometry.ext4_superblock(path)):
            return False
        output = self._runner.run(["e2fsck", "-p", str(path)], deadline=deadline, prefix=prefix, accept=range(64))
        if output.returncode not in FSCK_FINE:
            said = " ".join(output.stdout.split())[-300:]
            raise Unready(f"{path} needs repair by hand (e2fsck status {output.returncode}): {said}")
        return True

    def diagnose(self, path: Path, fs_type: str, *, deadline: Deadline, prefix: Sequence[str] = ()) -> str:
        """Return what the checker says of a file system that did not mount, changing nothing."""
        argv = {EXT4: ["e2fsck", "-n"], XFS: ["xfs_repair", "-n"]}[_known(fs_type)]
        output = self._runner.run([*argv, str(path)], deadline=deadline, prefix=prefix, accept=range(64))
        said = " ".join((output.stdout + " " + output.stderr).split())[-300:]
        return f"{argv[0]} -n ended with status {output.returncode}: {said}"

    def mount_options(self, fs_type: str, *, clone: bool) -> tuple[str, ...]:
        """Return the options that every mount of ours needs. An xfs clone has its parent's UUID, which xfs refuses."""
        return ("nouuid",) if _known(fs_type) == XFS and clone else ()

    def size(self, mounted: Path, device: block.Device, fs_type: str) -> int:
        """Return the size in bytes that a mounted file system takes itself to have. Raises Unready."""
        if _known(fs_type) == XFS:
            block_size, blocks, _ = geometry.xfs_geometry(mounted)
            return block_size * blocks
        return geometry.ext4_size(geometry.ext4_superblock(device.path))

    def grow(
        self,
        device: block.Device,
        fs_type: str,
        *,
        mounted: Path | None,
        deadline: Deadline,
        prefix: Sequence[str] = (),
    ) -> bool:
        """Let a file system fill its device. Return whether it had to grow.

        Mounted: one ioctl on its mount point. Not mounted: ext4 by resize2fs; xfs can't, and raises Unready.
        """
        size = block.size_bytes(device.dev)
        if mounted is None:
            return self._grow_offline(device, fs_type, size, deadline, prefix)
        return (
            self._grow_ext4(device, mounted, size) if _known(fs_type) == EXT4 else self._grow_xfs(device, mounted, size)
        )

    def usage(self, path: Path) -> Usage:
        """Return how full the file system at a path is. Raises NotFound, Unready."""
        try:
            told = os.statvfs(path)
        except FileNotFoundError as error:
            raise NotFound(f"no such path: {path}") from error
        except OSError as error:
            raise Unready(f"can't ask how full {path} is: {error.strerror}") from error
        return Usage(
            total_bytes=told.f_blocks * told.f_frsize,
            used_bytes=(told.f_blocks - told.f_bfree) * told.f_frsize,
            available_bytes=told.f_bavail * told.f_frsize,
            total_inodes=told.f_files,
            used_inodes=told.f_files - told.f_ffree,
            available_inodes=told.f_favail,
        )

    def _grow_offline(
        self, device: block.Device, fs_type: str, size: int, deadline: Deadline, prefix: Sequence[str]
    ) -> bool:
        if _known(fs_type) == XFS:
            raise Unready(f"{device.path} has xfs, which grows only while it is mounted: it will at the next stage")
        before = geometry.ext4_size(geometry.ext4_superblock(device.path))
        if before + BLOCK > size:
            return False
        path = str(device.path)
        output = self._runner.run(["e2fsck", "-f", "-p", path], deadline=deadline, prefix=prefix, accept=range(64))
        if output.returncode not in FSCK_FINE:
            raise ToolFailed("e2fsck", output.returncode, output.stdout)
        self._runner.run(["resize2fs", path], deadline=deadline, prefix=prefix)
        return geometry.ext4_size(geometry.ext4_superblock(device.path)) != before

    def _grow_ext4(self, device: block.Device, mounted: Path, size: int) -> bool:
        before = geometry.ext4_size(geometry.ext4_superblock(device.path))
        if before + BLOCK > size:
            return False
        block_size = geometry.ext4_block_size(geometry.ext4_superblock(device.path))
        self._resize(device, mounted, EXT4_IOC_RESIZE_FS, struct.pack("=Q", size // block_size))
        return geometry.ext4_size(geometry.ext4_superblock(device.path)) != before

    def _grow_xfs(self, device: block.Device, mounted: Path, size: int) -> bool:
        block_size, blocks, most_inodes = geometry.xfs_geometry(mounted)
        if size // block_size < blocks + XFS_MIN_AG_BLOCKS:
            return False
        # struct xfs_growfs_data: newblocks u64, imaxpct u32, padded to 16. This is all that xfs_growfs(8) does.
        self._resize(device, mounted, XFS_IOC_FSGROWFSDATA, struct.pack("=QI4x", size // block_size, most_inodes))
        return geometry.xfs_geometry(mounted)[1] != blocks

    def _resize(self, device: block.Device, mounted: Path, request: int, argument: bytes) -> None:
        try:
            fd = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # If nothing is mounted there the ioctl would reach the file system below, such as the machine's root.
                if block.dev_number(os.fstat(fd).st_dev) != device.dev:
                    raise Unready(f"can't grow the file system at {mounted}: {device.path} is not mounted there")
                self._kernel.ioctl(fd, request, bytearray(argument), path=mounted)
            finally:
                os.close(fd)
        except OSError as error:
            # ext4 asks for more than root: a container has to be privileged or be given this capability.
            why = "CAP_SYS_RESOURCE is missing" if error.errno == errno.EPERM else "the kernel log has the reason"
            raise Unready(f"can't grow the file system at {mounted}: {error}; {why}") from error


def ext4_errors(device: block.Device) -> int:
    """Return how often a mounted ext4 met an error since it was last checked; 0 for all other file systems.

    Since Linux 6.12 an ext4 that stopped to write doesn't show as read-only any more.
    """
    try:
        return int((block.SYS / "fs/ext4" / device.path.name / "errors_count").read_text())
    except FileNotFoundError:
        return 0


def _known(fs_type: str) -> str:
    if fs_type not in KINDS:
        raise Unsupported(f"file system {fs_type!r}: this driver makes {' and '.join(KINDS)}")
    return fs_type


def _size_of(path: Path) -> int:
    try:
        status = path.stat()
        return block.size_bytes(block.dev_number(status.st_rdev)) if stat.S_ISBLK(status.st_mode) else status.st_size
    except OSError as error:
        raise NotFound(f"no image or device at {path}: {error.strerror}") from error


def _ends(path: Path, area: int) -> tuple[bytes, bytes, int]:
    """Return the first and last bytes, `area` of each, and the size. O_DIRECT where the file system has it."""
    size = _size_of(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:  # tmpfs of older kernels
            raise
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        # Whole blocks, as O_DIRECT wants; an image of ours always ends at one.
        last = max(0, size - area) // BLOCK * BLOCK
        return _read(fd, 0, min(size, area)), _read(fd, last, size - last), size
    finally:
        os.close(fd)


def _read(fd: int, offset: int, length: int) -> bytes:
    """Read exactly so many bytes; fewer are an error, since the device said that it has them."""
    with mmap.mmap(-1, max(BLOCK, -(-length // BLOCK) * BLOCK)) as buffer:  # aligned to a page, as O_DIRECT wants
        got = os.preadv(fd, [buffer], offset)
        if got < length:
            raise OSError(errno.EIO, f"{got} bytes read at {offset}, not {length}")
        return buffer[:length]
