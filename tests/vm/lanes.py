"""Machines side by side: which boot runs which files of tests, so that all are through soonest."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.vm.boot import Boot

BOOT_SECONDS = 40.0
"""Until a machine's first test begins."""

PROCESSORS = len(os.sched_getaffinity(0))
MOST_LANES = 3
"""Each takes 2 GiB of memory, too."""


@dataclass(frozen=True, slots=True)
class Load:
    """Describe one file's tests on one boot. They stay together, since they share fixtures."""

    boot: Boot
    file: str
    seconds: float


@dataclass(slots=True)
class Lane:
    """Hold what runs one after another: machines, each with its loads."""

    loads: list[Load] = field(default_factory=list)

    def seconds(self, *more: Load) -> float:
        """Return how long it takes, with more loads or as it is."""
        loads = [*self.loads, *more]
        boots = len({load.boot for load in loads})
        return boots * BOOT_SECONDS + sum(load.seconds for load in loads)

    def cost(self, load: Load) -> float:
        """Return what it costs to take a load: a boot counts twice, for it takes a processor from the others."""
        known = load.boot in {one.boot for one in self.loads}
        return self.seconds(load) + (0 if known else BOOT_SECONDS)

    def boots(self) -> list[Boot]:
        """Return its machines, the one with the most to do first."""
        seconds: dict[Boot, float] = {}
        for load in self.loads:
            seconds[load.boot] = seconds.get(load.boot, 0) + load.seconds
        return sorted(seconds, key=lambda boot: -seconds[boot])


def how_many(processors: int) -> int:
    """Return how many lanes begin at once, beside the tests here.

    An emulated machine takes little more than a processor while it works; but it waits at times, as the tests here do.
    """
    return min(MOST_LANES, processors)


def pack(loads: Iterable[Load], count: int) -> list[Lane]:
    """Share loads out among so many lanes: the longest first, each to where it costs least."""
    lanes = [Lane() for _ in range(count)]
    for load in sorted(loads, key=lambda load: (-load.seconds, load.file)):
        min(lanes, key=lambda lane: lane.cost(load)).loads.append(load)
    return lanes
