"""Names of what operations work on, the ids that follow from them, and the records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_driver.groups import GroupSnapshot, member_name
from csi_driver.ids import new_id
from csi_driver.records import Snapshot, Volume

if TYPE_CHECKING:
    from collections.abc import Iterable

    from csi_driver.store.base import Store

Thing = Volume | Snapshot | GroupSnapshot


class Names:
    """Give names the ids that a driver gives them in its scope."""

    scope: str

    def volume_id(self, name: str) -> str:
        """Return the id of the volume of a name."""
        return new_id(self.scope, Volume.KIND, name)

    def snapshot_id(self, name: str) -> str:
        """Return the id of the snapshot of a name."""
        return new_id(self.scope, Snapshot.KIND, name)

    def group_id(self, name: str) -> str:
        """Return the id of the group snapshot of a name."""
        return new_id(self.scope, GroupSnapshot.KIND, name)

    def member(self, group: str, volume: str) -> str:
        """Return the name of the snapshot that a group has of a volume."""
        return member_name(self.group_id(group), self.volume_id(volume))


def all_things(store: Store) -> dict[str, Thing]:
    """Return the records of all volumes, snapshots and groups of a Store."""
    found: list[Thing] = [*store.all(Volume), *store.all(Snapshot), *store.all(GroupSnapshot)]
    return {record.id: record for record in found}


def promised(records: Iterable[Thing]) -> int:
    """Return the bytes that records promise. What a group promises is what its members have."""
    alone = (record for record in records if not (isinstance(record, Snapshot) and record.spec.group))
    return sum(record.status.history.size for record in alone)


def groups_made(records: Iterable[Thing]) -> set[str]:
    """Return the ids of the groups that are whole."""
    return {record.id for record in records if isinstance(record, GroupSnapshot) and record.status.seen.generation}
