"""Make, one call after another, what a storm left: the state that it must have come to, had nobody been in a hurry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.records import Snapshot, Volume
from csi_driver.rpc import csi_pb2 as csi
from tests.storm import plan
from tests.storm.state import records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.serving import Server
    from tests.storm.state import Record

CALL_SECONDS = 30


class Serial:
    """Ask one server for one thing after another; whatever is refused fails the test."""

    def __init__(self, server: Server) -> None:
        self._client = server.client
        self._places = plan.Places(server.folder)
        self._places.make()

    def replay(self, survivors: Sequence[Record], published: Sequence[str]) -> None:
        """Make volumes and snapshots as they are in these records, published at the paths with these names.

        First what was made from something, with a source that lives only for it: it may be gone in the storm, or have
        another past by now.
        """
        copies = [record for record in survivors if record.spec.name in (*plan.SNAPSHOTS, *plan.CLONES)]
        plain = [record for record in survivors if record not in copies]
        for record in copies:
            self._with_source(record)
        for record in [*plain, *(copy for copy in copies if isinstance(copy, Volume))]:
            if record in plain:
                self._create(record.spec.name)
            self._bring_to(record)
        for where in published:
            name, _, which = where.partition("-")
            self._client.node.NodePublishVolume(self._places.publish(name, which), timeout=CALL_SECONDS)

    def _with_source(self, record: Record) -> None:
        """Make a copy, and its source before it, which goes again at once."""
        name = record.spec.name
        if isinstance(record, Snapshot):
            self._source_volume(record)
            self._client.controller.CreateSnapshot(plan.cut(name), timeout=CALL_SECONDS)
            self._delete_volume(plan.source_of(name))
            return
        source = plan.source_of(name)
        if source not in plan.SNAPSHOTS:
            self._create(source)
            self._create(name)
            self._delete_volume(source)
            return
        there = self._snapshot_is_there(source)
        if not there:
            self._create(plan.source_of(source))
            self._client.controller.CreateSnapshot(plan.cut(source), timeout=CALL_SECONDS)
            self._delete_volume(plan.source_of(source))
        self._create(name)
        if not there:
            request = csi.DeleteSnapshotRequest(snapshot_id=plan.snapshot_id(source))
            self._client.controller.DeleteSnapshot(request, timeout=CALL_SECONDS)

    def _source_volume(self, snapshot: Snapshot) -> None:
        """Make a snapshot's volume as it was at the cut."""
        name, history = plan.source_of(snapshot.spec.name), snapshot.status.history
        self._create(name)
        if history.size > plan.SIZE:
            self._client.controller.ControllerExpandVolume(plan.expand(name), timeout=CALL_SECONDS)
        if history.format_done:
            self._stage_once(name)

    def _snapshot_is_there(self, name: str) -> bool:
        answer = self._client.controller.ListSnapshots(
            csi.ListSnapshotsRequest(snapshot_id=plan.snapshot_id(name)), timeout=CALL_SECONDS
        )
        return len(answer.entries) == 1

    def _create(self, name: str) -> None:
        self._client.controller.CreateVolume(plan.create(name), timeout=CALL_SECONDS)

    def _delete_volume(self, name: str) -> None:
        request = csi.DeleteVolumeRequest(volume_id=plan.volume_id(name))
        self._client.controller.DeleteVolume(request, timeout=CALL_SECONDS)

    def _stage_once(self, name: str) -> None:
        self._client.node.NodeStageVolume(self._places.stage(name), timeout=CALL_SECONDS)
        self._client.node.NodeUnstageVolume(self._places.unstage(name), timeout=CALL_SECONDS)

    def _bring_to(self, record: Record) -> None:
        """Grow, modify, format and stage a volume as its record says."""
        name, history = record.spec.name, record.status.history
        assert isinstance(record, Volume)
        if history.size > plan.size(name):
            self._client.controller.ControllerExpandVolume(plan.expand(name), timeout=CALL_SECONDS)
        if record.spec.qos.overrides:
            request = csi.ControllerModifyVolumeRequest(
                volume_id=record.id, mutable_parameters=dict(record.spec.qos.overrides)
            )
            self._client.controller.ControllerModifyVolume(request, timeout=CALL_SECONDS)
        if record.status.seen.staged:
            self._client.node.NodeStageVolume(self._places.stage(name), timeout=CALL_SECONDS)
        elif history.format_done or history.raw:
            self._stage_once(name)


def published(server: Server) -> list[str]:
    """Return the names of the target paths at which something is mounted."""
    pods = server.folder / "pods"
    targets = (Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return sorted(target.parent.name for target in targets if target.is_relative_to(pods))


def take_down(server: Server) -> None:
    """Unpublish, unstage and delete all there is."""
    places, client = plan.Places(server.folder), server.client
    for where in published(server):
        name, _, which = where.partition("-")
        client.node.NodeUnpublishVolume(places.unpublish(name, which), timeout=CALL_SECONDS)
    for record in records(server):
        if isinstance(record, Volume):
            client.node.NodeUnstageVolume(places.unstage(record.spec.name), timeout=CALL_SECONDS)
            client.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=record.id), timeout=CALL_SECONDS)
        else:
            client.controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=record.id), timeout=CALL_SECONDS)
