"""File systems: what is there, make, check, grow, measure. What each of them needs is in a file of its own.

Programs run only where the knowledge is theirs (mkfs, fsck, offline resize). Growing while mounted is one ioctl.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from csi_driver.errors import Invalid, NotFound, OutOfRange, Unready, Unsupported
from csi_driver.host import block, signatures
from csi_driver.host.btrfs import Btrfs
from csi_driver.host.ext4 import Ext4
from csi_driver.host.openers import openers
from csi_driver.host.xfs import Xfs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from csi_driver.deadline import Deadline
    from csi_driver.host.run import Runner
    from csi_driver.host.syscalls import Kernel

EXT4, XFS, BTRFS = "ext4", "xfs", "btrfs"
SMALLEST = {EXT4: Ext4.smallest, XFS: Xfs.smallest, BTRFS: Btrfs.smallest}
BLOCK = 4096


class Form(Protocol):
    """What one kind of file system has to know of itself. Verbs raise as those of Filesystems."""

    @property
    def mount_options(self) -> tuple[str, ...]:
        """Return the options that every mount of ours has, before those that are asked for."""

    @property
    def checker(self) -> tuple[str, ...]:
        """Return the words of a checker that changes nothing."""

    def mkfs(self, *, sector_size: int, blank: bool) -> list[str]:
        """Return the words that make one, but for the path."""

    def check(self, path: Path, *, deadline: Deadline, prefix: Sequence[str]) -> bool:
        """Make an unmounted one fit to mount. Return whether a program had to look at it."""

    def size(self, mounted: Path, device: block.Device) -> int:
        """Return the bytes that a mounted one takes itself to have."""

    def grow(self, device: block.Device, mounted: Path, size: int) -> bool:
        """Let a mounted one fill its device of `size` bytes. Return whether it had to grow."""

    def grow_unmounted(self, device: block.Device, size: int, deadline: Deadline, prefix: Sequence[str]) -> bool:
        """Let one that isn't mounted fill its device of `size` bytes. Return whether it had to grow."""


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
        self._forms: Mapping[str, Form] = {EXT4: Ext4(runner, kernel), XFS: Xfs(kernel), BTRFS: Btrfs(kernel)}

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
        form = self._form(fs_type)
        size = _size_of(path)
        if size < SMALLEST[fs_type]:
            raise OutOfRange(f"{path} has {size} bytes; {fs_type} needs {SMALLEST[fs_type]}")
        argv = [*form.mkfs(sector_size=sector_size, blank=blank), *options, str(path)]
        self._runner.run(argv, deadline=deadline, prefix=prefix)

    def check_alone(self, path: Path) -> None:
        """Raise Unready while a process has a device open, as an mkfs that outlived its server: two would mix.

        mke2fs and mkfs.xfs claim the device and refuse each other; mkfs.btrfs waits, or in older versions doesn't.
        """
        if found := openers(str(path).__eq__):
            raise Unready(f"{path} is open in process {', '.join(found)}: it is formatted when that has ended")

    def check(self, path: Path, fs_type: str, *, deadline: Deadline, prefix: Sequence[str] = ()) -> bool:
        """Make an unmounted file system fit to mount. Return whether a program had to look at it.

        Nothing runs for a clean ext4, nor for one that only has its log to replay, nor for xfs and btrfs: their mount
        does that. Raises Unready if it needs repair by hand, ToolFailed, Unknown.
        """
        return self._form(fs_type).check(path, deadline=deadline, prefix=prefix)

    def diagnose(self, path: Path, fs_type: str, *, deadline: Deadline, prefix: Sequence[str] = ()) -> str:
        """Return what the checker says of a file system that did not mount, changing nothing."""
        argv = self._form(fs_type).checker
        output = self._runner.run([*argv, str(path)], deadline=deadline, prefix=prefix, accept=range(64))
        said = " ".join((output.stdout + " " + output.stderr).split())[-300:]
        return f"{' '.join(argv)} ended with status {output.returncode}: {said}"

    def mount_options(self, fs_type: str) -> tuple[str, ...]:
        """Return the options that every mount of ours has, before those that are asked for."""
        return self._form(fs_type).mount_options

    def size(self, mounted: Path, device: block.Device, fs_type: str) -> int:
        """Return the size in bytes that a mounted file system takes itself to have. Raises Unready."""
        return self._form(fs_type).size(mounted, device)

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

        Mounted: one ioctl on its mount point. Not mounted: ext4 by resize2fs; the others can't, and raise Unready.
        """
        form, size = self._form(fs_type), block.size_bytes(device.dev)
        if mounted is None:
            return form.grow_unmounted(device, size, deadline, prefix)
        return form.grow(device, mounted, size)

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

    def _form(self, fs_type: str) -> Form:
        try:
            return self._forms[fs_type]
        except KeyError:
            raise Unsupported(f"file system {fs_type!r}: this driver makes {', '.join(self._forms)}") from None


def ext4_errors(device: block.Device) -> int:
    """Return how often a mounted ext4 met an error since it was last checked; 0 for all other file systems.

    Since Linux 6.12 an ext4 that stopped to write doesn't show as read-only any more.
    """
    try:
        return int((block.SYS / "fs/ext4" / device.path.name / "errors_count").read_text())
    except FileNotFoundError:
        return 0


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
