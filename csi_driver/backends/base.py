"""The contract of a backend.

Every verb is idempotent and says whether it changed anything. `find` and `list` say what the kernel says, never what a
record says.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec reads the fields' types at run time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device, Disk

    Frozen = AbstractContextManager[Deadline | None]
    """Holds a volume's users back; gives the time by which they must go on, None when there are none."""


@dataclass(frozen=True, slots=True)
class Passport:
    """Say what bytes are, on the bytes themselves, so that records can be rebuilt and a person can read it.

    `kind` is `volume` or `snapshot`, `parameters` are those of the call that made it, `parent` its source, `made`
    the time it was complete (RFC 3339, UTC), `format_done` the file system of an mkfs that ended. A member of a group
    snapshot has the group's CSI name in `group`, and how many members that has in `group_size`. Of a `thick` volume all
    bytes are allocated when it is made, and when it grows.
    """

    id: str
    kind: str
    name: str
    claim: str = ""
    parent: str = ""
    tier: str = "standard"
    overrides: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    sector_size: int = 4096
    made: str = ""
    format_done: str = ""
    group: str = ""
    group_size: int = 0
    thick: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Say what stands in a pool: `size` and `allocated` in bytes; `passport` is None where it can't be read."""

    id: str
    kind: str
    size: int
    allocated: int
    passport: Passport | None


@dataclass(frozen=True, slots=True)
class Fill:
    """Say how full a pool is, in bytes: what it can hold and what is allocated; of its metadata 0 where it has none.

    `thick` of both is what thick volumes have beside that which the others share, where that is so; then `room` is what
    the next one can have.
    """

    total: int
    used: int
    metadata_total: int = 0
    metadata_used: int = 0
    thick: int = 0
    room: int | None = None

    @property
    def room_for_thick(self) -> int:
        """Return the bytes that a new thick volume can have at most."""
        return max(0, self.total - self.used) if self.room is None else self.room


class Pool(Protocol):
    """Allocate bytes. Raises Foreign from every verb when the pool is not the one that its record names."""

    @property
    def identity(self) -> str:
        """Return what tells this pool from all others, also after a reboot."""

    @property
    def sector_size(self) -> int:
        """Return the sector size of new volumes, in bytes."""

    @property
    def clones(self) -> bool:
        """Return whether snapshots and clones can be made."""

    @property
    def amends_at_once(self) -> bool:
        """Return whether `amend` costs no program. Where it does, the agent amends when the call is answered.

        Nothing else does then, so that who asked for a change may as well make it himself.
        """

    @property
    def cuts_are_whole(self) -> bool:
        """Return whether a cut that is found is surely one that ended well. Where not, the agent makes it again."""

    @property
    def splits_at(self) -> int:
        """Return at how many bytes what lies below volumes splits requests, 0 where nothing does; known when open."""

    def alone(self) -> AbstractContextManager[object]:
        """Keep other changes of the pool out, so that a cut within begins at once: users are held back meanwhile."""

    def open(self, identity: str) -> None:
        """Make ready: mount, check the identity against the record's ("" claims a new pool), clean half-made temps."""

    def look(self) -> str:
        """Return the identity of the pool that stands there now, "" when none does. Changes nothing.

        With an identity, `fill`, `find` and `list` work from here on.
        """

    def claimed(self) -> bool:
        """Return whether a pool was ever made here."""

    def fill(self) -> Fill:
        """Return how full the pool is."""

    def disks(self) -> tuple[Disk, ...]:
        """Return the disks below, as they were when the pool was opened or last seen changed: it costs nothing."""

    def create(self, passport: Passport, size: int) -> bool:
        """Make a volume of zeros, durable when it returns. False: it was there already."""

    def cut(self, source: str, passport: Passport, size: int, frozen: Frozen) -> bool:
        """Copy a volume or snapshot at once, without moving its bytes, and grow the copy to `size`.

        The source is held still by `frozen` while it is copied and no longer; when leaving it fails, nothing is kept.
        Raises InUse when its users would have to wait too long: nothing is kept, and they have gone on.
        """

    def expand(self, record_id: str, size: int) -> bool:
        """Grow a volume's bytes; the new part is zeros. False: it was that large already."""

    def delete(self, record_id: str) -> bool:
        """Free the bytes of a volume or snapshot. False: there were none. Raises Busy while it is done in pieces."""

    def amend(self, record_id: str, passport: Passport) -> None:
        """Replace the passport of what is there; durable with the volume's next flush. Raises Lost."""

    def never_written(self, record_id: str) -> bool:
        """Return whether the allocator knows that not one byte of the volume was ever written."""

    def take(self, record_id: str) -> None:
        """Note, durably, that somebody is given the volume, where `never_written` can't tell by what is allocated."""

    def find(self, record_id: str) -> Found | None:
        """Return what stands under this id, or None when the pool surely holds nothing of it."""

    def list(self) -> Iterable[Found]:
        """Return all that stands in the pool and has our form."""


class Transport(Protocol):
    """Turn an id into a device of this machine."""

    def attach(self, record_id: str, sector_size: int, deadline: Deadline) -> Device:
        """Return the volume's device, as large as its bytes, attaching it when it isn't. Raises Lost."""

    def attached(self, record_id: str) -> Device | None:
        """Return the volume's device when it is attached."""

    def resize(self, record_id: str, deadline: Deadline) -> None:
        """Let the device have the size of its bytes."""

    def detach(self, record_id: str, deadline: Deadline) -> bool:
        """Let the device go. False: there was none. Raises InUse when somebody holds it."""


class Backend(Pool, Transport, Protocol):
    """Be both halves, as loop and lvm are."""
