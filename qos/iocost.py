"""What io.cost is told of a disk, and what a floor takes of it. Pure: `cgroup.py` reads and writes the files.

io.cost charges a request what a linear model says: a fixed cost, and one by the byte. A disk's true cost is convex in
the size, so the chord from 4 KiB to the largest request lies above it: it never charges too little between its ends,
and is exact at both. Kernel interface: io.cost.model and io.cost.qos in Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Self

from qos.iofiles import nested_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qos.limits import DevNo

PAGE: Final = 4096
"""Bytes of the request that a floor in IOPS counts, and the smallest one that the model charges."""
RATE: Final = 90
"""Percent of the model at which io.cost lets requests through: what is left keeps the queue ours, and is room for a
measurement that is 5 to 10 % off."""
WHOLE: Final = 1_000_000
"""What shares are parts of: millionths of what a disk does at this rate. Whole numbers, so that sums are exact."""
PROMISABLE: Final = 800_000
"""Millionths that floors may take of a disk together: what has no floor must go on too."""
LARGEST_REQUEST: Final = 256 << 10
"""Bytes of the largest request that a disk is let see, where nothing splits requests above it."""
MOST_REQUEST: Final = 512 << 10
"""The same, below a pool that splits at chunks: those of larger chunks are cut here."""
LATENCY_US: Final = 25_000
"""rlat and wlat where no floor says otherwise. Half of io.cost's control period, though nothing is measured by them."""
LEAST_LATENCY_US: Final = 5_000
MOST_LATENCY_US: Final = 500_000
"""The kernel's longest period is a second."""
_FREE: Final = 1 << 50
"""Bytes a second where a byte costs nothing."""
_SIZES: Final = tuple((64 << 10) << power for power in range(4))


@dataclass(frozen=True, slots=True)
class Floor:
    """Hold the least that a volume gets: requests of 4 KiB a second, bytes a second in large requests, or both.

    0 is no floor. Both together cost the sum of both.
    """

    iops: int = 0
    bps: int = 0

    def __bool__(self) -> bool:
        return self.iops > 0 or self.bps > 0

    def __str__(self) -> str:
        words = [f"{self.iops} IOPS"] if self.iops else []
        return " and ".join([*words, *([f"{self.bps} bytes/s"] if self.bps else [])]) or "none"


NO_FLOOR: Final = Floor()


@dataclass(frozen=True, slots=True)
class Speed:
    """Hold what a disk does in one direction: I/Os a second of 4 KiB at random and in order, and of larger sizes.

    `larger` are pairs of a request's bytes and I/Os a second, the smallest size first. Raises ValueError for figures
    that are no speed.
    """

    random: float
    sequential: float
    larger: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        """Refuse what no model can be made from."""
        sizes = [size for size, _ in self.larger]
        if not sizes or sizes != sorted(set(sizes)) or sizes[0] <= PAGE:
            raise ValueError(f"the sizes {sizes} are not larger and larger ones above {PAGE}")
        for iops in (self.random, self.sequential, *(iops for _, iops in self.larger)):
            if not 1 <= iops < math.inf:
                raise ValueError(f"{iops} I/Os a second is not a speed: write at least 1")

    @classmethod
    def rated(cls, iops: int, bps: int) -> Self:
        """Return the speed of a disk that is sold as so many IOPS and bytes a second, whichever is reached first."""
        larger = tuple((size, min(float(iops), bps / size)) for size in _SIZES)
        return cls(float(iops), float(iops), larger)

    def bytes_per_second(self, largest: int) -> int:
        """Return the chord's: the reciprocal of the steepest rise of a request's cost from 4 KiB to `largest` bytes.

        Where `largest` was not measured, the next larger size stands for it: by convexity its chord is steeper.
        """
        page = 1 / min(self.random, self.sequential)
        until = next((size for size, _ in self.larger if size >= largest), None)
        if until is None:
            raise ValueError(f"requests of {largest} bytes were not measured, only up to {self.larger[-1][0]}")
        slope = max((1 / iops - page) / (size - PAGE) for size, iops in self.larger if size <= until)
        return min(_FREE, round(1 / slope)) if slope > 0 else _FREE


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold what a disk does, by measurement or by its owner's word."""

    read: Speed
    write: Speed


