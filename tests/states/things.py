"""One volume or snapshot as a whole: what its record says, and what the kernel of its node has of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csi_driver.records import Qos, Snapshot, Volume
from tests.states.driver import brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.states.driver import Up, View

OFFERED, REFUSED, ACCEPTED, GONE, MADE, CONDEMNED = "offered", "refused", "accepted", "gone", "made", "condemned"
NO_BUDGET, NO_SPACE = Qos(), "NoSpace"
PENDING = (OFFERED, REFUSED, ACCEPTED, GONE)


@dataclass(frozen=True, slots=True, repr=False)
class Thing:
    """Hold a volume or snapshot. `size` is what was admitted, `wish` what is wanted, `image` what the disk has; bytes.

    `origin` is the id of the source, or of the volume that a snapshot is of; `gone` the error that undid it, `full`
    says that the pool has refused to let it grow to its wish.
    """

    id: str
    phase: str
    node: str
    absent: bool = False
    size: int = 0
    wish: int = 0
    image: int = 0
    qos: Qos = NO_BUDGET
    fs: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    origin: str = ""
    begun: str = ""
    done: str = ""
    raw: bool = False
    gone: str = ""
    full: bool = field(default=False, compare=False)
    up: Up | None = None

    def __repr__(self) -> str:
        return "SAME" if self.phase == "same" else brief(self)

    @property
    def listed(self) -> bool:
        """Return whether callers may see it."""
        return self.phase == MADE

    @property
    def staged(self) -> bool:
        """Return whether it can be published, and isn't what a cut stage left."""
        return self.up is not None and bool(self.up.shown or self.raw)

    @property
    def promised(self) -> int:
        """Return the bytes that the ledger of its node has for it."""
        return self.size if self.phase in (ACCEPTED, MADE, CONDEMNED) else 0

    @property
    def steady(self) -> bool:
        """Return whether nothing is left to do for its agent."""
        return self.phase == MADE and not self.absent and self.wish <= self.size == self.image


def thing_of(record: Volume | Snapshot, views: Mapping[str, View]) -> Thing:
    """Return what a record and the node of its bytes say."""
    history, spec = record.status.history, record.spec
    offer = history.accepted or spec.offer
    node = offer.node if offer else ""
    view, error = views[node], record.status.seen.error
    volume = record.spec if isinstance(record, Volume) else None
    return Thing(
        id=record.id,
        phase=phase_of(record),
        node=node,
        absent=spec.absent or record.deleting,
        size=history.size,
        wish=spec.size,
        image=view.images.get(record.id, 0),
        qos=volume.qos if volume else Qos(),
        fs=volume.file_system.type if volume else "",
        parameters=tuple(sorted(spec.parameters.items())),
        origin=origin_of(record),
        begun=history.format_begun,
        done=history.format_done,
        raw=history.raw,
        gone=history.gone.error if history.gone else "",
        full=spec.size > history.size and bool(error and error.error == NO_SPACE and error.about >= record.generation),
        up=view.devices.get(record.id),
    )


def origin_of(record: Volume | Snapshot) -> str:
    """Return the id of what a record is a copy of, "" for what began empty."""
    if isinstance(record, Snapshot):
        return record.spec.volume
    return record.spec.source.id if record.spec.source else ""


def phase_of(record: Volume | Snapshot) -> str:
    """Return how far a record has come."""
    history, offer = record.status.history, record.spec.offer
    if history.condemned:
        return CONDEMNED
    if history.made:
        return MADE
    if history.gone:
        return GONE
    if history.accepted:
        return ACCEPTED
    refused = history.refused and offer and history.refused.about == offer.number
    return REFUSED if refused else OFFERED
