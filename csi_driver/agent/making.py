"""Volumes and snapshots, from accepted to made, grown, limited and deleted. Every step can be cut and done again."""

from __future__ import annotations

import contextlib
import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from csi_driver.backends.base import Found, Passport
from csi_driver.deadline import Deadline
from csi_driver.errors import (
    InUse,
    Invalid,
    Lost,
    NoSpace,
    NotFound,
    OutOfRange,
    StorageError,
    Unknown,
    Unready,
    Unsupported,
)
from csi_driver.records import Failure, History, Seen, Snapshot, Status, Volume
from csi_driver.store.base import Stale, change_status

if TYPE_CHECKING:
    from csi_driver.host.block import Device
    from csi_driver.limiting import Limiting
    from csi_driver.locks import Locks
    from csi_driver.pools import ServedPool
    from csi_driver.stack import Stack
    from csi_driver.store.base import Store

A = TypeVar("A", bound=Volume | Snapshot)

FINAL = (InUse, Invalid, NotFound, NoSpace, OutOfRange, Unsupported)
"""What no further try can cure: the bytes are undone and the record says why."""

WORK_SECONDS = 60.0
LET_GO_SECONDS = 1.0
"""How long a worker waits for a device that others have open. It comes again: a few such must not keep all workers."""


class Maker:
    """Take one step after another with the bytes of a record. The caller holds the record's lock."""

    def __init__(self, store: Store, stack: Stack, limiting: Limiting, locks: Locks) -> None:
        self._store = store
        self._stack = stack
        self._limiting = limiting
        self._locks = locks

    def advance(self, record: Volume | Snapshot, pool: ServedPool) -> None:
        """Bring the kernel to where the record wants it. Raises what prevents it; the next try goes on from there."""
        history = record.status.history
        if history.gone:
            if record.deleting:
                self._forget(record)
            return
        if record.spec.absent or record.deleting:
            if history.accepted:
                self._delete(record, pool)
            elif record.deleting:
                self._forget(record)  # a withdrawal that was cut between its mark and its end
            return
        if not history.accepted:
            accepted = self._accept(record, pool)
            if accepted is None:
                return
            record = accepted
        if not record.status.history.made:
            self._make(record, pool)
        elif isinstance(record, Volume):
            self._conform(record, pool)

    def _accept(self, record: A, pool: ServedPool) -> A | None:
        """Take the offer before the first effect, or refuse it. The swap decides against a withdrawal."""
        offer, history = record.spec.offer, record.status.history
        if offer is None or (history.refused and history.refused.about == offer.number):
            return None
        try:
            pool.ledger.admit(record.id, record.spec.size)
        except NoSpace as error:
            refused = Failure(offer.number, NoSpace.__name__, str(error))
            self._write(record, dataclasses.replace(history, refused=refused), wake=True)
            return None
        sector_size = record.spec.sector_size if isinstance(record, Volume) else self._sector_size(record)
        taken = dataclasses.replace(
            history, accepted=offer, size=record.spec.size, sector_size=sector_size or pool.backend.sector_size
        )
        return self._write(record, taken)

    def _make(self, record: Volume | Snapshot, pool: ServedPool) -> None:
        try:
            record, begun = self._bytes(record, pool)
        except FINAL as error:
            pool.backend.delete(record.id)
            gone = Failure(record.generation, type(error).__name__, str(error))
            self._write(record, dataclasses.replace(record.status.history, gone=gone), wake=True)
            pool.ledger.settle(record.id, 0)
            return
        found = pool.backend.find(record.id)
        if found is None or found.passport is None:
            raise Unready(f"{record.id} was made, but can't be read back")
        history = dataclasses.replace(
            record.status.history,
            made=found.passport.made,
            format_begun=begun,
            # The bytes know it: those of a lost record, and those of a copy, whose source may be formatted since.
            format_done=found.passport.format_done,
        )
        seen = Seen(generation=record.generation, size=found.size)
        self._store.put_status(dataclasses.replace(record, status=Status(history, seen)))

    def _bytes(self, record: A, pool: ServedPool) -> tuple[A, str]:
        """Make the bytes unless a cut try has made them; return the mkfs that was begun on them, at their source."""
        source = _source_of(record)
        if source is None:
            pool.backend.create(self._passport(record, ""), record.status.history.size)
            return record, ""
        kind, source_id = source
        with self._locks.hold(source_id, "a copy of", background=True):
            origin = self._store.get(kind, source_id)
            if origin is None or not origin.status.history.made or origin.status.history.condemned:
                raise NotFound(f"{kind.KIND} {source_id}, the source of {record.id}, is gone")
            past = origin.status.history
            if pool.backend.find(record.id) is None:
                if pool.backend.find(source_id) is None:
                    raise Lost(f"{kind.KIND} {source_id} is LOST: its bytes are not in pool {pool.spec.name}")
                if past.size > record.status.history.size:  # it has grown since a copy was asked for
                    pool.ledger.admit(record.id, past.size)
                    record = self._write(record, dataclasses.replace(record.status.history, size=past.size))
                passport = self._passport(record, past.format_done)
                size, frozen = record.status.history.size, self._stack.frozen(pool.backend, source_id)
                pool.backend.cut(source_id, passport, size, frozen)
            return record, "" if past.raw else past.format_begun

    def _conform(self, record: Volume, pool: ServedPool, in_use: InUse | None = None) -> None:
        """Look at a made volume, and grow and limit it as the record wants.

        Its limits hold whatever else can't be done: when the pool has no room for it to grow, which is raised in the
        end, and when it is in use though it is to go.
        """
        found = pool.backend.find(record.id)
        if found is None:
            lost = f"LOST: its bytes are not in pool {pool.spec.name} any more; restore the file, or delete the volume"
            self._observe(record, abnormal=lost)
            raise Lost(f"volume {record.id} is {lost}")
        full = None
        try:
            record = self._grow(record, found, pool)
        except NoSpace as error:
            full = error
        size = record.status.history.size
        self._amend_passport(record, found, pool)
        # Looked for also where no record says so: a call that was cut notes nothing.
        device = self._stack.device(pool.backend, record.id)
        limits = None
        if device is not None:
            self._stack.resize(pool.backend, record.id, size, Deadline(WORK_SECONDS))
            limits = self._limiting.apply(record, device)
        self._observe(
            record,
            generation=record.status.seen.generation if full else record.generation,
            size=size,
            limits=limits,
            device=str(device.path) if device else "",
            staged=self._staged(record, device),
            abnormal="",
            error=_failure(record, why) if (why := in_use or full) else None,
        )
        if full and not in_use:
            raise full

    def _grow(self, record: Volume, found: Found, pool: ServedPool) -> Volume:
        """Grow a volume's bytes to what is wanted, and return its record. Raises NoSpace."""
        history = record.status.history
        if found.size < history.size:  # a growth that was cut is ended first: a larger one may be refused
            pool.backend.expand(record.id, history.size)
        if record.spec.size > history.size:
            pool.ledger.admit(record.id, record.spec.size)
            record = self._write(record, dataclasses.replace(history, size=record.spec.size))
            pool.backend.expand(record.id, record.spec.size)
        return record

    def _amend_passport(self, record: Volume, found: Found, pool: ServedPool) -> None:
        """Let the bytes say what a later class made of the volume, so that `adopt` knows."""
        qos, passport = record.spec.qos, found.passport
        if passport is not None and (passport.tier, passport.overrides) != (qos.tier, qos.overrides):
            pool.backend.amend(record.id, dataclasses.replace(passport, tier=qos.tier, overrides=dict(qos.overrides)))

    def _staged(self, record: Volume, device: Device | None) -> str:
        """Return where a volume is staged; of a stage that was cut before it noted this, the kernel knows."""
        if device is None or record.status.seen.staged:
            return record.status.seen.staged if device else ""
        return next((str(mount.target) for mount in self._stack.mounts(device)), "")

    def _delete(self, record: Volume | Snapshot, pool: ServedPool) -> None:
        """Free the bytes, unless the kernel says that somebody uses them. Condemned comes first and is for good."""
        history = record.status.history
        if not history.condemned:
            try:
                self._stack.check_unused(pool.backend, record.id)
            except InUse as error:
                if isinstance(record, Volume) and history.made:
                    self._conform(record, pool, error)
                raise
            record = self._write(record, dataclasses.replace(history, condemned=True))
        self.let_go(record.id, pool)
        pool.backend.delete(record.id)
        self._forget(record)
        pool.ledger.settle(record.id, 0)

    def _forget(self, record: Volume | Snapshot) -> None:
        """Remove a record that stands for no bytes. A power cut brings it back at worst, to be removed again."""
        with contextlib.suppress(Stale):
            self._store.remove(record, durable=False)

    def let_go(self, record_id: str, pool: ServedPool) -> None:
        """Lift a volume's limits and take its devices down, in this order: a device's number is used again.

        It is condemned by now: who opened a device since is waited for, and can't take it back. Raises Unknown.
        """
        device = self._stack.device(pool.backend, record_id)
        if device is not None:
            self._limiting.lift(device)
        try:
            self._stack.down(pool.backend, record_id, Deadline(LET_GO_SECONDS))
        except InUse as error:
            raise Unknown(f"{record_id} is deleted when nobody has its device any more: {error}") from error

    def failed(self, record: Volume | Snapshot, error: StorageError) -> None:
        """Write into the record why this generation can't be followed."""
        self._observe(record, error=_failure(record, error))

    def _write(self, record: A, history: History, *, wake: bool = False) -> A:
        """Make history durable. `wake` whoever waits for it when no further step follows."""
        status = dataclasses.replace(record.status, history=history)
        return self._store.put_status(dataclasses.replace(record, status=status), wake=wake)

    def _observe(self, record: Volume | Snapshot, **seen: Any) -> None:  # noqa: ANN401 - see Status.with_seen
        change_status(self._store, type(record), record.id, lambda now: now.status.with_seen(**seen), durable=False)

    def _sector_size(self, snapshot: Snapshot) -> int:
        volume = self._store.get(Volume, snapshot.spec.volume)
        return volume.status.history.sector_size if volume else 0

    def _passport(self, record: Volume | Snapshot, formatted: str) -> Passport:
        source = _source_of(record)
        volume = record if isinstance(record, Volume) else None
        return Passport(
            id=record.id,
            kind=record.KIND,
            name=record.spec.name,
            claim=volume.spec.claim if volume else "",
            parent=source[1] if source else "",
            tier=volume.spec.qos.tier if volume else "",
            overrides=dict(volume.spec.qos.overrides) if volume else {},
            sector_size=record.status.history.sector_size,
            parameters=dict(record.spec.parameters),
            made=datetime.now(UTC).isoformat(),
            format_done=formatted,
        )


def _failure(record: Volume | Snapshot, error: StorageError) -> Failure:
    return Failure(record.generation, type(error).__name__, str(error))


def _source_of(record: Volume | Snapshot) -> tuple[type[Volume | Snapshot], str] | None:
    if isinstance(record, Snapshot):
        return Volume, record.spec.volume
    if record.spec.source is None:
        return None
    return (Snapshot if record.spec.source.kind == Snapshot.KIND else Volume), record.spec.source.id
