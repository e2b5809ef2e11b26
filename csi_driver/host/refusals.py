"""What we say when the kernel refuses."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from csi_driver.errors import NoSpace, Unready

if TYPE_CHECKING:
    from collections.abc import Iterator


READ_ONLY = "its file system is read-only: the kernel log may say why; check it and mount it writable"


@contextlib.contextmanager
def as_unready(what: str) -> Iterator[None]:
    """Turn the kernel's refusals into ours: a full pool is NoSpace, everything else may pass."""
    try:
        yield
    except OSError as error:
        raise refused(what, error) from error


def refused(what: str, error: OSError) -> NoSpace | Unready:
    """Return what to say of one refusal, and what to do about it where the kernel's word alone doesn't say."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{what}: the pool's disk is full; free space or make it larger")
    if error.errno == errno.EROFS:
        return Unready(f"{what}: {READ_ONLY}")
    return Unready(f"{what}: {error.strerror}")
