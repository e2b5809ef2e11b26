"""How full a pool may be before something must not happen in it any more. Pure: figures in, a state out.

Five levels, each with all that the ones before it hold back:

    ok
    warning             somebody is told, while there is time to add a disk
    no-new-volumes      a new volume promises growth: it is empty now and will be written, and it can go elsewhere
    no-new-snapshots    a cut allocates nothing itself, but from then on every overwrite of its volume does: a job that
                        ran in place begins to fill the pool. A snapshot can't go elsewhere, and a larger volume can't
                        either, so both are taken for longer than new volumes
    emergency           what is written now decides: volumes that yield (training's) are written at their least rate, so
                        that those who can't wait (inference's) still find room while somebody frees some

Each level begins at one fill and ends below a lower one: between them it stays what it was, so that a pool at an edge
doesn't change its answer with every file. Data and metadata are judged apart, and the worse of them counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from qos.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


class Level(IntEnum):
    """Name a level. A higher one is worse."""

    OK = 0
    WARNING = 1
    NO_NEW_VOLUMES = 2
    NO_NEW_SNAPSHOTS = 3
    EMERGENCY = 4

    @property
    def label(self) -> str:
        """Return the level as records and metrics write it."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def of(cls, label: str) -> Level:
        """Return the level that a label names, OK for one that isn't known."""
        return next((level for level in cls if level.label == label), cls.OK)


@dataclass(frozen=True, slots=True)
class Band:
    """Say at which fill, as a part of the whole, a level begins, and below which it ends."""

    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Hold the bands of the levels above OK. Raises ValueError unless both edges rise from each to the next."""

    warning: Band
    no_new_volumes: Band
    no_new_snapshots: Band
    emergency: Band

    def __post_init__(self) -> None:
        """Refuse bands between which a pool could leap over a level."""
        begins, ends = [band.begins for _, band in self], [band.ends for _, band in self]
        rising = all(low < high for edges in (begins, ends) for low, high in pairwise(edges))
        if not rising or not all(0 < band.ends < band.begins <= 1 for _, band in self):
            raise ValueError(f"{self}: each band must begin above its end, and both above those of the band before it")

    def __iter__(self) -> Iterator[tuple[Level, Band]]:
        """Go through the levels, the mildest first."""
        yield Level.WARNING, self.warning
        yield Level.NO_NEW_VOLUMES, self.no_new_volumes
        yield Level.NO_NEW_SNAPSHOTS, self.no_new_snapshots
        yield Level.EMERGENCY, self.emergency

    def next(self, level: Level, fill: float) -> Level:
        """Return the level after a look that shows this fill, when the last one left this level."""
        begun = max((each for each, band in self if fill >= band.begins), default=Level.OK)
        kept = max((each for each, band in self if each <= level and fill >= band.ends), default=Level.OK)
        return max(begun, kept)


DATA = Thresholds(
    # A fifth is left: a disk is not bought in an hour. Kubelet and most monitoring begin to warn here too.
    warning=Band(0.80, 0.75),
    # The last tenth is for the volumes that are there: ratio 1.5 means that they may want all of it.
    no_new_volumes=Band(0.90, 0.85),
    no_new_snapshots=Band(0.95, 0.91),
    # 3 % of 1 TiB are 31 GiB: a node that writes 2 GiB/s of checkpoints needs 15 s for them, seven looks; at 64 MiB/s
    # it needs eight minutes. The band is wide, for who is let go too early is back at once.
    emergency=Band(0.97, 0.93),
)
"""Of data. A pool that is full errors its writers at once."""
METADATA = Thresholds(
    # Lower than data's: metadata is small, one snapshot's overwrites can take a tenth of it, and a pool that runs out
    # of it is read-only until it is repaired, while a pool that runs out of data is well as soon as it is larger.
    warning=Band(0.60, 0.55),
    # lvm itself refuses new volumes when a quarter, or 4 MiB, are left: we say it first, and say why.
    no_new_volumes=Band(0.70, 0.65),
    no_new_snapshots=Band(0.80, 0.75),
    emergency=Band(0.90, 0.85),
)
"""Of metadata, where a backend has any: each mapping of a thin pool takes some."""


@dataclass(frozen=True, slots=True)
class Share:
    """Hold how much of something is used, in bytes. A `total` of 0 means that there is no such thing."""

    used: int
    total: int

    @property
    def fill(self) -> float:
        """Return the part that is used."""
        return self.used / self.total if self.total else 0.0

    def __str__(self) -> str:
        return f"{self.fill:.1%} full ({_rounded(self.used)} of {_rounded(self.total)})"


@dataclass(frozen=True, slots=True)
class Guard:
    """Hold the levels of a pool's data and metadata after the last look."""

    data: Level = Level.OK
    metadata: Level = Level.OK

    @property
    def level(self) -> Level:
        """Return the worse of both."""
        return max(self.data, self.metadata)

    def next(self, data: Share, metadata: Share) -> Guard:
        """Return the state after a look at both."""
        return Guard(DATA.next(self.data, data.fill), METADATA.next(self.metadata, metadata.fill))

    def condition(self, data: Share, metadata: Share, remedy: str) -> str:
        """Say in words what is wrong and what to do about it, "" when nothing is. `remedy` is how the pool grows."""
        if self.level is Level.OK:
            return ""
        full = self.fullness(data, metadata)
        return f"{self.level.label}: {full}{_CONSEQUENCES[self.level]}; delete volumes or snapshots, or {remedy}"

    def fullness(self, data: Share, metadata: Share) -> str:
        """Say how full that is which isn't OK."""
        pairs = (("data", self.data, data), ("metadata", self.metadata, metadata))
        return " and ".join(f"its {name} is {share}" for name, level, share in pairs if level)


_CONSEQUENCES = {
    Level.WARNING: "",
    Level.NO_NEW_VOLUMES: ", so it takes no new volumes",
    Level.NO_NEW_SNAPSHOTS: ", so it takes no new volumes or snapshots, and none grows",
    Level.EMERGENCY: ", so it takes nothing new, and volumes of tiers that yield are written at their least rate",
}


def _rounded(size: int) -> str:
    """Return bytes for people: no finer than a MiB, unless they are less than one."""
    return format_bytes(size if size < MIB else size - size % MIB)
