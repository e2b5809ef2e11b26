"""The CSI calls that a provisioner, a resizer and a kubelet make, over the socket and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import grpc

from csi_driver.rpc import csi_pb2 as csi
from csi_driver.rpc import csi_pb2_grpc as stubs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

SECONDS = 60.0


class Client:
    """Call a CSI driver."""

    def __init__(self, socket: Path) -> None:
        # Without the authority, gRPC sends the socket's path as one, which servers may refuse.
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")])
        self._controller = stubs.ControllerStub(self._channel)
        self._node = stubs.NodeStub(self._channel)
        self._identity = stubs.IdentityStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def wait(self) -> None:
        """Wait until the driver answers."""
        self._identity.Probe(csi.ProbeRequest(), timeout=SECONDS, wait_for_ready=True)

    def create(self, name: str, size: int, parameters: Mapping[str, str], snapshot: str = "") -> str:
        """Create a volume, of a snapshot where one is given, and return its id."""
        request = csi.CreateVolumeRequest(
            name=name,
            capacity_range=csi.CapacityRange(required_bytes=size),
            volume_capabilities=[_capability()],
            parameters=dict(parameters),
        )
        if snapshot:
            request.volume_content_source.snapshot.snapshot_id = snapshot
        return self._controller.CreateVolume(request, timeout=SECONDS).volume.volume_id

    def size(self, volume_id: str) -> int:
        """Return the bytes that a volume was promised."""
        request = csi.ControllerGetVolumeRequest(volume_id=volume_id)
        return self._controller.ControllerGetVolume(request, timeout=SECONDS).volume.capacity_bytes

    def delete(self, volume_id: str) -> None:
        """Delete a volume."""
        self._controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume_id), timeout=SECONDS)

    def snapshot(self, name: str, volume_id: str) -> str:
        """Create a snapshot of a volume and return its id."""
        request = csi.CreateSnapshotRequest(name=name, source_volume_id=volume_id)
        return self._controller.CreateSnapshot(request, timeout=SECONDS).snapshot.snapshot_id

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot."""
        self._controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=snapshot_id), timeout=SECONDS)

    def stage(self, volume_id: str, path: Path) -> None:
        """Stage a volume at a path, which is made."""
        path.mkdir(parents=True, exist_ok=True)
        request = csi.NodeStageVolumeRequest(
            volume_id=volume_id, staging_target_path=str(path), volume_capability=_capability()
        )
        self._node.NodeStageVolume(request, timeout=SECONDS)

    def publish(self, volume_id: str, staged: Path, path: Path) -> None:
        """Publish a staged volume at the path that a pod would see."""
        path.parent.mkdir(parents=True, exist_ok=True)
        request = csi.NodePublishVolumeRequest(
            volume_id=volume_id,
            staging_target_path=str(staged),
            target_path=str(path),
            volume_capability=_capability(),
        )
        self._node.NodePublishVolume(request, timeout=SECONDS)

    def unpublish(self, volume_id: str, path: Path) -> None:
        """Take a volume away from where a pod sees it."""
        request = csi.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(path))
        self._node.NodeUnpublishVolume(request, timeout=SECONDS)

    def unstage(self, volume_id: str, path: Path) -> None:
        """Unstage a volume."""
        request = csi.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(path))
        self._node.NodeUnstageVolume(request, timeout=SECONDS)

    def modify(self, volume_id: str, mutable: Mapping[str, str]) -> None:
        """Change a volume's class parameters, and wait until they are in force."""
        request = csi.ControllerModifyVolumeRequest(volume_id=volume_id, mutable_parameters=dict(mutable))
        self._controller.ControllerModifyVolume(request, timeout=SECONDS)


def _capability() -> csi.VolumeCapability:
    return csi.VolumeCapability(
        mount=csi.VolumeCapability.MountVolume(),
        access_mode=csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
    )
