"""The rule by which a volume's size gives a limit, and the text that says it.

The grammar, the same in tiers.toml and in StorageClass and VolumeAttributesClass parameters:

    limit    = "max" | "none" | amount | per-GiB
    per-GiB  = amount "/Gi" [ "," bounds ]
    bounds   = amount ".." amount | amount ".." | ".." amount
    amount   = a Kubernetes quantity: I/Os with k, M, G; bytes also with Ki, Mi, Gi

    "5k"               5,000 a second, whatever the size
    "3/Gi,100..16k"    3 a second for each GiB, at least 100, at most 16,000
    "0.5Mi/Gi,64Mi.."  512 KiB/s for each GiB, at least 64 MiB/s
    "max", "none"      no ceiling

No spaces. The amount before "/Gi" may have a fraction; what it comes to is rounded down, but never below 2, the least
that the kernel takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from qos.limits import LEAST, MOST_IOPS
from qos.quantity import (
    MOST,
    BadQuantity,
    exact_bytes,
    exact_count,
    format_bytes,
    format_count,
    parse_bytes,
    parse_count,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GIB: Final = 1024**3
NO_CEILING: Final = frozenset({"max", "none"})


@dataclass(frozen=True, slots=True)
class Rate:
    """Hold a rule for a limit: a fixed value, or so much for each GiB of the volume within bounds.

    Values are bytes/s or IOPS, by the key that the rule stands under. Raises ValueError when it has both a fixed value
    and one per GiB, or neither, when bounds cross, and for what no kernel takes.
    """

    absolute: int | None = None
    per_gib: Fraction | int | None = None
    at_least: int | None = None
    at_most: int | None = None

    def __post_init__(self) -> None:
        """Refuse a rule that could not be obeyed for some size."""
        if (self.absolute is None) == (self.per_gib is None):
            raise ValueError("a rate is either a fixed value or a value per GiB")
        if self.absolute is not None and (self.at_least is not None or self.at_most is not None):
            raise ValueError("bounds belong to a value per GiB: a fixed value needs none")
        if self.per_gib is not None and self.per_gib <= 0:
            raise ValueError("a value per GiB is more than 0")
        for value in (self.absolute, self.at_least, self.at_most):
            if value is not None and value < LEAST:
                raise ValueError(f"{value} is too low: the kernel takes no limit below {LEAST}")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"the least, {self.at_least}, is more than the most, {self.at_most}")

    def at(self, size_bytes: int) -> int:
        """Return the limit for a volume of so many bytes, rounded down, never below 2. ValueError if negative."""
        if size_bytes < 0:
            raise ValueError(f"a volume of {size_bytes} bytes can't be")
        if self.absolute is not None:
            return self.absolute
        value = int(Fraction(self.per_gib or 0) * size_bytes / GIB)
        if self.at_most is not None:
            value = min(value, self.at_most)
        return max(value, self.at_least or LEAST)


@dataclass(frozen=True, slots=True)
class Unit:
    """Say how the amounts of a key are read and written, and the most that a limit of its kind can be."""

    parse: Callable[[str], int]
    exact: Callable[[str], Fraction]
    format: Callable[[int], str]
    most: int


IOPS: Final = Unit(parse_count, exact_count, format_count, MOST_IOPS)
BYTES_PER_SECOND: Final = Unit(parse_bytes, exact_bytes, format_bytes, MOST)

# The keys, as people write them, of the four limits. Nothing else may name them.
UNITS: Final[Mapping[str, Unit]] = MappingProxyType(
    {"readIOPS": IOPS, "writeIOPS": IOPS, "readBPS": BYTES_PER_SECOND, "writeBPS": BYTES_PER_SECOND}
)
# Those of a floor, likewise. "none" and "max" are no floor.
FLOORS: Final[Mapping[str, Unit]] = MappingProxyType({"minIOPS": IOPS, "minBPS": BYTES_PER_SECOND})
# What later versions will take. Until then they are refused by name: a burst that is silently no burst is a lie.
BURST: Final = frozenset({"burstBPS", "burstBytes"})


def parse_rate(text: str, unit: Unit) -> Rate | None:
    """Return the rule that `text` says, None for no ceiling. The grammar stands at the top of this file.

    Raises BadQuantity, or ValueError from Rate, with a message that has no key in it: the caller knows the key.
    """
    if text in NO_CEILING:
        return None
    amount, slash, rest = text.partition("/")
    if not slash:
        return Rate(absolute=_bounded(text, unit))
    per, comma, bounds = rest.partition(",")
    if per != "Gi" or bool(comma) != bool(bounds):
        raise BadQuantity(f'{quoted(text)} is not a rate per GiB: write it as "3/Gi" or "3/Gi,100..16k"')
    at_least, at_most = _bounds(text, bounds, unit) if bounds else (None, None)
    return Rate(per_gib=unit.exact(amount), at_least=at_least, at_most=at_most)


def limit_at(rate: Rate, size_bytes: int, unit: Unit) -> int:
    """Return the rule's limit for a volume, cut to the most that the kernel can hold: no disk comes near it."""
    return min(rate.at(size_bytes), unit.most)


def _bounds(text: str, bounds: str, unit: Unit) -> tuple[int | None, int | None]:
    """Return both ends of "100..16k", "100.." or "..16k"."""
    least, dots, most = bounds.partition("..")
    if not dots or not (least or most):
        raise BadQuantity(
            f'{quoted(text)} has the bounds {quoted(bounds)}: write them as "100..16k", "100.." or "..16k"'
        )
    return (_bounded(least, unit) if least else None), (_bounded(most, unit) if most else None)


def _bounded(text: str, unit: Unit) -> int:
    """Return an amount that the kernel could hold."""
    value = unit.parse(text)
    if value > unit.most:
        raise BadQuantity(f'{text!r} is more than the kernel can limit, {unit.most}: write "max" for no ceiling')
    return value
