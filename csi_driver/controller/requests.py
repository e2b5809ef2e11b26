"""What callers of the controller ask for, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csi_driver.errors import Invalid, OutOfRange
from csi_driver.records import GIB, SIZE_STEP, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_SIZE = GIB
LARGEST_SIZE = 1 << 60
"""Bytes; an image file can't be larger than 8 EiB, and no disk is."""


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Hold a capacity range in bytes; 0 where the caller gave none."""

    required: int = 0
    limit: int = 0

    def choose(self, smallest: int, default: int = DEFAULT_SIZE) -> int:
        """Return the size to make: what is required, else the default, at least `smallest`, a multiple of 4 KiB.

        Raises Invalid for a range that makes no sense and OutOfRange when no size in it serves.
        """
        if self.required < 0 or self.limit < 0 or (self.limit and self.required > self.limit):
            raise Invalid(f"capacity_range: required_bytes {self.required}, limit_bytes {self.limit} is no range")
        limit = min(self.limit or LARGEST_SIZE, LARGEST_SIZE)
        asked = self.required or min(default, limit - limit % SIZE_STEP)
        size = -(-max(asked, smallest) // SIZE_STEP) * SIZE_STEP
        if size > limit:
            raise OutOfRange(f"capacity_range: the smallest size that serves is {size} bytes, the limit is {limit}")
        return size

    def holds(self, size: int) -> bool:
        """Return whether a size lies in the range."""
        return self.required <= size and (not self.limit or size <= self.limit)


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """Hold what CreateVolume asks for.

    `fs_type` is the one that the capabilities name, empty for block or none named; `mount_flags` are those of each.
    """

    name: str
    size: SizeRange = SizeRange()
    parameters: Mapping[str, str] = field(default_factory=dict)
    mutable: Mapping[str, str] = field(default_factory=dict)
    source: Source | None = None
    block: bool = False
    fs_type: str = ""
    mount_flags: tuple[tuple[str, ...], ...] = ()
    nodes: frozenset[str] = frozenset()
    preferred: tuple[str, ...] = ()
