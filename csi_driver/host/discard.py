"""Give blocks back, a range at a time: what a file system no longer uses, and what a device that is to go has.

A discard is work for whoever is below: a thin pool takes mappings out of its metadata, a loop device punches holes, a
disk erases. All of it at once is a second or a minute in which the neighbours wait. No limit of a cgroup helps: io.max
counts a discard of a GiB as 512 bytes (block/blk-throttle.c). So whoever calls this goes in steps, with pauses.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from typing import TYPE_CHECKING

from csi_driver.errors import Busy, Foreign, Unsupported
from csi_driver.host import mountinfo
from csi_driver.host.refusals import as_unready
from csi_driver.host.syscalls import BLKDISCARD, FITRIM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_driver.host.syscalls import Kernel
    from qos.limits import DevNo

# linux/fs.h: struct fstrim_range is start, len, minlen; BLKDISCARD takes start, len. All in bytes.
TRIM_RANGE, DISCARD_RANGE = struct.Struct("=QQQ"), struct.Struct("=QQ")
NOT_HERE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EROFS, errno.EPERM)
"""What says that this device, this file system or this mount doesn't discard, or is read-only."""

STEP_SECONDS = 0.1
"""How long a step may take: others wait for that long."""


def trim(kernel: Kernel, place: Path, device: DevNo, start: int, length: int) -> int:
    """Discard what the file system of a device, mounted at a place, has free in a range; return how many bytes it was.

    Beyond the end of the file system there is nothing. Raises Unsupported where it can't be done, Foreign when
    something else is mounted there by now.
    """
    with as_unready(f"trim of {place}"):
        fd = kernel.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            shown = mountinfo.of_descriptor(fd)  # not by st_dev: a btrfs has a number of its own
            if shown is None or shown.dev != device:
                raise Foreign(f"{place} doesn't show {device} any more; nothing is trimmed there")
            buffer = bytearray(TRIM_RANGE.pack(start, length, 0))
            kernel.ioctl(fd, FITRIM, buffer, path=place)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return 0
            if error.errno in NOT_HERE:
                raise Unsupported(f"{place} can't be trimmed: {error.strerror}") from error
            raise
        finally:
            os.close(fd)
    return int(TRIM_RANGE.unpack(buffer)[1])


@contextlib.contextmanager
def held_alone(kernel: Kernel, path: Path) -> Iterator[int]:
    """Open a block device to discard from it, while nobody has it mounted or mapped, and nobody can. Raises Busy.

    Who has it merely open is not seen by this.
    """
    with as_unready(f"discard of {path}"):
        try:
            fd = kernel.open(path, os.O_RDWR | os.O_EXCL | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise Busy(f"{path} is mounted or mapped by somebody: nothing is discarded meanwhile") from error
            raise
    try:
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise Foreign(f"{path} is no block device; nothing is discarded")
        yield fd
    finally:
        os.close(fd)


def discard(kernel: Kernel, fd: int, path: Path, start: int, length: int) -> None:
    """Discard a range of an open block device. Raises Unsupported for one that doesn't discard."""
    with as_unready(f"discard of {path}"):
        try:
            kernel.ioctl(fd, BLKDISCARD, bytearray(DISCARD_RANGE.pack(start, length)), path=path)
        except OSError as error:
            if error.errno in NOT_HERE:
                raise Unsupported(f"{path} doesn't discard: {error.strerror}") from error
            raise


def next_step(step: int, seconds: float, smallest: int, largest: int) -> int:
    """Return how large the next step is, after one that took so long: half as large, the same, or twice."""
    if seconds > STEP_SECONDS:
        return max(smallest, step // 2)
    return min(largest, step * 2) if seconds < STEP_SECONDS / 4 else step
