"""Passports as extended attributes of image files."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import msgspec

from csi_driver.backends.base import Passport
from csi_driver.errors import Invalid

if TYPE_CHECKING:
    from csi_driver.host.syscalls import Kernel

XATTR = "user.sluice.passport"
TOO_LARGE = frozenset({errno.ENOSPC, errno.E2BIG, errno.ERANGE})
"""What file systems say of an attribute that they can't keep: ext4, which has one block for all, that it is full."""
ROOM = 1 << 20
"""Free bytes with which a disk isn't full."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Passport).decode


def read(fd: int) -> Passport | None:
    """Return the passport of an image, None when it has none that can be read."""
    try:
        return _decode(os.getxattr(fd, XATTR))
    except (OSError, msgspec.MsgspecError):
        return None


def write(kernel: Kernel, fd: int, passport: Passport) -> None:
    """Set the passport of an image; it is durable after the next fsync. Raises Invalid when it is too large to keep."""
    data = _encode(passport)
    try:
        kernel.setxattr(fd, XATTR, data)
    except OSError as error:
        if error.errno not in TOO_LARGE or _is_full(fd):
            raise
        raise Invalid(
            f"parameters: they are kept beside the image, and its file system doesn't take the {len(data)} bytes; "
            "shorten them, or give the pool a size"
        ) from error


def _is_full(fd: int) -> bool:
    status = os.fstatvfs(fd)
    return status.f_bavail * status.f_frsize < ROOM
