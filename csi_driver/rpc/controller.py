"""The Controller service: messages to the controller's verbs and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.wrappers_pb2 import Int64Value

from csi_driver.controller.requests import SizeRange, VolumeRequest
from csi_driver.errors import Invalid, Unsupported
from csi_driver.node.uses import fs_type_for
from csi_driver.rpc import convert, csi_pb2
from csi_driver.rpc.csi_pb2_grpc import ControllerServicer
from csi_driver.rpc.intercept import deadline_of, one_line

if TYPE_CHECKING:
    import grpc

    from csi_driver.controller.snapshots import Snapshots
    from csi_driver.controller.volumes import Volumes

Rpc = csi_pb2.ControllerServiceCapability.RPC
CAPABILITIES = (
    Rpc.CREATE_DELETE_VOLUME,
    Rpc.LIST_VOLUMES,
    Rpc.GET_CAPACITY,
    Rpc.CREATE_DELETE_SNAPSHOT,
    Rpc.LIST_SNAPSHOTS,
    Rpc.GET_SNAPSHOT,
    Rpc.CLONE_VOLUME,
    Rpc.EXPAND_VOLUME,
    Rpc.VOLUME_CONDITION,
    Rpc.GET_VOLUME,
    Rpc.SINGLE_NODE_MULTI_WRITER,
    Rpc.MODIFY_VOLUME,
)


class Controller(ControllerServicer):
    """Serve the Controller RPCs. There is nothing to publish: volumes are used on the node that holds them."""

    def __init__(self, volumes: Volumes, snapshots: Snapshots, topology_key: str) -> None:
        self._volumes = volumes
        self._snapshots = snapshots
        self._key = topology_key

    def ControllerGetCapabilities(
        self, request: csi_pb2.ControllerGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Say which RPCs are served."""
        response = csi_pb2.ControllerGetCapabilitiesResponse()
        for capability in CAPABILITIES:
            response.capabilities.add().rpc.type = capability
        return response

    def CreateVolume(
        self, request: csi_pb2.CreateVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.CreateVolumeResponse:
        """Make a volume, empty or from a snapshot or volume."""
        name = convert.text(request.name, "name")
        uses = convert.uses(request.volume_capabilities)
        needs, field = request.accessibility_requirements, "accessibility_requirements"
        given = request.HasField
        record = self._volumes.create(
            VolumeRequest(
                name=name,
                size=convert.size_range(request.capacity_range) if given("capacity_range") else SizeRange(),
                parameters=convert.pairs(request.parameters, "parameters"),
                mutable=convert.pairs(request.mutable_parameters, "mutable_parameters"),
                source=convert.source(request.volume_content_source) if given("volume_content_source") else None,
                block=all(use.block for use in uses),
                fs_type=next((use.fs_type for use in uses if use.fs_type), ""),
                mount_flags=tuple(use.mount_flags for use in uses),
                nodes=frozenset(convert.nodes(needs.requisite, self._key, field)),
                preferred=convert.nodes(needs.preferred, self._key, field),
            ),
            deadline_of(context),
        )
        return csi_pb2.CreateVolumeResponse(volume=convert.volume(record, self._key))

    def DeleteVolume(
        self, request: csi_pb2.DeleteVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.DeleteVolumeResponse:
        """Delete a volume that nobody uses."""
        self._volumes.delete(convert.text(request.volume_id, "volume_id"), deadline_of(context))
        return csi_pb2.DeleteVolumeResponse()

    def ControllerPublishVolume(
        self, request: csi_pb2.ControllerPublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerPublishVolumeResponse:
        """Refuse: a volume is used where its bytes are."""
        raise Unsupported("ControllerPublishVolume is not served: volumes need no attaching; set attachRequired: false")

    def ControllerUnpublishVolume(
        self, request: csi_pb2.ControllerUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerUnpublishVolumeResponse:
        """Refuse: a volume is used where its bytes are."""
        raise Unsupported("ControllerUnpublishVolume is not served: volumes need no attaching")

    def ValidateVolumeCapabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Say whether a volume can be used so; if not, why."""
        volume_id = convert.text(request.volume_id, "volume_id")
        if not request.volume_capabilities:
            raise Invalid("volume_capabilities is missing")
        context_given = convert.pairs(request.volume_context, "volume_context")
        parameters = convert.pairs(request.parameters, "parameters")
        mutable = convert.pairs(request.mutable_parameters, "mutable_parameters")
        record = self._volumes.get(volume_id)
        try:
            for use in convert.uses(request.volume_capabilities):
                fs_type_for(record, use)
            self._volumes.check_parameters(record, parameters, mutable)
        except Invalid as error:
            return csi_pb2.ValidateVolumeCapabilitiesResponse(message=one_line(str(error)))
        response = csi_pb2.ValidateVolumeCapabilitiesResponse()
        response.confirmed.volume_capabilities.extend(request.volume_capabilities)
        response.confirmed.volume_context.update(context_given)
        response.confirmed.parameters.update(parameters)
        response.confirmed.mutable_parameters.update(mutable)
        return response

    def ListVolumes(
        self, request: csi_pb2.ListVolumesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ListVolumesResponse:
        """List volumes by id, a page at a time."""
        records, token = self._volumes.page(request.starting_token, _limit(request.max_entries))
        response = csi_pb2.ListVolumesResponse(next_token=token)
        for record, abnormal in zip(records, self._volumes.conditions(records), strict=True):
            entry = response.entries.add()
            convert.fill_volume(entry.volume, record, self._key)
            convert.fill_condition(entry.status.volume_condition, abnormal)
        return response

    def ControllerGetVolume(
        self, request: csi_pb2.ControllerGetVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetVolumeResponse:
        """Show one volume and its condition."""
        record = self._volumes.get(convert.text(request.volume_id, "volume_id"))
        response = csi_pb2.ControllerGetVolumeResponse(volume=convert.volume(record, self._key))
        convert.fill_condition(response.status.volume_condition, *self._volumes.conditions([record]))
        return response

    def GetCapacity(
        self, request: csi_pb2.GetCapacityRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetCapacityResponse:
        """Say how many bytes can still be promised for such volumes there."""
        uses = convert.uses(request.volume_capabilities) if request.volume_capabilities else []
        node = None
        if request.HasField("accessible_topology"):
            (node,) = convert.nodes([request.accessible_topology], self._key, "accessible_topology")
        parameters = convert.pairs(request.parameters, "parameters")
        fs_type = next((use.fs_type for use in uses if use.fs_type), "")
        block = bool(uses) and all(use.block for use in uses)
        left, largest, smallest = self._volumes.capacity(parameters, node, fs_type, block=block)
        return csi_pb2.GetCapacityResponse(
            available_capacity=left,
            maximum_volume_size=Int64Value(value=largest),
            minimum_volume_size=Int64Value(value=smallest),
        )

    def CreateSnapshot(
        self, request: csi_pb2.CreateSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.CreateSnapshotResponse:
        """Cut a volume."""
        name = convert.text(request.name, "name")
        volume_id = convert.text(request.source_volume_id, "source_volume_id")
        parameters = convert.pairs(request.parameters, "parameters")
        record = self._snapshots.create(name, volume_id, parameters, deadline_of(context))
        return csi_pb2.CreateSnapshotResponse(snapshot=convert.snapshot(record))

    def DeleteSnapshot(
        self, request: csi_pb2.DeleteSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.DeleteSnapshotResponse:
        """Delete a snapshot."""
        self._snapshots.delete(convert.text(request.snapshot_id, "snapshot_id"), deadline_of(context))
        return csi_pb2.DeleteSnapshotResponse()

    def ListSnapshots(
        self, request: csi_pb2.ListSnapshotsRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ListSnapshotsResponse:
        """List snapshots by id, a page at a time; of one volume, or one alone."""
        limit = _limit(request.max_entries)
        chosen = (
            convert.optional_text(request.snapshot_id, "snapshot_id"),
            convert.optional_text(request.source_volume_id, "source_volume_id"),
        )
        records, token = self._snapshots.page(request.starting_token, limit, *chosen)
        response = csi_pb2.ListSnapshotsResponse(next_token=token)
        for record in records:
            response.entries.add(snapshot=convert.snapshot(record))
        return response

    def GetSnapshot(
        self, request: csi_pb2.GetSnapshotRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetSnapshotResponse:
        """Show one snapshot."""
        record = self._snapshots.get(convert.text(request.snapshot_id, "snapshot_id"))
        return csi_pb2.GetSnapshotResponse(snapshot=convert.snapshot(record))

    def ControllerExpandVolume(
        self, request: csi_pb2.ControllerExpandVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerExpandVolumeResponse:
        """Grow a volume's bytes and device; the file system follows on the node."""
        volume_id = convert.text(request.volume_id, "volume_id")
        if not request.HasField("capacity_range"):
            raise Invalid("capacity_range is missing")
        size = convert.size_range(request.capacity_range)
        block = request.HasField("volume_capability") and convert.use(request.volume_capability).block
        record = self._volumes.expand(volume_id, size, deadline_of(context))
        return csi_pb2.ControllerExpandVolumeResponse(
            capacity_bytes=record.status.seen.size, node_expansion_required=not block
        )

    def ControllerModifyVolume(
        self, request: csi_pb2.ControllerModifyVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerModifyVolumeResponse:
        """Change a volume's I/O budget; answered when it is in force."""
        volume_id = convert.text(request.volume_id, "volume_id")
        mutable = convert.pairs(request.mutable_parameters, "mutable_parameters")
        self._volumes.modify(volume_id, mutable, deadline_of(context))
        return csi_pb2.ControllerModifyVolumeResponse()


def _limit(max_entries: int) -> int:
    if max_entries < 0:
        raise Invalid(f"max_entries: {max_entries} is negative")
    return max_entries
