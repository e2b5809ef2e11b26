"""The text of io.max and io.stat, as values. Pure: `cgroup.py` reads and writes the files.

Both are "nested keyed" files (Documentation/admin-guide/cgroup-v2.rst): a line is a device and KEY=VALUE pairs. Real
kernels also print "(unknown)" for a hidden device, and devices with no figures as a bare "MAJ:MIN " that is not even
followed by a new line, so that several stand before the one that has figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qos.limits import UNLIMITED, DevNo, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIMIT_KEYS: Final = tuple(key for key, _ in UNLIMITED.items())
_STAT_KEYS: Final = ("rbytes", "wbytes", "rios", "wios", "dbytes", "dios")


@dataclass(frozen=True, slots=True)
class IoStat:
    """Count what a cgroup did on one device since the cgroup saw it first: bytes and I/Os, d for discards."""

    rbytes: int = 0
    wbytes: int = 0
    rios: int = 0
    wios: int = 0
    dbytes: int = 0
    dios: int = 0


def parse_io_max(text: str) -> dict[DevNo, Limits]:
    """Return the limits in the text of io.max; a device without any has no entry.

    Raises ValueError for a value that is neither a number nor "max": better no answer than a wrong one.
    """
    found = {}
    for dev, pairs in nested_lines(text):
        values = {key: _limit(value) for key, value in pairs.items() if key in _LIMIT_KEYS}
        limits = Limits(**values)
        if limits != UNLIMITED:
            found[dev] = limits
    return found


def parse_io_stat(text: str) -> dict[DevNo, IoStat]:
    """Return the counters in the text of io.stat; a device without figures has no entry.

    Keys beyond the six (cost.usage, cost.wait and so on) are left out. Raises ValueError for a counter that is not one.
    """
    return {
        dev: IoStat(**{key: int(value) for key, value in pairs.items() if key in _STAT_KEYS})
        for dev, pairs in nested_lines(text)
    }


def parse_io_weight(text: str) -> dict[DevNo, int]:
    """Return the weights of devices in the text of io.weight, less the one that is for all others."""
    rows = (line.split() for line in text.splitlines())
    return {DevNo.parse(name): int(weight) for name, weight in rows if name != "default"}


def format_io_max(dev: DevNo, limits: Limits) -> str:
    """Return the line that sets all four keys of a device. Keys left out would keep whatever value was there."""
    return f"{dev} {limits}\n"


def _limit(value: str) -> int | None:
    """Return one value of io.max."""
    return None if value == "max" else int(value)


def nested_lines(text: str) -> Iterator[tuple[DevNo, dict[str, str]]]:
    """Yield each device that has figures, with its pairs. The last device before the pairs is the one they are of."""
    for line in text.splitlines():
        name, pairs = "", {}
        for token in line.split():
            key, equals, value = token.partition("=")
            if equals:
                pairs[key] = value
            else:
                name = token
        if pairs and name != "(unknown)":
            yield DevNo.parse(name), pairs
