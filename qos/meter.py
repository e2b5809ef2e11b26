"""What volumes do and how long it takes: the kernel's counters -> rates, percentiles, nearness to limits. Pure.

Counters only grow, so whoever looks keeps what it saw before and takes the difference: several may look at once, at
their own pace, and a restart loses nothing.

Latency is counted *below* blk-throttle: of a volume at its ceiling fio sees 100 ms, the histogram half a millisecond.
What a ceiling costs is told by `nearest`, beside the percentiles.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from qos.iofiles import IoStat

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qos.limits import Limits

# From 25 us to 0.57 s in steps of 1.25, so that a percentile is known to 12 %; from there to 9 s in steps of 2.
_FIRST_NS: Final = 25_000
_FINE: Final = 46
_COARSE: Final = 4
_FINE_NS: Final = tuple(round(_FIRST_NS * 1.25**step) for step in range(_FINE))
BOUNDS_NS: Final = (*_FINE_NS, *(_FINE_NS[-1] << step for step in range(1, _COARSE + 1)))
"""What the kernel's histogram is divided by: a bucket holds the I/Os from one bound to below the next, in ns."""

NEAR: Final = 0.98
"""The share of a limit from which on a volume is held back by it."""
BUSY: Final = 0.98
"""The share of a window with an I/O in flight from which on a volume wanted all that it could get."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Hold what a device counted since its histogram was made, reads and writes apart but in `buckets`.

    `reads_ns`, `writes_ns` are the sums of all latencies, `busy_ns` the time in which something was in flight. Discards
    are writes here.
    """

    reads: int = 0
    writes: int = 0
    rbytes: int = 0
    wbytes: int = 0
    reads_ns: int = 0
    writes_ns: int = 0
    busy_ns: int = 0
    buckets: tuple[int, ...] = (0,) * (len(BOUNDS_NS) + 1)

    def since(self, older: Counted) -> Counted:
        """Return what came between two looks; all of it when the counters began anew meanwhile."""
        if self.reads < older.reads or self.writes < older.writes:
            return self
        buckets = tuple(now - then for now, then in zip(self.buckets, older.buckets, strict=True))
        numbers = {
            field.name: getattr(self, field.name) - getattr(older, field.name)
            for field in dataclasses.fields(self)
            if field.name != "buckets"
        }
        return Counted(**numbers, buckets=buckets)


@dataclass(frozen=True, slots=True)
class Rates:
    """Hold what pods did in an interval, per second, in the words of io.max."""

    riops: float = 0.0
    wiops: float = 0.0
    rbps: float = 0.0
    wbps: float = 0.0


class Nearest(NamedTuple):
    """Name a limit by its key in io.max, and say how near a volume is to it: 1.0 for at it."""

    share: float
    key: str

    @property
    def throttled(self) -> bool:
        """Return whether the limit holds the volume back."""
        return self.share >= NEAR


@dataclass(frozen=True, slots=True)
class Window:
    """Hold a second of a volume's life: I/Os per second, and the share of it in which something was in flight."""

    iops: float
    busy: float


def rates(older: IoStat, newer: IoStat, seconds: float) -> Rates:
    """Return the rates between two looks at io.stat; from nothing when its counters began anew. ValueError: no time."""
    if seconds <= 0:
        raise ValueError(f"{seconds} seconds between two looks give no rate")
    if newer.rios < older.rios or newer.wios < older.wios:
        older = IoStat()
    return Rates(
        (newer.rios - older.rios) / seconds,
        (newer.wios - older.wios) / seconds,
        (newer.rbytes - older.rbytes) / seconds,
        (newer.wbytes - older.wbytes) / seconds,
    )


def nearest(now: Rates, limits: Limits) -> Nearest | None:
    """Return the limit that a volume is nearest to, None when it has none."""
    shares = [Nearest(getattr(now, key) / limit, key) for key, limit in limits.items() if limit is not None]
    return max(shares, default=None)


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Return the latency, in seconds, that this share of the I/Os was not above; None when there was no I/O.

    Within a bucket they are taken as evenly spread. The last bucket has no end: it is taken for its beginning, so what
    is said is too little there. ValueError for a share that is none, or another number of buckets.
    """
    if not 0 < share <= 1:
        raise ValueError(f"{share} is not a share of all I/Os: more than 0, at most 1")
    edges = (0, *BOUNDS_NS, BOUNDS_NS[-1])
    below = 0
    wanted = share * sum(buckets)
    for (low, high), count in zip(pairwise(edges), buckets, strict=True):
        if count and below + count >= wanted:
            return (low + (high - low) * max(0.0, wanted - below) / count) / 1e9
        below += count
    return None


def at_most(buckets: Sequence[int], every: int) -> tuple[tuple[float, int], ...]:
    """Return how many I/Os took less than each of some bounds, in seconds: every so many of the fine ones, all others.

    As Prometheus wants it, less the bucket that holds all.
    """
    running = accumulate(buckets)
    return tuple(
        (bound / 1e9, count)
        for place, (bound, count) in enumerate(zip(BOUNDS_NS, running, strict=False), start=1)
        if place >= _FINE or place % every == 0
    )


def attainment(windows: Iterable[Window], floor: float) -> float | None:
    """Return the share of the windows with demand in which a floor of so many I/Os per second was met.

    A window has demand when it reached the floor, or when something was in flight all the time: who asks for less than
    the floor, and gets it, has lost nothing. None when no window had demand. ValueError for a floor that is none.
    """
    if floor <= 0:
        raise ValueError(f"{floor} I/Os per second is no floor")
    met = [window.iops >= floor for window in windows if window.iops >= floor or window.busy >= BUSY]
    return sum(met) / len(met) if met else None
