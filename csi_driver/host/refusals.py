"""What we say when the kernel refuses."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from csi_driver.errors import NoSpace, Unready

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def as_unready(what: str) -> Iterator[None]:
    """Turn the kernel's refusals into ours: a full pool is NoSpace, everything else may pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"{what}: the pool's disk is full; free space or make it larger") from error
        raise Unready(f"{what}: {error.strerror}") from error
