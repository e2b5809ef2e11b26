"""The UUID of a mounted file system, asked of the kernel: the superblock on the disk may be another's by now."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from csi_driver.host.syscalls import XFS_IOC_FSGEOMETRY_V1, query

if TYPE_CHECKING:
    from pathlib import Path

FS_IOC_GETFSUUID = 0x80111500
"""linux/fs.h: _IOR(0x15, 0, struct fsuuid2), a length byte and 16 bytes. Since Linux 6.9."""
XFS_GEOMETRY_BYTES, XFS_UUID_AT = 112, 64
"""xfs_fs.h, struct xfs_fsop_geom_v1."""


def fs_uuid(folder: Path) -> str:
    """Return the UUID of the file system that a folder is on, "" where the kernel doesn't tell."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            return str(uuid.UUID(bytes=bytes(query(fd, FS_IOC_GETFSUUID, bytearray(17))[1:])))
        except OSError:
            # An older kernel. XFS has told its own for twenty years; others stay unknown.
            geometry = query(fd, XFS_IOC_FSGEOMETRY_V1, bytearray(XFS_GEOMETRY_BYTES))
            return str(uuid.UUID(bytes=bytes(geometry[XFS_UUID_AT : XFS_UUID_AT + 16])))
    except OSError:
        return ""
    finally:
        os.close(fd)
