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

_PLAIN = Passport(id="", kind="", name="")
_NAMES = tuple(Passport.__dataclass_fields__)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Passport).decode


def read(fd: int) -> Passport | None:
    """Return the passport of an image, None when it has none that can be read."""
    try:
        return _decode(os.getxattr(fd, XATTR))
    except (OSError, msgspec.MsgspecError):
        return None


def is_thick(fd: int) -> bool:
    """Return whether an image's passport says that all its bytes are its own."""
    passport = read(fd)
    return passport is not None and passport.thick


def write(kernel: Kernel, fd: int, passport: Passport) -> None:
    """Set the passport of an image; it is durable after the next fsync. Raises Invalid when it is too large to keep."""
    # What it would be without is left out: then the inode itself has room for most passports.
    said = {name: value for name in _NAMES if (value := getattr(passport, name)) != getattr(_PLAIN, name)}
    data = _encode(said)
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
