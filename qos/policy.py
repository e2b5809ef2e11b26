"""From a tier, a volume's size and what a class overrides, to the limits of that volume. Pure."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from qos.iocost import PAGE, Floor
from qos.limits import LEAST, Limits
from qos.quantity import quoted
from qos.rates import BURST, FLOORS, UNITS, limit_at, parse_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qos.rates import Rate, Unit
    from qos.tiers import Tier

__all__ = ["BURST", "OVERRIDES", "BadLimit", "check_overrides", "floor", "limits"]

OVERRIDES: Final = frozenset(UNITS) | frozenset(FLOORS)

HEADROOM: Final = 2
"""A ceiling is at least so many times the floor: at its ceiling a volume waits up to 100 ms, whatever its floor is."""

YIELDED: Final = 10
"""A write ceiling without a lower bound yields to a tenth of itself: much like training, with bounds an eighth apart.
With less a program that waits for its fsync would look hung."""
YIELDED_WITHOUT_CEILING: Final = MappingProxyType({"writeBPS": 64 << 20, "writeIOPS": 4096})
"""What writes without any ceiling yield to: the least of the built-in tier training."""


class BadLimit(ValueError):
    """Say that an override makes no sense. The message names the key and the value."""


def limits(tier: Tier, size_bytes: int, overrides: Mapping[str, str]) -> Limits:
    """Return the ceilings of a volume of so many bytes: its tier's, less those that an override replaces.

    Overrides have the keys in OVERRIDES; the grammar of their values is in `qos/rates.py`. Raises BadLimit.
    """
    rates = {**tier.rates(), **_parse(overrides, UNITS)}
    values = {key: None if rate is None else limit_at(rate, size_bytes, UNITS[key]) for key, rate in rates.items()}
    return Limits(rbps=values["readBPS"], wbps=values["writeBPS"], riops=values["readIOPS"], wiops=values["writeIOPS"])


def least(tier: Tier, size_bytes: int, overrides: Mapping[str, str]) -> Limits | None:
    """Return the ceilings of a volume while its pool is nearly full; None for a tier that doesn't yield.

    Only writes are held back further, for only they fill a pool. Each goes down to the lower bound of its rule; a rule
    without one, to a tenth of what it gives; no ceiling, to a fixed one. I/Os count as bytes do: with chunks of 512 KiB
    a small write can take a whole one. Raises BadLimit.
    """
    if not tier.yields:
        return None
    full = limits(tier, size_bytes, overrides)
    rates = {**tier.rates(), **_parse(overrides, UNITS)}
    return dataclasses.replace(
        full,
        wbps=_yielded("writeBPS", rates["writeBPS"], full.wbps),
        wiops=_yielded("writeIOPS", rates["writeIOPS"], full.wiops),
    )


def floor(tier: Tier, size_bytes: int, overrides: Mapping[str, str]) -> Floor:
    """Return the least that a volume of so many bytes gets, by its tier or what an override says instead.

    Raises BadLimit, also where a ceiling is too near to the floor.
    """
    rates = {**tier.floors(), **_parse(overrides, FLOORS)}
    values = {key: 0 if rate is None else limit_at(rate, size_bytes, FLOORS[key]) for key, rate in rates.items()}
    found = Floor(values["minIOPS"], values["minBPS"])
    if found:
        _check_ceilings(found, limits(tier, size_bytes, overrides))
    return found


def _check_ceilings(least: Floor, most: Limits) -> None:
    """Raise BadLimit for a ceiling below twice the floor. Each request of a floor has 4 KiB at least."""
    need = {"IOPS": least.iops, "BPS": max(least.bps, least.iops * PAGE)}
    asked = f"minIOPS={least.iops}" if least.iops else f"minBPS={least.bps}"
    ceilings = {"readIOPS": most.riops, "writeIOPS": most.wiops, "readBPS": most.rbps, "writeBPS": most.wbps}
    for key, ceiling in ceilings.items():
        wanted = HEADROOM * need[key.removeprefix("read").removeprefix("write")]
        if ceiling is not None and ceiling < wanted:
            raise BadLimit(
                f"{key}: a ceiling of {ceiling} is below {wanted}, twice what the floor {asked} needs: at its "
                f"ceiling a volume waits up to 100 ms, whatever its floor; raise {key}, or lower the floor"
            )


def _yielded(key: str, rate: Rate | None, full: int | None) -> int:
    """Return what one write ceiling, and its rule, yield to."""
    if rate is None or full is None:
        return YIELDED_WITHOUT_CEILING[key]
    bound = full // YIELDED if rate.at_least is None else rate.at_least
    return max(LEAST, min(full, bound))


def check_overrides(overrides: Mapping[str, str]) -> None:
    """Accept overrides that `limits` would take for every size. Raises BadLimit, naming key and value, for others."""
    _parse(overrides, UNITS)


def _parse(overrides: Mapping[str, str], wanted: Mapping[str, Unit]) -> dict[str, Rate | None]:
    """Return the rule under each key that is wanted, when all of them make sense."""
    rates = {key: _parse_one(key, value) for key, value in overrides.items()}
    return {key: rate for key, rate in rates.items() if key in wanted}


def _parse_one(key: str, value: str) -> Rate | None:
    """Return the rule that one override says."""
    if key in BURST:
        raise BadLimit(f"{key}: not supported yet (its value is {quoted(value)}): leave it out")
    units = {**UNITS, **FLOORS}
    if key not in units:
        raise BadLimit(f"{key}: unknown limit (its value is {quoted(value)}): the limits are {', '.join(units)}")
    try:
        return parse_rate(value, units[key])
    except ValueError as error:
        raise BadLimit(f"{key}={quoted(value)}: {error}") from error
