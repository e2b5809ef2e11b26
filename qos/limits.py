"""What the kernel limits: a device number, and the four ceilings of a line in io.max."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final, NamedTuple, Self

# The kernel's own parser (tg_set_limit in block/blk-throttle.c) refuses 0 with ERANGE and 1 with EINVAL.
LEAST: Final = 2
# U64_MAX and UINT_MAX are the kernel's "max": a larger IOPS value is silently cut to "max", so it must not be written.
MOST_BPS: Final = 2**64 - 2
MOST_IOPS: Final = 2**32 - 2

_DEVNO: Final = re.compile(r"([0-9]{1,4}):([0-9]{1,7})")
# Kernel-internal dev_t (include/linux/kdev_t.h): 12 bits of major, 20 of minor.
_MAJORS: Final = 1 << 12
_MINORS: Final = 1 << 20


class DevNo(NamedTuple):
    """Name a block device by its number, the only name that io.max knows."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}:{self.minor}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the number written as "MAJ:MIN". Raises ValueError, naming the text, for anything else."""
        match = _DEVNO.fullmatch(text)
        if match is None or int(match[1]) >= _MAJORS or int(match[2]) >= _MINORS:
            raise ValueError(f"{text!r} is not a device number: write MAJ:MIN, such as 253:0")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Limits:
    """Hold the ceilings of one device: bytes per second and I/Os per second, reads and writes apart.

    None is no ceiling. The names and their order are those of io.max (Documentation/admin-guide/cgroup-v2.rst).
    Raises ValueError for a value that the kernel refuses or would change.
    """

    rbps: int | None = None
    wbps: int | None = None
    riops: int | None = None
    wiops: int | None = None

    def __post_init__(self) -> None:
        """Refuse what the kernel would refuse, before a half of the work is done."""
        for key, value in self.items():
            most = MOST_BPS if key.endswith("bps") else MOST_IOPS
            if value is not None and not LEAST <= value <= most:
                raise ValueError(f"{key}={value} is not a limit: the kernel takes {LEAST} to {most}, or none")

    def items(self) -> tuple[tuple[str, int | None], ...]:
        """Return the four keys of io.max with their values, in the kernel's order."""
        return tuple((field.name, getattr(self, field.name)) for field in fields(self))

    def __str__(self) -> str:
        """Return the text of a line in io.max less its device: "rbps=max wbps=1048576 riops=max wiops=max"."""
        return " ".join(f"{key}={'max' if value is None else value}" for key, value in self.items())


UNLIMITED: Final = Limits()
