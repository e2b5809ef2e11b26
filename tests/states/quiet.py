"""When a record is at rest: its agent, if it runs, has nothing left to do for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_driver.errors import InUse
from csi_driver.records import Snapshot
from tests.states.things import ACCEPTED, GONE, MADE, NO_SPACE, OFFERED, REFUSED, phase_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from csi_driver.records import Volume
    from tests.states.driver import View


def at_rest(
    record: Volume | Snapshot, views: Mapping[str, View], up: Callable[[str], bool], left: Mapping[str, int]
) -> bool:
    """Return whether nothing will change a record by itself. `left` is what the ledgers of nodes can promise."""
    history, offer = record.status.history, record.status.history.accepted or record.spec.offer
    phase = phase_of(record)
    if offer is None or not up(offer.node) or phase in (GONE, REFUSED):
        return True
    if phase in (OFFERED, ACCEPTED):
        return False
    if phase != MADE or record.spec.absent or record.deleting:
        device = views[offer.node].devices.get(record.id)
        return phase == MADE and device is not None and bool(device.shown) and _said(record, InUse.__name__)
    wish = record.spec.size - history.size
    if not isinstance(record, Snapshot) and wish > left.get(offer.node, 0):
        return _said(record, NO_SPACE)
    return wish <= 0 and record.status.seen.generation >= record.generation


def _said(record: Volume | Snapshot, error: str) -> bool:
    """Return whether that is what its agent says of the newest wish; after another error it tries again."""
    seen = record.status.seen.error
    return seen is not None and seen.error == error and seen.about >= record.generation
