"""Volumes and snapshots, from accepted to made, grown, limited and deleted. Every step can be cut and done again."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from csi_driver.agent.noting import Due, Notes, due, failure, passport_of, source_of
from csi_driver.deadline import Deadline
from csi_driver.errors import (
    Foreign,
    InUse,
    Invalid,
    Lost,
    NoSpace,
    NotFound,
    OutOfRange,
    Unknown,
    Unready,
    Unsupported,
)
from csi_driver.limiting import yielding
from csi_driver.records import Seen, Snapshot, Status, Volume

if TYPE_CHECKING:
    from csi_driver.backends.base import Found, Passport
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
        self._notes = Notes(store)
        self._stack = stack
        self._limiting = limiting
        self._locks = locks

    def advance(self, record: Volume | Snapshot, pool: ServedPool) -> None:
        """Bring the kernel to where the record wants it. Raises what prevents it; the next try goes on from there."""
        match due(record):
            case Due.MAKE:
                taken = record if record.status.history.accepted else self._accept(record, pool)
                if taken is not None:
                    self._make(taken, pool)
            case Due.CONFORM:
                if isinstance(record, Volume):
                    self._conform(record, pool)
            case Due.DELETE:
                self.delete(record, pool)
            case Due.FORGET:
                self._notes.forget(record)

    def _accept(self, record: A, pool: ServedPool) -> A | None:
        sector_size = record.spec.sector_size if isinstance(record, Volume) else self._sector_size(record)
        return self._notes.accept(record, pool, sector_size or pool.backend.sector_size)

    def _make(self, record: Volume | Snapshot, pool: ServedPool) -> None:
        try:
            record, begun, passport = self._bytes(record, pool)
        except FINAL as error:
            pool.backend.delete(record.id)
            self._notes.end(record, pool, error)
            return
        if passport is None:
            found = pool.backend.find(record.id)
            if found is None:
                raise Unready(f"{record.id} was made, but can't be read back")
            if found.passport is None or found.passport.id != record.id:
                raise Foreign(
                    f"pool {pool.spec.name}: what stands there as {record.id} has no passport of this driver's: it is "
                    "neither used nor removed; rename it, or remove it by hand"
                )
            passport = found.passport
        history = dataclasses.replace(
            record.status.history,
            made=passport.made,
            format_begun=begun,
            # The bytes know it: those of a lost record, and those of a copy, whose source may be formatted since.
            format_done=passport.format_done,
        )
        seen = Seen(generation=record.generation, size=history.size, marked=history.format_done)
        self._store.put_status(dataclasses.replace(record, status=Status(history, seen)))

    def _bytes(self, record: A, pool: ServedPool) -> tuple[A, str, Passport | None]:
        """Make the bytes unless a cut try has made them.

        Return the mkfs that was begun on them, at their source, and their passport where it needs no look at them.
        """
        source = source_of(record)
        if source is None:
            passport = passport_of(record, "")
            made = pool.backend.create(passport, record.status.history.size)
            return record, "", passport if made else None
        kind, source_id = source
        with self._locks.hold(source_id, "a copy of", background=True):
            origin = self._store.get(kind, source_id)
            if origin is None or not origin.status.history.made or origin.status.history.condemned:
                raise NotFound(f"{kind.KIND} {source_id}, the source of {record.id}, is gone")
            past = origin.status.history
            if isinstance(record, Volume):
                self._stack.check_copies(past.format_done)
            if not self._cut_before(record.id, pool):
                if pool.backend.find(source_id) is None:
                    raise Lost(f"{kind.KIND} {source_id} is LOST: its bytes are not in pool {pool.spec.name}")
                if past.size > record.status.history.size:  # it has grown since a copy was asked for
                    pool.ledger.admit(record.id, past.size)
                    record = self._notes.write(record, dataclasses.replace(record.status.history, size=past.size))
                passport = passport_of(record, past.format_done)
                size, frozen = record.status.history.size, self._stack.frozen(pool.backend, source_id)
                with pool.backend.alone():
                    pool.backend.cut(source_id, passport, size, frozen)
            return record, "" if past.raw else past.format_begun, None

    def _cut_before(self, record_id: str, pool: ServedPool) -> bool:
        """Return whether a try that was cut has made a copy that can be trusted; free one that can't.

        Its source may have gone on before it was copied, or it has not grown yet. No record has it as made, so nobody
        has seen it.
        """
        standing = pool.backend.find(record_id) is not None
        if standing and not pool.backend.cuts_are_whole:
            pool.backend.delete(record_id)
            return False
        return standing

    def _conform(self, record: Volume, pool: ServedPool, in_use: InUse | None = None) -> None:
        """Look at a made volume, and grow and limit it as the record wants.

        Its limits hold whatever else can't be done: when the pool has no room for it to grow, which is raised in the
        end, and when it is in use though it is to go.
        """
        found = pool.backend.find(record.id)
        if found is None:
            lost = f"LOST: its bytes are not in pool {pool.spec.name} any more; restore the file, or delete the volume"
            self._notes.observe(record, abnormal=lost)
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
        limits, emergency = None, pool.emergency if device else ""
        if device is not None:
            self._note_handed_out(record, device, pool)
            self._stack.resize(pool.backend, record.id, size, Deadline(WORK_SECONDS))
            limits = record.status.seen.limits
            if record.status.history.floor == record.spec.qos.floor:  # else all of the change is refused
                limits = self._limiting.apply(record, device, emergency)
            self._limiting.hold(record, pool.costs(), partial(self._stack.users, device))
        pool.floors.settle(record.id, pool.id, record.status.history.floor)
        self._notes.observe(
            record,
            generation=record.status.seen.generation if full else record.generation,
            size=size,
            limits=limits,
            device=str(device.path) if device else "",
            staged=self._staged(record, device),
            marked=record.status.history.format_done,
            abnormal=yielding(record, emergency),
            error=failure(record, why) if (why := in_use or full) else None,
        )
        if full and not in_use:
            raise full

    def _note_handed_out(self, record: Volume, device: Device, pool: ServedPool) -> None:
        """Note of an adopted volume that is up and not mounted that pods may have its device: no passport says so."""
        adopted = not record.status.seen.generation
        if adopted and not any(mount.dev == device.dev for mount in self._stack.mounts(device)):
            pool.backend.take(record.id)
            self._notes.write(record, dataclasses.replace(record.status.history, raw=True))

    def _grow(self, record: Volume, found: Found, pool: ServedPool) -> Volume:
        """Grow a volume's bytes and change its floor to what is wanted, and return its record. Raises NoSpace."""
        history = record.status.history
        if found.size < history.size:  # a growth that was cut is ended first: a larger one may be refused
            pool.backend.expand(record.id, history.size)
        if record.spec.size > history.size:
            pool.admit(record)
            if record.spec.thick:  # the pool may lack the bytes, or zero them for long: till then it is what it was
                pool.backend.expand(record.id, record.spec.size)
            wanted = record.spec.qos.floor
            record = self._notes.write(record, dataclasses.replace(history, size=record.spec.size, floor=wanted))
            pool.backend.expand(record.id, record.spec.size)
        elif record.spec.qos.floor != history.floor:
            pool.promise(record)
            record = self._notes.write(record, dataclasses.replace(history, floor=record.spec.qos.floor))
        return record

    def _amend_passport(self, record: Volume, found: Found, pool: ServedPool) -> None:
        """Let the bytes say what became of the volume since they were made, so that `adopt` knows."""
        qos, formatted, passport = record.spec.qos, record.status.history.format_done, found.passport
        if passport is None:
            return
        now = dataclasses.replace(passport, tier=qos.tier, overrides=dict(qos.overrides), format_done=formatted)
        if now != passport:
            pool.backend.amend(record.id, now)

    def _staged(self, record: Volume, device: Device | None) -> str:
        """Return where a volume is staged; of a stage that was cut before it noted this, the kernel knows."""
        if device is None or record.status.seen.staged:
            return record.status.seen.staged if device else ""
        return next((str(mount.target) for mount in self._stack.mounts(device)), "")

    def delete(self, record: Volume | Snapshot, pool: ServedPool) -> None:
        """Free the bytes, unless the kernel says that somebody uses them. Condemned comes first and is for good."""
        history = record.status.history
        if not history.condemned:
            try:
                self._stack.check_unused(pool.backend, record.id)
            except InUse as error:
                if isinstance(record, Volume) and history.made:
                    self._conform(record, pool, error)
                raise
            record = self._notes.write(record, dataclasses.replace(history, condemned=True))
        self.let_go(record.id, pool)
        pool.backend.delete(record.id)
        pool.settle(record.id, 0)  # first: whoever hears that it is gone may ask for what it had
        self._notes.forget(record)

    def let_go(self, record_id: str, pool: ServedPool) -> None:
        """Lift a volume's limits and take its devices down, in this order: a device's number is used again.

        It is condemned by now: who opened a device since is waited for, and can't take it back. Raises Unknown.
        """
        device = self._stack.device(pool.backend, record_id)
        if device is not None:
            self._limiting.lift(record_id, device)
        try:
            self._stack.down(pool.backend, record_id, Deadline(LET_GO_SECONDS))
        except InUse as error:
            raise Unknown(f"{record_id} is deleted when nobody has its device any more: {error}") from error

    def _sector_size(self, snapshot: Snapshot) -> int:
        volume = self._store.get(Volume, snapshot.spec.volume)
        return volume.status.history.sector_size if volume else 0
