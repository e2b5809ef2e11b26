"""What statx(2) says of a path and os.stat doesn't: which mount shows it, and whether it is the root of that mount.

Layout of struct statx, 256 bytes (linux/stat.h): stx_mask u32 at 0, stx_attributes u64 at 8, stx_mnt_id u64 at 0x90.
Both facts are known since Linux 5.8, which LOOP_CONFIGURE takes too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING

from csi_driver.errors import Unready
from csi_driver.host.syscalls import AT_FDCWD, AT_SYMLINK_NOFOLLOW

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 256
# Nothing is synchronized: a mount whose server is away is not asked.
AT_STATX_DONT_SYNC = 0x4000
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
STATX_MNT_ID, STATX_ATTR_MOUNT_ROOT = 0x1000, 0x2000

_statx = ctypes.CDLL(None, use_errno=True).statx
_statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)


def root_of(path: Path) -> int | None:
    """Return the id of the mount whose root a path is, None if it is none or isn't there. Follows no link at its end.

    Raises OSError, such as EIO from an XFS that has stopped; Unready from a kernel that doesn't know.
    """
    found = ctypes.create_string_buffer(SIZE)
    if _statx(AT_FDCWD, os.fsencode(path), AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, STATX_MNT_ID, found):
        if (error := ctypes.get_errno()) in NOT_THERE:
            return None
        raise OSError(error, os.strerror(error), str(path))
    mask, attributes = struct.unpack_from("=I4xQ", found)
    if not mask & STATX_MNT_ID:
        raise Unready("this kernel doesn't say which mount a path is on: run Linux 5.8 or newer")
    number: int = struct.unpack_from("=Q", found, 0x90)[0]
    return number if attributes & STATX_ATTR_MOUNT_ROOT else None
