"""What the kernel counted for the volumes' common ancestor, as rates.

The span begins and ends at an I/O, not between two: eight requests of 1 MiB a second would else be counted one too many
or too few. The upper bound of a limit is strict: no span may pass it. The lower one presumes a machine that could have
gone faster, and under emulation on busy processors the load itself falls short, which no figure in the guest tells
surely. So a span that was too slow is measured again, several times: a limit set too low is too low every time.
"""

from __future__ import annotations

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
"""A volume that was idle has a slice of 100 ms to its credit: in a span of 4 s that is more than the 2 % looked for."""
MOST_SPANS = 8
EDGE_SECONDS = 5.0
EDGE_PAUSE = 0.001
EDGE_PRECISION = 0.015


@dataclass(frozen=True, slots=True)
class Span:
    """Hold a rate per second, and, for who reads a failure, the share of the processors that was idle meanwhile."""

    rate: float
    seconds: float
    idle: float


def rate_of(dev: DevNo, key: str, limit: int, within: float) -> Span:
    """Measure what a load gets, in the words of io.max, until a span is near the limit.

    Raises AssertionError above the limit, however short the machine was, and when every span was below.
    """
    spans: list[Span] = []
    while len(spans) < MOST_SPANS:
        spans.append(span(dev, key, SPAN_SECONDS))
        assert spans[-1].rate <= limit * (1 + within), spans
        if spans[-1].rate >= limit * (1 - within):
            break
    print(f"{key}={limit} measured {spans[-1].rate:.1f} ({spans[-1].rate / limit - 1:+.2%}), spans {spans}")  # noqa: T201
    assert spans[-1].rate >= limit * (1 - within), spans
    return spans[-1]


def span(dev: DevNo, key: str, seconds: float, above: Path = SLICE) -> Span:
    """Measure one span."""
    busy, total = _processors()
    first, began = _edge(dev, key, above)
    time.sleep(seconds)
    last, ended = _edge(dev, key, above)
    now_busy, now_total = _processors()
    idle = 1 - (now_busy - busy) / max(1, now_total - total)
    return Span((last - first) / (ended - began), ended - began, idle)


def count(dev: DevNo, key: str, above: Path = SLICE) -> int:
    """Return what the kernel has counted until now."""
    counted: int = getattr(Cgroup(above).io_stat().get(dev, IoStat()), COUNTERS[key])
    return counted


def settle() -> None:
    """Let a load's first slices pass."""
    time.sleep(SETTLE_SECONDS)


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
