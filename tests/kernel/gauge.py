"""What the kernel counted for the volumes' common ancestor, as rates; and whether the machine could have done more.

The span begins and ends at an I/O, not between two: eight requests of 1 MiB a second would else be counted one too many
or too few. The upper bound of a limit is strict. The lower one presumes a machine that could have gone faster: under
emulation on busy processors the load itself may fall short, so a span that was too slow while the processors were short
is measured again, a few times.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline, wait_for
from qos.cgroup import Cgroup
from qos.iofiles import IoStat
from tests.kernel.pod import SLICE

if TYPE_CHECKING:
    from qos.limits import DevNo

COUNTERS = {"riops": "rios", "wiops": "wios", "rbps": "rbytes", "wbps": "wbytes"}
SETTLE_SECONDS = 1.0
SPAN_SECONDS = 10.0
MOST_SPANS = 6
EDGE_SECONDS = 5.0
EDGE_PAUSE = 0.001
EDGE_PRECISION = 0.015
# A load is one thread: with one processor's worth of work under way, or a sleep that overran so long, it may have been
# the load that was slow. (Seen: -1.9 % at 50 % idle of two processors, where 75 % is usual.)
LEAST_IDLE = 1.1 - 1 / (os.cpu_count() or 1)
LATEST_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Span:
    """Hold a rate per second, and the machine's state in the meantime: processors' idle share, the latest wake-up."""

    rate: float
    seconds: float
    idle: float
    late: float

    @property
    def starved(self) -> bool:
        """Return whether the processors, not the limit, may have held the load back."""
        return self.idle < LEAST_IDLE or self.late > LATEST_SECONDS


def rate_of(dev: DevNo, key: str, limit: int, within: float, seconds: float = SPAN_SECONDS) -> Span:
    """Measure what a load gets, in the words of io.max, until it is near the limit or surely is not.

    Raises AssertionError above the limit, however short the machine was.
    """
    spans: list[Span] = []
    while len(spans) < MOST_SPANS:
        spans.append(span(dev, key, seconds))
        assert spans[-1].rate <= limit * (1 + within), spans
        if spans[-1].rate >= limit * (1 - within) or not spans[-1].starved:
            break
    print(f"{key}={limit} measured {spans[-1].rate:.1f} ({spans[-1].rate / limit - 1:+.2%}), spans {spans}")  # noqa: T201
    assert spans[-1].rate >= limit * (1 - within), spans
    return spans[-1]


def span(dev: DevNo, key: str, seconds: float, above: Path = SLICE) -> Span:
    """Measure one span."""
    busy, total = _processors()
    first, began = _edge(dev, key, above)
    late = _sleep(seconds)
    last, ended = _edge(dev, key, above)
    now_busy, now_total = _processors()
    idle = 1 - (now_busy - busy) / max(1, now_total - total)
    return Span((last - first) / (ended - began), ended - began, idle, late)


def count(dev: DevNo, key: str, above: Path = SLICE) -> int:
    """Return what the kernel has counted until now."""
    counted: int = getattr(Cgroup(above).io_stat().get(dev, IoStat()), COUNTERS[key])
    return counted


def settle() -> None:
    """Let a load's first slices pass."""
    _sleep(SETTLE_SECONDS)


def _edge(dev: DevNo, key: str, above: Path) -> tuple[int, float]:
    """Return the counter right after it rose, and when that was; not when this process slept over that moment."""
    began = asked = time.monotonic()
    before = count(dev, key, above)
    while True:
        time.sleep(EDGE_PAUSE)
        since, asked = asked, time.monotonic()
        now, told = count(dev, key, above), time.monotonic()
        if now != before and (told - since < EDGE_PRECISION or told - began > EDGE_SECONDS):
            return now, told
        assert told - began < 2 * EDGE_SECONDS, f"no {key} on {dev} for seconds"
        before = now


def _sleep(seconds: float) -> float:
    """Sleep in small steps, and return by how much the latest of them overran."""
    late, deadline = 0.0, Deadline(seconds)
    while not deadline.passed():
        before, pause = time.monotonic(), min(0.05, deadline.left())
        time.sleep(pause)
        late = max(late, time.monotonic() - before - pause)
    return late


def _processors() -> tuple[int, int]:
    """Return the processors' ticks: busy, and all."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def until(what: str, seconds: float, dev: DevNo, line: str, above: Path = SLICE) -> float:
    """Wait until io.max shows a device's line, and return the seconds that took."""
    began = time.monotonic()
    wait_for(what, lambda: limit_line(dev, above) == line, Deadline(seconds))
    return time.monotonic() - began


def limit_line(dev: DevNo, above: Path = SLICE) -> str:
    """Return a device's line of io.max without the device, "" if there is none, or no io.max."""
    if not (above / "io.max").exists():
        return ""
    lines = (line.partition(" ") for line in (above / "io.max").read_text().splitlines())
    return next((text for number, _, text in lines if number == str(dev)), "")
