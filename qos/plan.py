"""What must be written so that what is becomes what should be. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qos.limits import UNLIMITED, DevNo, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Write:
    """Ask for one write to io.max: all four limits of one device."""

    dev: DevNo
    limits: Limits


def plan(wanted: Mapping[DevNo, Limits], seen: Mapping[DevNo, Limits]) -> tuple[Write, ...]:
    """Return the writes that make `seen` agree with `wanted`, in the order of the device numbers.

    A device that isn't wanted isn't ours: its line, if it has one, is left alone. A device that isn't seen has no
    limits, for the kernel prints no line then.
    """
    return tuple(Write(dev, limits) for dev, limits in sorted(wanted.items()) if seen.get(dev, UNLIMITED) != limits)
