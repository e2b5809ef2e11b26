"""Group snapshots: all members are cut at one instant, or none is. Every step can be cut and done again.

History is the group's own until all of its members are cut and durable. What a try has left before that is of another
moment than what the next try will cut, so it goes first.
"""

from __future__ import annotations

import contextlib
import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from csi_driver.agent.making import FINAL
from csi_driver.agent.noting import Due, Notes, due, passport_of
from csi_driver.errors import Conflict, Lost, NotFound, StorageError
from csi_driver.groups import GroupStatus, member_name
from csi_driver.records import History, Seen, Snapshot, SnapshotSpec, Status, Volume

if TYPE_CHECKING:
    from csi_driver.agent.making import Maker
    from csi_driver.groups import GroupHistory, GroupSnapshot, Member
    from csi_driver.locks import Locks
    from csi_driver.pools import ServedPool
    from csi_driver.stack import Stack
    from csi_driver.store.base import Store

log = structlog.get_logger(__name__)


class Grouper:
    """Take one step after another with the members of a group. The caller holds the group's lock."""

    def __init__(self, store: Store, stack: Stack, locks: Locks, maker: Maker) -> None:
        self._store = store
        self._stack = stack
        self._locks = locks
        self._maker = maker
        self._notes = Notes(store)

    def advance(self, group: GroupSnapshot, pool: ServedPool) -> None:
        """Bring the kernel to where the record wants it. Raises what prevents it; the next try goes on from there."""
        match due(group):
            case Due.MAKE:
                taken = group if group.status.history.accepted else self._accept(group, pool)
                if taken is not None and (made := self._make(taken, pool)) is not None:
                    self._enter(made)
            case Due.CONFORM:
                self._enter(group)
            case Due.DELETE:
                self._delete(group, pool)
            case Due.FORGET:
                self._notes.forget(group)

    def _accept(self, group: GroupSnapshot, pool: ServedPool) -> GroupSnapshot | None:
        """Take the offer, unless something has the id of a member: from here on what stands under it is the group's."""
        for member in group.spec.members:
            if self._store.get(Snapshot, member.id) is not None or pool.backend.find(member.id) is not None:
                history = dataclasses.replace(group.status.history, accepted=group.spec.offer)
                status = dataclasses.replace(group.status, history=history)
                error = Conflict(
                    f"group snapshot {group.spec.name!r}: there is a snapshot {member.id} of volume {member.volume} "
                    "from a group of this name already; delete it, or choose another name"
                )
                self._notes.end(dataclasses.replace(group, status=status), pool, error)
                return None
        return self._notes.accept(group, pool)

    def _make(self, group: GroupSnapshot, pool: ServedPool) -> GroupSnapshot | None:
        """Cut all members at once. None: that failed for good, and nothing is left of it."""
        with contextlib.ExitStack() as locks:
            for member in group.spec.members:  # in the order of their ids
                locks.enter_context(self._locks.hold(member.volume, "a group snapshot of", background=True))
            self._clear(group, pool)
            try:
                histories = [self._history(member, pool) for member in group.spec.members]
                group = self._admit(group, pool, sum(history.size for history in histories))
                done = self._cut(group, pool, histories)
            except FINAL as error:
                self._clear(group, pool)
                self._notes.end(group, pool, error)
                return None
            except StorageError:
                self._clear(group, pool)
                raise
            status = GroupStatus(done, Seen())  # what went wrong in earlier tries is over
            # Where this fails it may have landed all the same: the next try knows, and until then the cuts stay.
            return self._store.put_status(dataclasses.replace(group, status=status), wake=False)

    def _clear(self, group: GroupSnapshot, pool: ServedPool) -> None:
        """Free what a try that failed or was cut has left."""
        for member in group.spec.members:
            if pool.backend.find(member.id) is not None:
                pool.backend.delete(member.id)

    def _history(self, member: Member, pool: ServedPool) -> History:
        """Return what is so of a volume before the cut, and of its copy after it. Raises NotFound, Lost."""
        volume = self._store.get(Volume, member.volume)
        if volume is None or not volume.status.history.made or volume.status.history.condemned:
            raise NotFound(f"volume {member.volume}, of which {member.id} was to be a cut, is gone")
        if pool.backend.find(member.volume) is None:
            raise Lost(f"volume {member.volume} is LOST: its bytes are not in pool {pool.spec.name}")
        past = volume.status.history
        return History(
            accepted=past.accepted,
            size=past.size,
            sector_size=past.sector_size,
            format_begun="" if past.raw else past.format_begun,
            format_done=past.format_done,
        )

    def _admit(self, group: GroupSnapshot, pool: ServedPool, size: int) -> GroupSnapshot:
        """Have the ledger admit what volumes have grown by since the group was asked for. Raises NoSpace."""
        if size <= group.status.history.size:
            return group
        pool.ledger.admit(group.id, size)
        return self._notes.write(group, dataclasses.replace(group.status.history, size=size))

    def _cut(self, group: GroupSnapshot, pool: ServedPool, histories: list[History]) -> GroupHistory:
        """Hold all volumes still, cut them, let them go; and only then believe that it was one instant."""
        members = group.spec.members
        volumes = [member.volume for member in members]
        with pool.backend.alone(), self._stack.frozen(pool.backend, *volumes) as by:
            made = datetime.now(UTC).isoformat()
            cut = tuple(dataclasses.replace(history, made=made) for history in histories)
            for member, history in zip(members, cut, strict=True):
                snapshot = dataclasses.replace(_snapshot(group, member, history), status=Status(history))
                passport = passport_of(snapshot, history.format_done, group)
                pool.backend.cut(member.volume, passport, history.size, contextlib.nullcontext(by))
        held_ms = round(by.spent() * 1000) if by else 0
        log.info("group snapshot was cut", id=group.id, members=len(members), held_ms=held_ms)
        return dataclasses.replace(group.status.history, made=made, members=cut, held_ms=held_ms)

    def _enter(self, group: GroupSnapshot) -> None:
        """Give each member a record, unless a try that was cut has."""
        for member, history in zip(group.spec.members, group.status.history.members, strict=True):
            record = self._store.get(Snapshot, member.id)
            if record is None:
                record = self._store.create(_snapshot(group, member, history), durable=False)
            if not record.status.history.made:
                status = Status(history, Seen(record.generation, history.size, marked=history.format_done))
                self._store.put_status(dataclasses.replace(record, status=status))
        self._notes.observe(group, generation=group.generation, size=group.status.history.size, error=None)

    def _delete(self, group: GroupSnapshot, pool: ServedPool) -> None:
        """Delete all members. Condemned comes first and is for good."""
        if not group.status.history.condemned:
            group = self._notes.write(group, dataclasses.replace(group.status.history, condemned=True))
        for member in group.spec.members:
            with self._locks.hold(member.id, "the deletion of", background=True):
                record = self._store.get(Snapshot, member.id)
                if record is not None:
                    self._maker.delete(record, pool)
                else:
                    pool.backend.delete(member.id)
        self._notes.forget(group)
        pool.settle(group.id, 0)


def _snapshot(group: GroupSnapshot, member: Member, history: History) -> Snapshot:
    """Return the record of a member, as it is before anything is noted in it."""
    spec = SnapshotSpec(
        name=member_name(group.id, member.volume),
        size=history.size,
        volume=member.volume,
        parameters=group.spec.parameters,
        group=group.id,
    )
    return Snapshot(member.id, spec)
