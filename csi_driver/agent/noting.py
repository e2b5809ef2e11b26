"""What the agent notes of bytes: their history in records, and passports on the bytes themselves."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from csi_driver.backends.base import Passport
from csi_driver.errors import NoSpace, StorageError
from csi_driver.groups import GroupSnapshot
from csi_driver.records import Failure, History, Snapshot, Volume
from csi_driver.store.base import Stale, change_status
from qos.iocost import NO_FLOOR

if TYPE_CHECKING:
    from csi_driver.pools import ServedPool
    from csi_driver.store.base import Store

A = TypeVar("A", bound=Volume | Snapshot | GroupSnapshot)


class Due(enum.Enum):
    """Say what history allows next."""

    MAKE = enum.auto()  # after accepting, where that is not done
    CONFORM = enum.auto()
    DELETE = enum.auto()
    FORGET = enum.auto()  # such as a withdrawal that was cut between its mark and its end
    NOTHING = enum.auto()


def due(record: Volume | Snapshot | GroupSnapshot) -> Due:
    """Return what is to be done with a record's bytes. Pure."""
    history, unwanted = record.status.history, record.spec.absent or record.deleting
    if history.gone or (unwanted and not history.accepted):
        return Due.FORGET if record.deleting else Due.NOTHING
    if unwanted:
        return Due.DELETE
    return Due.CONFORM if history.made else Due.MAKE


class Notes:
    """Write down what happened to a record's bytes. The caller holds the record's lock."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def accept(self, record: A, pool: ServedPool, sector_size: int = 0) -> A | None:
        """Take the offer before the first effect, or refuse it. The swap decides against a withdrawal."""
        offer, history = record.spec.offer, record.status.history
        if offer is None or (history.refused and history.refused.about == offer.number):
            return None
        try:
            pool.admit(record)
        except NoSpace as error:
            refused = Failure(offer.number, NoSpace.__name__, str(error))
            self.write(record, dataclasses.replace(history, refused=refused), wake=True)
            return None
        floor = record.spec.qos.floor if isinstance(record, Volume) else NO_FLOOR
        taken = dataclasses.replace(
            history, accepted=offer, size=record.spec.size, floor=floor, sector_size=sector_size
        )
        return self.write(record, taken)

    def end(self, record: Volume | Snapshot | GroupSnapshot, pool: ServedPool, error: StorageError) -> None:
        """Note that what was accepted has failed for good, and that no bytes are left."""
        self.write(record, dataclasses.replace(record.status.history, gone=failure(record, error)), wake=True)
        pool.settle(record.id, 0)

    def write(self, record: A, history: History, *, wake: bool = False) -> A:
        """Make history durable. `wake` whoever waits for it when no further step follows."""
        status: Any = dataclasses.replace(record.status, history=history)
        return self._store.put_status(dataclasses.replace(record, status=status), wake=wake)

    def observe(self, record: Volume | Snapshot | GroupSnapshot, **seen: Any) -> None:  # noqa: ANN401 - see with_seen
        """Note what was seen of the kernel."""
        change_status(self._store, type(record), record.id, lambda now: now.status.with_seen(**seen), durable=False)

    def failed(self, record: Volume | Snapshot | GroupSnapshot, error: StorageError) -> None:
        """Note why this generation can't be followed."""
        self.observe(record, error=failure(record, error))

    def forget(self, record: Volume | Snapshot | GroupSnapshot) -> None:
        """Remove a record that stands for no bytes. A power cut brings it back at worst, to be removed again."""
        with contextlib.suppress(Stale):
            self._store.remove(record, durable=False)


def failure(record: Volume | Snapshot | GroupSnapshot, error: StorageError) -> Failure:
    """Return an error as a record keeps it."""
    return Failure(record.generation, type(error).__name__, str(error))


def source_of(record: Volume | Snapshot) -> tuple[type[Volume | Snapshot], str] | None:
    """Return the kind and id of what a record's bytes are made from, None when they are new."""
    if isinstance(record, Snapshot):
        return Volume, record.spec.volume
    if record.spec.source is None:
        return None
    return (Snapshot if record.spec.source.kind == Snapshot.KIND else Volume), record.spec.source.id


def passport_of(record: Volume | Snapshot, formatted: str, group: GroupSnapshot | None = None) -> Passport:
    """Return what a record's bytes are to say of themselves, of which `formatted` is the file system."""
    source = source_of(record)
    volume = record if isinstance(record, Volume) else None
    return Passport(
        id=record.id,
        kind=record.KIND,
        name=record.spec.name,
        claim=volume.spec.claim if volume else "",
        thick=volume.spec.thick if volume else False,
        parent=source[1] if source else "",
        tier=volume.spec.qos.tier if volume else "",
        overrides=dict(volume.spec.qos.overrides) if volume else {},
        sector_size=record.status.history.sector_size,
        parameters=dict(record.spec.parameters),
        made=record.status.history.made or datetime.now(UTC).isoformat(),
        format_done=formatted,
        group=group.spec.name if group else "",
        group_size=len(group.spec.members) if group else 0,
    )
