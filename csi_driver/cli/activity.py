"""What volumes do between two looks at the kernel: the facts behind `sluice top`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from csi_driver.cli.volumes import ancestor, device_of
from csi_driver.records import Volume
from qos.errors import Unenforceable
from qos.iofiles import IoStat
from qos.limits import UNLIMITED, DevNo, Limits
from qos.meter import Counted, Nearest, Rates, nearest, quantile, rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_driver.assemble import Machine
    from csi_driver.store.base import Store

PERCENTILES: Mapping[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}
NANO = 1e9


@dataclass(frozen=True, slots=True)
class Look:
    """Hold what the kernel said at one moment. `io` and `limits` are None where limits can't be looked at."""

    at: float
    staged: Mapping[str, tuple[Volume, DevNo]]
    counted: Mapping[DevNo, Counted]
    io: Mapping[DevNo, IoStat] | None
    limits: Mapping[DevNo, Limits] | None

    def stat(self, dev: DevNo) -> IoStat | None:
        """Return what was done on a device: by pods, else by anybody, None when nobody counted."""
        if self.io is not None:
            return self.io.get(dev, IoStat())
        seen = self.counted.get(dev)
        return IoStat(seen.rbytes, seen.wbytes, seen.reads, seen.writes) if seen else None


@dataclass(frozen=True, slots=True)
class Activity:
    """Hold what a volume did in an interval. None: not known, or no I/O to tell it by. Latencies in seconds.

    `counted` are the latencies of the interval.
    """

    volume: Volume
    dev: DevNo
    rates: Rates | None
    counted: Counted | None
    limits: Limits | None

    @property
    def name(self) -> str:
        """Return the claim, with its namespace, or the name."""
        return self.volume.spec.claim or self.volume.spec.name

    @property
    def nearest(self) -> Nearest | None:
        """Return the limit that the volume is nearest to."""
        return nearest(self.rates, self.limits) if self.rates and self.limits else None

    def percentile(self, name: str) -> float | None:
        """Return one of PERCENTILES."""
        return quantile(self.counted.buckets, PERCENTILES[name]) if self.counted else None

    def means(self) -> tuple[float | None, float | None]:
        """Return how long reads and writes took on average."""
        if self.counted is None:
            return None, None
        seen = self.counted
        reads = seen.reads_ns / seen.reads / NANO if seen.reads else None
        return reads, seen.writes_ns / seen.writes / NANO if seen.writes else None

    def as_dict(self) -> dict[str, object]:
        """Return it for programs."""
        near, (read, write) = self.nearest, self.means()
        return {
            "id": self.volume.id,
            "name": self.volume.spec.name,
            "claim": self.volume.spec.claim,
            "tier": self.volume.spec.qos.tier,
            "device": str(self.dev),
            "rates": {key: round(value, 1) for key, value in asdict(self.rates).items()} if self.rates else None,
            "seconds": {name: self.percentile(name) for name in PERCENTILES} | {"read": read, "write": write},
            "limits": asdict(self.limits) if self.limits is not None else None,
            "nearest": {"key": near.key, "share": round(near.share, 3)} if near else None,
            "throttled": bool(near and near.throttled),
        }


class Looking:
    """Look at records and kernel; nothing is changed, and no server is needed. `troubles`: what can't be seen, why."""

    def __init__(self, store: Store, machine: Machine, choice: str) -> None:
        self._store = store
        self._statistics = machine.statistics
        self._cgroup = ancestor(choice)
        self._no_mapper = machine.mapper.why_not()
        self.troubles: list[str] = []

    def look(self) -> Look:
        """Look once. Raises Unready."""
        self.troubles = [f"no latencies: {self._no_mapper}"] if self._no_mapper else []
        found = {volume.id: (volume, device_of(volume)) for volume in self._store.list(Volume)}
        staged = {volume_id: (volume, dev) for volume_id, (volume, dev) in found.items() if dev is not None}
        counted = {} if self._no_mapper else self._statistics.read(dev for _, dev in staged.values())
        at, io, limits = time.monotonic(), None, None
        try:
            io, limits = self._cgroup.io_stat(), self._cgroup.read_limits()
        except Unenforceable as error:
            self.troubles.append(f"no limits: {error}")
        return Look(at, staged, counted, io, limits)


def between(older: Look, newer: Look) -> list[Activity]:
    """Return what each volume that is staged now did since the look before."""
    return [_activity(volume, dev, older, newer) for volume, dev in newer.staged.values()]


def _activity(volume: Volume, dev: DevNo, older: Look, newer: Look) -> Activity:
    limits = newer.limits.get(dev, UNLIMITED) if newer.limits is not None else None
    if older.staged.get(volume.id, (None, None))[1] != dev:  # staged meanwhile: what is counted has no beginning
        return Activity(volume, dev, None, None, limits)
    now, then = newer.stat(dev), older.stat(dev)
    rate = rates(then, now, newer.at - older.at) if now is not None and then is not None else None
    seen, before = newer.counted.get(dev), older.counted.get(dev)
    return Activity(volume, dev, rate, seen.since(before) if seen and before else None, limits)
