"""Group snapshots: cuts of several volumes of one pool, all of one instant."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from csi_driver.controller.lookup import check_shareable, find, there
from csi_driver.controller.offers import Offers
from csi_driver.controller.snapshots import check_parameters
from csi_driver.errors import Busy, Conflict, Invalid, NotFound, Unready, Unsupported, quoted
from csi_driver.groups import GroupSnapshot, GroupSpec, Member, member_name
from csi_driver.ids import is_id, new_id
from csi_driver.records import Offer, Pool, Snapshot, Volume
from csi_driver.store.base import Stale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from csi_driver.controller.waiting import Liveness, Waiting
    from csi_driver.deadline import Deadline
    from csi_driver.store.base import Store

MOST_MEMBERS = 100
"""All of them are cut while all of them are held still, for which there are 9 seconds."""

Found = tuple[GroupSnapshot, list[Snapshot]]
"""A group and its members, in the order of their volumes' ids."""


class Groups:
    """Serve the controller's verbs on group snapshots."""

    def __init__(self, store: Store, waiting: Waiting, liveness: Liveness, scope: str) -> None:
        self._store = store
        self._waiting = waiting
        self._liveness = liveness
        self._offers = Offers(GroupSnapshot, store, waiting, liveness)
        self._scope = scope

    def create(self, name: str, volume_ids: Sequence[str], given: Mapping[str, str], deadline: Deadline) -> Found:
        """Return a finished group. A repeated call finds its own, even when volumes are gone since.

        Raises Conflict when the name stands for other volumes, Unsupported when these can't be cut together.
        """
        check_parameters(given)
        wanted = _checked(volume_ids)
        record_id = new_id(self._scope, GroupSnapshot.KIND, name)
        record = self._store.get(GroupSnapshot, record_id)
        if record is None:
            record = self._offer(record_id, name, wanted, given)
        elif (other := [member.volume for member in record.spec.members]) != wanted:
            raise Conflict(f"group snapshot {name!r} exists as {record_id}, of volumes {', '.join(other)}")
        elif record.spec.parameters != given:
            raise Conflict(f"group snapshot {name!r} exists as {record_id}, with other parameters")
        self._offers.settle(record, list, deadline)
        what = f"the members of group snapshot {record_id}"
        return self._with_members(self._waiting.until(GroupSnapshot, record_id, self._entered, deadline, what))

    def delete(self, group_id: str, snapshot_ids: Sequence[str], deadline: Deadline) -> None:
        """Delete a group with all its members; fine when there is none. Volumes made from them live on.

        Raises Invalid when the members are not those that the caller names.
        """
        record = self._store.get(GroupSnapshot, group_id) if is_id(group_id) else None
        if record is not None:
            _check_members(record, snapshot_ids)
            self._offers.delete(group_id, deadline)

    def get(self, group_id: str, snapshot_ids: Sequence[str]) -> Found:
        """Return a finished group. Raises NotFound, and Invalid when its members are not those that are named."""
        record = self._store.get(GroupSnapshot, group_id) if is_id(group_id) else None
        if record is None or not there(record):
            raise NotFound(f"group_snapshot_id: there is no group snapshot {quoted(group_id)}")
        _check_members(record, snapshot_ids)
        return self._with_members(record)

    def _entered(self, now: GroupSnapshot | None) -> GroupSnapshot | None:
        """Return a group whose members have their records. Raises Busy, Unready when it will not come to that now."""
        if now is None or now.spec.absent or now.status.history.condemned:
            raise Busy("the group snapshot is being deleted; ask again")
        if now.status.seen.generation:
            return now
        accepted = now.status.history.accepted
        if accepted and self._liveness.away(accepted.node):
            raise Unready(
                f"node {accepted.node} has cut group snapshot {now.id} and is away; waiting for it to come back"
            )
        return None

    def _with_members(self, group: GroupSnapshot) -> Found:
        members = [self._store.get(Snapshot, member.id) for member in group.spec.members]
        found = [member for member in members if member is not None and there(member)]
        if len(found) < len(members):
            raise Busy(f"group snapshot {group.id}: {len(found)} of {len(members)} members are there; ask again")
        return group, found

    def _offer(self, record_id: str, name: str, volume_ids: Sequence[str], given: Mapping[str, str]) -> GroupSnapshot:
        volumes = [find(self._store, Volume, volume_id) for volume_id in volume_ids]
        for volume in volumes:
            check_shareable(volume)
        pool = self._pool_of(volumes)
        names = [member_name(record_id, volume.id) for volume in volumes]
        spec = GroupSpec(
            name=name,
            size=sum(volume.status.history.size for volume in volumes),
            members=tuple(
                Member(new_id(self._scope, Snapshot.KIND, name), volume.id)
                for name, volume in zip(names, volumes, strict=True)
            ),
            offer=Offer(1, pool.spec.node, pool.id),
            parameters=dict(given),
        )
        try:
            # Whoever accepts it makes it durable too; before that nothing is promised.
            return self._store.create(GroupSnapshot(record_id, spec), durable=False)
        except Stale:
            raise Busy(f"group snapshot {name!r} is being made by another call; ask again") from None

    def _pool_of(self, volumes: Sequence[Volume]) -> Pool:
        """Return the pool that holds all of the volumes. Raises Unsupported."""
        accepted = {volume.id: volume.status.history.accepted for volume in volumes}
        pools = {place.pool: self._store.get(Pool, place.pool) for place in accepted.values() if place}
        if len(pools) > 1:
            names = {pool.id: f"{pool.spec.name} of node {pool.spec.node}" for pool in pools.values() if pool}
            where = [f"{volume_id} in {names.get(place.pool)}" for volume_id, place in accepted.items() if place]
            raise Unsupported(
                f"source_volume_ids: only volumes of one pool can be cut at one instant: {', '.join(where)}"
            )
        (pool,) = pools.values()
        if pool is None:
            raise Unready(f"the pool of volume {volumes[0].id} has no record; start its node's agent")
        if not pool.status.clones:
            raise Unsupported(
                f"source_volume_ids: pool {pool.spec.name} can't copy by reference: give it a size, or a folder on XFS"
            )
        return pool


def _checked(volume_ids: Sequence[str]) -> list[str]:
    """Return volumes in the order of their ids. Raises Invalid for none, for too many, and for one twice."""
    if not volume_ids:
        raise Invalid("source_volume_ids is missing")
    if len(volume_ids) > MOST_MEMBERS:
        raise Invalid(f"source_volume_ids: {len(volume_ids)} volumes are more than the {MOST_MEMBERS} of a group")
    ordered = sorted(volume_ids)
    for one, another in pairwise(ordered):
        if one == another:
            raise Invalid(f"source_volume_ids: {quoted(one)} is there twice")
    return ordered


def _check_members(group: GroupSnapshot, snapshot_ids: Sequence[str]) -> None:
    if not snapshot_ids:
        raise Invalid("snapshot_ids is missing")
    members = {member.id for member in group.spec.members}
    if missing := sorted(members.difference(snapshot_ids)):
        raise Invalid(f"snapshot_ids: group snapshot {group.id} has {', '.join(missing)} too; name all its members")
    if foreign := sorted(set(snapshot_ids) - members):
        raise Invalid(f"snapshot_ids: {quoted(foreign[0])} is no member of group snapshot {group.id}")
