"""The rows that the terminal and the report both show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hack.demo.plan import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hack.demo.figures import Measured


def training_rows(each: Measured) -> list[tuple[str, str, str]]:
    """Return limit wanted, applied and measured: once a phase, and once more after a live change."""
    if each.training is None:
        return [("-", "-", "not running")]
    rows = []
    sides = ("limits", "limits_after") if each.windows else ("limits",)
    for side, (_, rate) in zip(sides, each.windows or (("", each.training),), strict=True):
        limits = each.raw[side]["training"]
        rows.append((_write(limits["wanted"]), _write(limits["applied"]), f"{rate:.1f} MiB/s"))
    return rows


def told(story: Mapping[str, Any]) -> tuple[str, ...]:
    """Return in words what the volumes took, and how long a snapshot and a clone did."""
    promised, taken = (story[key] / (1 << 30) for key in ("promised", "taken"))
    cut, clone = story["snapshot_seconds"], story["clone_seconds"]
    return (
        f"Checkpoint volume: {promised:.0f} GiB promised, {taken:.2f} GiB taken of the disk: what was written.",
        f"Snapshot of inference's volume in use: {cut:.1f} s; a clone of it: {clone:.1f} s; no bytes were copied.",
    )


def _write(limits: dict[str, int | None] | None) -> str:
    if limits is None:
        return "unknown"
    return "none" if limits["wbps"] is None else f"{limits['wbps'] / MIB:g} MiB/s"
