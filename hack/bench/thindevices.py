"""Thin devices made by messages to their pool, as lvm makes them, but without it: a thousand in seconds."""

from __future__ import annotations

import contextlib
import fcntl
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.host.dmtable import request_buffer

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROL = Path("/dev/mapper/control")
DM_TARGET_MSG = 0xC138FD0E
SECTOR = struct.Struct("=Q")
FIRST = 1_000_000
"""Far above the ids that lvm gives to thin devices."""


@dataclass(frozen=True, slots=True)
class ThinDevices:
    """Make and remove devices of which lvm knows nothing: each takes one block of the pool's metadata, and no data."""

    control: int
    pool: str

    @classmethod
    @contextlib.contextmanager
    def of(cls, vg: str, thinpool: str) -> Iterator[ThinDevices]:
        """Give those of an active pool that has volumes."""
        with CONTROL.open("rb") as control:
            yield cls(control.fileno(), f"{vg}-{thinpool}-tpool")

    def create(self, number: int) -> int:
        """Make one and return its id. Raises OSError when there is no block for it."""
        self._tell(f"create_thin {FIRST + number}")
        return FIRST + number

    def delete(self, number: int) -> None:
        """Remove one."""
        self._tell(f"delete {FIRST + number}")

    def _tell(self, words: str) -> None:
        message = SECTOR.pack(0) + words.encode() + b"\0"
        fcntl.ioctl(self.control, DM_TARGET_MSG, request_buffer(self.pool, "", 0, message, cookie=0))
