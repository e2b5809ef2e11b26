"""The state of a volume in one word, for people and for metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csi_driver.records import Volume

STATES = ("offered", "making", "ready", "staged", "abnormal", "deleting")


def state_of(volume: Volume) -> str:
    """Return which of STATES a volume is in, for people."""
    history, seen = volume.status.history, volume.status.seen
    if volume.spec.absent or volume.deleting or history.condemned:
        return "deleting"
    if not history.made:
        return "making" if history.accepted else "offered"
    if seen.abnormal:
        return "abnormal"
    return "staged" if seen.staged else "ready"
