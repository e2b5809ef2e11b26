"""Copy a file by reference: no bytes move, but each extent takes 10 to 40 us, and its writers wait meanwhile.

A database's random 4 KiB writes leave an image with an extent each: a million of them took 10 to 38 s. FICLONE can't be
interrupted, and XFS holds back writes to the source until it is done, thawed or not. So where somebody waits, pieces
are copied one after the other while there is time (decision 0003).
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline
from csi_driver.errors import InUse
from csi_driver.host.syscalls import FICLONE, FICLONERANGE, FS_IOC_FSGETXATTR

if TYPE_CHECKING:
    from csi_driver.host.syscalls import Kernel

PIECE = 64 << 20
"""Bytes: at most 16,384 extents, which take some 0.3 s."""
FEW = 50_000
"""So many extents take 2 s on a slow machine. If they are late it is not for their number."""
REFUSED_SECONDS = 600.0
"""How long what was late once is not tried again: a machine that stood still may have been the reason after all."""
# linux/fs.h: struct file_clone_range and the first words of struct fsxattr, of 28 bytes: flags, extent size, extents.
CLONE_RANGE, FSXATTR = struct.Struct("=qQQQ"), struct.Struct("=III 16x")


class Reflinks:
    """Copy images, and remember those that could not be copied in time."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._late: dict[str, tuple[int, Deadline]] = {}

    def clone(self, source: int, target: int, name: str, by: Deadline | None) -> None:
        """Let an open file have the contents of another, whose `name` is for errors. Raises OSError.

        With `by`, which is when its writers should go on, raises InUse if that is too soon for so many extents; for ten
        minutes at once, unless they have become fewer.
        """
        size = os.fstat(source).st_size
        if by is None or size <= PIECE:
            self._kernel.ioctl(target, FICLONE, source, path=name)
            return
        extents = extents_of(source)
        most, until = self._late.get(name, (0, by))
        if 0 < most <= extents and not until.passed():
            raise _too_many(name, extents)
        for offset in range(0, size, PIECE):
            if by.passed() and not 0 < extents < FEW:
                self._late[name] = extents, Deadline(REFUSED_SECONDS)
                raise _too_many(name, extents)
            piece = CLONE_RANGE.pack(source, offset, min(PIECE, size - offset), offset)
            self._kernel.ioctl(target, FICLONERANGE, bytearray(piece), path=name)
        self._late.pop(name, None)


def extents_of(fd: int) -> int:
    """Return how many extents a file has, by the inode's own count; 0 where the file system keeps none (btrfs)."""
    buffer = bytearray(FSXATTR.size)
    try:
        fcntl.ioctl(fd, FS_IOC_FSGETXATTR, buffer)
    except OSError:
        return 0
    return int(FSXATTR.unpack(buffer)[2])


def _too_many(name: str, extents: int) -> InUse:
    return InUse(
        f"{name} can't be copied while it is in use: its image has {extents} extents, and its writers would wait too "
        "long until all of them are shared; unpublish and unstage the volume, then ask again"
    )
