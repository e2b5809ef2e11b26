"""Snapshots: read-only cuts of one volume, in the pool that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_driver.controller.lookup import check_shareable, find, page, there
from csi_driver.controller.offers import Offers
from csi_driver.errors import Busy, Conflict, Invalid, Unsupported, quoted
from csi_driver.groups import group_of
from csi_driver.ids import is_id, new_id
from csi_driver.parameters import FOREIGN_PREFIX
from csi_driver.records import Offer, Pool, Snapshot, SnapshotSpec, Volume
from csi_driver.store.base import Stale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_driver.controller.waiting import Liveness, Waiting
    from csi_driver.deadline import Deadline
    from csi_driver.store.base import Store


class Snapshots:
    """Serve the controller's verbs on snapshots."""

    def __init__(self, store: Store, waiting: Waiting, liveness: Liveness, scope: str) -> None:
        self._store = store
        self._offers = Offers(Snapshot, store, waiting, liveness)
        self._scope = scope

    def create(self, name: str, volume_id: str, given: Mapping[str, str], deadline: Deadline) -> Snapshot:
        """Return a finished cut of a volume. A repeated call finds its own, even when the volume is gone since."""
        check_parameters(given)
        if group := group_of(name):
            raise Invalid(f"name: {name!r} is that of a member of group snapshot {group}; choose another")
        record_id = new_id(self._scope, Snapshot.KIND, name)
        record = self._store.get(Snapshot, record_id)
        if record is not None and record.spec.volume != volume_id:
            raise Conflict(f"snapshot {name!r} exists as {record_id}, of volume {record.spec.volume}")
        if record is None:
            record = self._offer(record_id, name, find(self._store, Volume, volume_id), given)
        return self._offers.settle(record, list, deadline)

    def delete(self, snapshot_id: str, deadline: Deadline) -> None:
        """Delete a snapshot; fine when there is none. Volumes made from it live on. Raises Invalid for a member."""
        record = self._store.get(Snapshot, snapshot_id) if is_id(snapshot_id) else None
        if record is not None and record.spec.group:
            raise Invalid(
                f"snapshot_id: {snapshot_id} is a member of group snapshot {record.spec.group} and goes with it alone; "
                "call DeleteVolumeGroupSnapshot"
            )
        if record is not None:
            self._offers.delete(snapshot_id, deadline)

    def get(self, snapshot_id: str) -> Snapshot:
        """Return a finished snapshot. Raises NotFound."""
        return find(self._store, Snapshot, snapshot_id)

    def page(self, after: str, limit: int, snapshot_id: str = "", volume_id: str = "") -> tuple[list[Snapshot], str]:
        """Return up to `limit` snapshots (0: all) behind the token `after`, of one volume or with one id if given."""
        if snapshot_id:
            record = self._store.get(Snapshot, snapshot_id) if is_id(snapshot_id) else None
            matches = record is not None and there(record) and volume_id in {"", record.spec.volume}
            return ([record] if record is not None and matches else []), ""
        return page(self._store, Snapshot, after, limit, volume_id)

    def _offer(self, record_id: str, name: str, volume: Volume, given: Mapping[str, str]) -> Snapshot:
        check_shareable(volume)
        accepted = volume.status.history.accepted
        pool = self._store.get(Pool, accepted.pool) if accepted else None
        if pool is None or not pool.status.clones:
            where = pool.spec.name if pool else "of the volume"
            raise Unsupported(f"pool {where} can't copy by reference: give it a size, or a folder on XFS or btrfs")
        spec = SnapshotSpec(
            name=name,
            size=volume.status.history.size,
            volume=volume.id,
            offer=Offer(1, pool.spec.node, pool.id),
            parameters=dict(given),
        )
        try:
            # Whoever accepts it makes it durable too; before that nothing is promised.
            return self._store.create(Snapshot(record_id, spec), durable=False)
        except Stale:
            raise Busy(f"snapshot {name!r} is being made by another call; ask again") from None


def check_parameters(given: Mapping[str, str]) -> None:
    """Raise Invalid for parameters of a class that are not a sidecar's: there is nothing to choose."""
    for key in given:
        if not key.startswith(FOREIGN_PREFIX):
            raise Invalid(f"parameter {quoted(key)} is not known; a snapshot takes none")
