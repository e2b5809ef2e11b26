"""Make a file longer: by a hole, or by blocks of its own."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csi_driver.host.syscalls import Kernel


def lengthen(kernel: Kernel, fd: int, size: int, *, allocate: bool, path: object = "") -> None:
    """Give a file `size` bytes, of which the new ones read as zeros. Raises OSError, ENOSPC before anything is taken.

    To allocate until nothing is left, and only then to fail, would have everybody else on the disk fail meanwhile.
    """
    if not allocate:
        kernel.ftruncate(fd, size, path=path)
        return
    room, status = os.fstatvfs(fd), os.fstat(fd)
    if size - status.st_size > room.f_bavail * room.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    kernel.fallocate(fd, status.st_size, size - status.st_size, path=path)
