"""Give blocks back, a step at a time: what a file system no longer uses, and all of a device that is to go.

A discard is work for whoever is below: a thin pool takes mappings out of its metadata, a loop device punches holes, a
disk erases. All of it at once is a second or a minute in which the neighbours wait. No limit of a cgroup helps: io.max
counts a discard of a GiB as 512 bytes (block/blk-throttle.c). So it is done in steps, with a pause after each, as long
as so many bytes a second allow.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from typing import TYPE_CHECKING

from csi_driver.errors import Foreign, Unsupported
from csi_driver.host import mountinfo
from csi_driver.host.refusals import as_unready
from csi_driver.host.syscalls import BLKDISCARD, FITRIM

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.deadline import Deadline
    from csi_driver.host.syscalls import Kernel
    from qos.limits import DevNo

# linux/fs.h: struct fstrim_range is start, len, minlen; BLKDISCARD takes start, len. All in bytes.
TRIM_RANGE, DISCARD_RANGE = struct.Struct("=QQQ"), struct.Struct("=QQ")
NOT_HERE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EROFS)
"""What says that this device, this file system or this mount doesn't discard."""


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


def discard_in_steps(
    kernel: Kernel, path: Path, size: int, *, step: int, bytes_per_second: int, deadline: Deadline, start: int = 0
) -> int:
    """Discard a block device up to `size` bytes, and return where that got to when the deadline passed first.

    Who continues gives that as `start`. What lies before it is surely discarded. Raises Unsupported for a device that
    doesn't discard, Foreign for a path that is no block device.
    """
    with as_unready(f"discard of {path}"):
        fd = kernel.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            if not stat.S_ISBLK(os.fstat(fd).st_mode):
                raise Foreign(f"{path} is no block device; nothing is discarded")
            while start < size and not deadline.passed():
                length = min(step, size - start)
                kernel.ioctl(fd, BLKDISCARD, bytearray(DISCARD_RANGE.pack(start, length)), path=path)
                start += length
                if start < size:
                    time.sleep(min(length / bytes_per_second, deadline.left()))
        except OSError as error:
            if error.errno in NOT_HERE:
                raise Unsupported(f"{path} doesn't discard: {error.strerror}") from error
            raise
        finally:
            os.close(fd)
    return start
