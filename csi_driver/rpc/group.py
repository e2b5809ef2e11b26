"""The GroupController service: messages to the verbs on group snapshots and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_driver.rpc import convert, csi_pb2
from csi_driver.rpc.csi_pb2_grpc import GroupControllerServicer
from csi_driver.rpc.intercept import deadline_of

if TYPE_CHECKING:
    import grpc

    from csi_driver.controller.groups import Groups

Rpc = csi_pb2.GroupControllerServiceCapability.RPC


class Group(GroupControllerServicer):
    """Serve the GroupController RPCs."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    def GroupControllerGetCapabilities(
        self, request: csi_pb2.GroupControllerGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GroupControllerGetCapabilitiesResponse:
        """Say which RPCs are served."""
        response = csi_pb2.GroupControllerGetCapabilitiesResponse()
        response.capabilities.add().rpc.type = Rpc.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
        return response

    def CreateVolumeGroupSnapshot(
        self, request: csi_pb2.CreateVolumeGroupSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.CreateVolumeGroupSnapshotResponse:
        """Cut several volumes at one instant."""
        name = convert.text(request.name, "name")
        volume_ids = convert.texts(request.source_volume_ids, "source_volume_ids")
        parameters = convert.pairs(request.parameters, "parameters")
        group, members = self._groups.create(name, volume_ids, parameters, deadline_of(context))
        return csi_pb2.CreateVolumeGroupSnapshotResponse(group_snapshot=convert.group(group, members))

    def DeleteVolumeGroupSnapshot(
        self, request: csi_pb2.DeleteVolumeGroupSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.DeleteVolumeGroupSnapshotResponse:
        """Delete a group and all its members."""
        group_id = convert.text(request.group_snapshot_id, "group_snapshot_id")
        snapshot_ids = convert.texts(request.snapshot_ids, "snapshot_ids")
        self._groups.delete(group_id, snapshot_ids, deadline_of(context))
        return csi_pb2.DeleteVolumeGroupSnapshotResponse()

    def GetVolumeGroupSnapshot(
        self, request: csi_pb2.GetVolumeGroupSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetVolumeGroupSnapshotResponse:
        """Show a group and its members."""
        group_id = convert.text(request.group_snapshot_id, "group_snapshot_id")
        group, members = self._groups.get(group_id, convert.texts(request.snapshot_ids, "snapshot_ids"))
        return csi_pb2.GetVolumeGroupSnapshotResponse(group_snapshot=convert.group(group, members))