@dataclass(frozen=True, slots=True)
class Model:
    """Hold a line of io.cost.model: the names and their order are the kernel's."""

    rbps: int
    rseqiops: int
    rrandiops: int
    wbps: int
    wseqiops: int
    wrandiops: int

    @classmethod
    def of(cls, measured: Measured, largest: int) -> Self:
        """Return the chord model for a disk that sees no request above `largest` bytes."""
        read, write = measured.read, measured.write
        return cls(
            rbps=read.bytes_per_second(largest),
            rseqiops=int(read.sequential),
            rrandiops=int(read.random),
            wbps=write.bytes_per_second(largest),
            wseqiops=int(write.sequential),
            wrandiops=int(write.random),
        )

    def line(self, dev: DevNo) -> str:
        """Return the text that sets it."""
        return f"{dev} ctrl=user model=linear {_pairs(self)}\n"


@dataclass(frozen=True, slots=True)
class Qos:
    """Hold what we set of io.cost.qos: whether it is on, half the control period in microseconds, and the rate.

    The rate is in hundredths of a percent, the least that the kernel prints.
    """

    latency_us: int = LATENCY_US
    rate: int = RATE * 100

    @classmethod
    def of(cls, smallest: float) -> Self:
        """Return the setting whose period holds ten I/Os of the smallest floor, which is in IOPS; 0: there is none.

        With two or three a period its group goes idle again and again, gives its share away and comes back for more:
        the charges then add up to 123 % of the rate.
        """
        if not smallest:
            return cls()
        return cls(round(min(MOST_LATENCY_US, max(LEAST_LATENCY_US, 5e6 / smallest))))

    def line(self, dev: DevNo) -> str:
        """Return the text that sets it. Without percentiles nothing is measured: the rate is fixed."""
        rate = f"{self.rate // 100}.{self.rate % 100:02}"
        latency = f"rpct=0.00 rlat={self.latency_us} wpct=0.00 wlat={self.latency_us}"
        return f"{dev} enable=1 ctrl=user {latency} min={rate} max={rate}\n"


@dataclass(frozen=True, slots=True)
class Cost:
    """Say what I/O costs on a disk: its model, and the largest request that it sees, in bytes."""

    model: Model
    largest: int

    @classmethod
    def of(cls, measured: Measured, largest: int) -> Self:
        """Return the costs on a disk that was measured. Raises ValueError when no such large request was."""
        return cls(Model.of(measured, largest), largest)

    @property
    def iops(self) -> int:
        """Return how many requests of 4 KiB it does in a second, in the worse direction and order."""
        return min(self.model.rseqiops, self.model.rrandiops, self.model.wseqiops, self.model.wrandiops)

    def share(self, floor: Floor) -> int:
        """Return what a floor takes of the disk, in millionths of what it does at our rate, rounded up.

        In the worse direction. Bytes are counted in the largest requests.
        """
        model = self.model
        seconds = max(
            self._seconds(floor, min(model.rseqiops, model.rrandiops), model.rbps),
            self._seconds(floor, min(model.wseqiops, model.wrandiops), model.wbps),
        )
        # What is a millionth above a whole number by the processor's rounding alone is that number.
        return math.ceil(round(seconds * WHOLE * 100 / RATE, 3))

    def iops_of(self, share: int) -> float:
        """Return how many requests of 4 KiB a second a share is worth, in the worse direction."""
        return self.iops * share / WHOLE * RATE / 100

    def _seconds(self, floor: Floor, iops: int, bps: int) -> float:
        """Return how long the disk works in one direction for a second of the floor, at its full rate."""
        large = 1 / iops + (self.largest - PAGE) / bps
        return floor.iops / iops + floor.bps / self.largest * large


def parse_model(text: str) -> dict[DevNo, Model]:
    """Return the models in the text of io.cost.model that were given by a user. Raises ValueError for another form."""
    names = {field.name for field in fields(Model)}
    return {
        dev: Model(**{name: int(value) for name, value in pairs.items() if name in names})
        for dev, pairs in _by_users(text)
    }


def parse_qos(text: str) -> dict[DevNo, Qos]:
    """Return what is set in the text of io.cost.qos; a disk has no entry where it is off, or not as we would set it."""
    found = {}
    for dev, pairs in _by_users(text):
        fixed = (pairs["rpct"], pairs["wpct"]) == ("0.00", "0.00")
        if pairs["enable"] == "1" and fixed and pairs["rlat"] == pairs["wlat"] and pairs["min"] == pairs["max"]:
            found[dev] = Qos(int(pairs["rlat"]), round(float(pairs["min"]) * 100))
    return found


def _by_users(text: str) -> Iterator[tuple[DevNo, dict[str, str]]]:
    """Yield the lines that hold somebody's own values, not the kernel's."""
    return ((dev, pairs) for dev, pairs in nested_lines(text) if pairs.get("ctrl") == "user")


def _pairs(model: Model) -> str:
    """Return the six coefficients."""
    return " ".join(f"{field.name}={getattr(model, field.name)}" for field in fields(model))
