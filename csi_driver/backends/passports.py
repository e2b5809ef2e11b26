"""Passports as extended attributes of image files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from csi_driver.backends.base import Passport

if TYPE_CHECKING:
    from csi_driver.host.syscalls import Kernel

XATTR = "user.sluice.passport"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Passport).decode


def read(fd: int) -> Passport | None:
    """Return the passport of an image, None when it has none that can be read."""
    try:
        return _decode(os.getxattr(fd, XATTR))
    except (OSError, msgspec.MsgspecError):
        return None


def write(kernel: Kernel, fd: int, passport: Passport) -> None:
    """Set the passport of an image; it is durable after the next fsync."""
    kernel.setxattr(fd, XATTR, _encode(passport))
