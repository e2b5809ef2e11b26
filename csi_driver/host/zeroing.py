"""Make a stretch of a block device read as zeros, a step at a time, before anybody may see it.

A device that can write zeros by itself (NVMe's Write Zeroes) takes a moment for each step; for another the kernel
writes them, which no limit of a cgroup holds back, since it is the driver that writes. So a step that took its time is
followed by a pause, as long as so many bytes a second allow.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from typing import TYPE_CHECKING

from csi_driver.errors import Foreign
from csi_driver.host.refusals import as_unready
from csi_driver.host.syscalls import BLKZEROOUT

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.deadline import Deadline
    from csi_driver.host.syscalls import Kernel

RANGE = struct.Struct("=QQ")  # linux/fs.h, BLKZEROOUT: start, length
STEP = 64 << 20
BYTES_PER_SECOND = 200 << 20
AT_ONCE = 0.02
"""Seconds of a step after which somebody must have written: no disk writes 3 GiB a second beside others."""


def zero(kernel: Kernel, path: Path, start: int, end: int, deadline: Deadline) -> int:
    """Zero a block device from `start` to `end`, and return where that got to when the deadline passed first.

    What lies before it is zero and durable. At least one step is made. Raises Foreign for what is no block device.
    """
    with as_unready(f"zeroing of {path}"):
        fd = kernel.open(path, os.O_RDWR)
        try:
            if not stat.S_ISBLK(os.fstat(fd).st_mode):
                raise Foreign(f"{path} is no block device; nothing is zeroed")
            while start < end:
                length, began = min(STEP, end - start), time.monotonic()
                kernel.ioctl(fd, BLKZEROOUT, bytearray(RANGE.pack(start, length)), path=path)
                start += length
                took = time.monotonic() - began
                if deadline.passed():
                    break
                if start < end and took > AT_ONCE:
                    time.sleep(min(max(0.0, length / BYTES_PER_SECOND - took), deadline.left()))
            kernel.fsync(fd, path=path)
        finally:
            os.close(fd)
    return start
