"""The Node service: messages to the node's verbs and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_driver.errors import Invalid, NotFound
from csi_driver.rpc import convert, csi_pb2
from csi_driver.rpc.csi_pb2_grpc import NodeServicer
from csi_driver.rpc.intercept import deadline_of

if TYPE_CHECKING:
    from pathlib import Path

    import grpc

    from csi_driver.node.growing import Growing
    from csi_driver.node.publishing import Publishing
    from csi_driver.node.staging import Staging

Rpc = csi_pb2.NodeServiceCapability.RPC
CAPABILITIES = (
    Rpc.STAGE_UNSTAGE_VOLUME,
    Rpc.GET_VOLUME_STATS,
    Rpc.EXPAND_VOLUME,
    Rpc.VOLUME_CONDITION,
    Rpc.SINGLE_NODE_MULTI_WRITER,
)
Unit = csi_pb2.VolumeUsage


class Node(NodeServicer):
    """Serve the Node RPCs."""

    def __init__(
        self, staging: Staging, publishing: Publishing, growing: Growing, node_name: str, topology_key: str
    ) -> None:
        self._staging = staging
        self._publishing = publishing
        self._growing = growing
        self._name = node_name
        self._key = topology_key

    def NodeGetCapabilities(
        self, request: csi_pb2.NodeGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        """Say which RPCs are served."""
        response = csi_pb2.NodeGetCapabilitiesResponse()
        for capability in CAPABILITIES:
            response.capabilities.add().rpc.type = capability
        return response

    def NodeGetInfo(
        self, request: csi_pb2.NodeGetInfoRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetInfoResponse:
        """Say which node this is."""
        return csi_pb2.NodeGetInfoResponse(
            node_id=self._name, accessible_topology=csi_pb2.Topology(segments={self._key: self._name})
        )

    def NodeStageVolume(
        self, request: csi_pb2.NodeStageVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeStageVolumeResponse:
        """Bring a volume's device up, formatted, limited and mounted."""
        volume_id = convert.text(request.volume_id, "volume_id")
        staging = convert.path(request.staging_target_path, "staging_target_path")
        use = convert.use(_capability(request))
        self._staging.stage(volume_id, staging, use, deadline_of(context))
        return csi_pb2.NodeStageVolumeResponse()

    def NodeUnstageVolume(
        self, request: csi_pb2.NodeUnstageVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnstageVolumeResponse:
        """Take a volume's mount, limits and device away."""
        volume_id = convert.text(request.volume_id, "volume_id")
        staging = convert.path(request.staging_target_path, "staging_target_path")
        self._staging.unstage(volume_id, staging, deadline_of(context))
        return csi_pb2.NodeUnstageVolumeResponse()

    def NodePublishVolume(
        self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodePublishVolumeResponse:
        """Show a staged volume to a pod."""
        volume_id = convert.text(request.volume_id, "volume_id")
        target = convert.path(request.target_path, "target_path")
        use = convert.use(_capability(request), read_only=request.readonly)
        staging = convert.path(request.staging_target_path, "staging_target_path")
        self._publishing.publish(volume_id, staging, target, use)
        return csi_pb2.NodePublishVolumeResponse()

    def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Take a volume away from a pod."""
        volume_id = convert.text(request.volume_id, "volume_id")
        self._publishing.unpublish(volume_id, convert.path(request.target_path, "target_path"), deadline_of(context))
        return csi_pb2.NodeUnpublishVolumeResponse()

    def NodeGetVolumeStats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """Say how full a volume is, and whether it is well."""
        volume_id = convert.text(request.volume_id, "volume_id")
        stats = self._growing.stats(volume_id, _known_path(request.volume_path))
        response = csi_pb2.NodeGetVolumeStatsResponse()
        convert.fill_condition(response.volume_condition, stats.abnormal)
        if stats.usage is None:
            response.usage.add(unit=Unit.BYTES, total=stats.size)
            return response
        usage = stats.usage
        response.usage.add(
            unit=Unit.BYTES, total=usage.total_bytes, used=usage.used_bytes, available=usage.available_bytes
        )
        if usage.total_inodes:  # btrfs makes them as they are needed
            response.usage.add(
                unit=Unit.INODES, total=usage.total_inodes, used=usage.used_inodes, available=usage.available_inodes
            )
        return response

    def NodeExpandVolume(
        self, request: csi_pb2.NodeExpandVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeExpandVolumeResponse:
        """Grow a file system to its device."""
        volume_id = convert.text(request.volume_id, "volume_id")
        path = _known_path(request.volume_path)
        required = convert.size_range(request.capacity_range).required if request.HasField("capacity_range") else 0
        if request.HasField("volume_capability"):
            convert.use(request.volume_capability)
        grown = self._growing.expand(volume_id, path, required, deadline_of(context))
        return csi_pb2.NodeExpandVolumeResponse(capacity_bytes=grown)


def _capability(
    request: csi_pb2.NodeStageVolumeRequest | csi_pb2.NodePublishVolumeRequest,
) -> csi_pb2.VolumeCapability:
    if not request.HasField("volume_capability"):
        raise Invalid("volume_capability is missing")
    return request.volume_capability


def _known_path(value: str) -> Path:
    """Return a volume path. What can't be one is not found, as CSI wants it; only a missing one is invalid."""
    if not value:
        raise Invalid("volume_path is missing")
    try:
        return convert.path(value, "volume_path")
    except Invalid as error:
        raise NotFound(str(error)) from error
