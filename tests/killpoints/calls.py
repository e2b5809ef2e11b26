"""The calls of a sidecar and a kubelet on the socket of a server, by names instead of ids."""

from __future__ import annotations

import itertools
import os
import struct
from typing import TYPE_CHECKING

import grpc

from csi_driver.config import DRIVER_NAME
from csi_driver.deadline import Deadline, wait_for
from csi_driver.rpc import csi_pb2 as csi
from tests.killpoints.names import Names
from tests.killpoints.outcomes import IOPS, RAW, SIZES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.killpoints.killable import Killable

SCOPE = f"local/{DRIVER_NAME}"
CALL_SECONDS = 60.0
PATIENCE_SECONDS = 60.0
GOES_ON = {grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
"""The codes after which a sidecar takes it that something may be in progress, and asks again."""
HEADER = struct.Struct("=Q")
"""What stands before the data on a bare device: their length."""
Mode = csi.VolumeCapability.AccessMode


class Calls(Names):
    """Make calls to a server, and be the pod of its volumes."""

    scope = SCOPE

    def __init__(self, server: Killable, fs_type: str) -> None:
        self.server = server
        self._fs_type = fs_type
        self.size = SIZES[fs_type]

    def staging(self, name: str) -> Path:
        """Return a volume's staging path, which kubelet makes."""
        path = self.server.folder / "staging" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def target(self, name: str) -> Path:
        """Return a volume's target path, whose parent kubelet makes."""
        path = self.server.folder / "pods" / name / "volume"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def create(self, name: str, source: str = "", *, snapshot: bool = False) -> None:
        """Create a volume, from the volume or snapshot of a name if one is given."""
        request = csi.CreateVolumeRequest(
            name=name,
            capacity_range=csi.CapacityRange(required_bytes=self.size),
            volume_capabilities=[self._capability()],
            parameters={"tier": "standard"},
            mutable_parameters={"readIOPS": str(IOPS)},
        )
        if source and snapshot:
            request.volume_content_source.snapshot.snapshot_id = self.snapshot_id(source)
        elif source:
            request.volume_content_source.volume.volume_id = self.volume_id(source)
        answer = self.server.client.controller.CreateVolume(request, timeout=CALL_SECONDS)
        assert (answer.volume.volume_id, answer.volume.capacity_bytes) == (self.volume_id(name), self.size)

    def delete(self, name: str) -> None:
        """Delete a volume by the id that follows from its name."""
        request = csi.DeleteVolumeRequest(volume_id=self.volume_id(name))
        self.server.client.controller.DeleteVolume(request, timeout=CALL_SECONDS)

    def stage(self, name: str) -> None:
        """Stage a volume."""
        request = csi.NodeStageVolumeRequest(
            volume_id=self.volume_id(name),
            staging_target_path=str(self.staging(name)),
            volume_capability=self._capability(),
        )
        self.server.client.node.NodeStageVolume(request, timeout=CALL_SECONDS)

    def unstage(self, name: str) -> None:
        """Unstage a volume."""
        request = csi.NodeUnstageVolumeRequest(
            volume_id=self.volume_id(name), staging_target_path=str(self.staging(name))
        )
        self.server.client.node.NodeUnstageVolume(request, timeout=CALL_SECONDS)

    def publish(self, name: str) -> None:
        """Publish a volume."""
        request = csi.NodePublishVolumeRequest(
            volume_id=self.volume_id(name),
            staging_target_path=str(self.staging(name)),
            target_path=str(self.target(name)),
            volume_capability=self._capability(),
        )
        self.server.client.node.NodePublishVolume(request, timeout=CALL_SECONDS)

    def unpublish(self, name: str) -> None:
        """Unpublish a volume."""
        request = csi.NodeUnpublishVolumeRequest(volume_id=self.volume_id(name), target_path=str(self.target(name)))
        self.server.client.node.NodeUnpublishVolume(request, timeout=CALL_SECONDS)
        assert not self.target(name).exists()

    def snapshot(self, name: str, volume: str) -> None:
        """Make a snapshot."""
        request = csi.CreateSnapshotRequest(name=name, source_volume_id=self.volume_id(volume))
        answer = self.server.client.controller.CreateSnapshot(request, timeout=CALL_SECONDS)
        assert answer.snapshot.ready_to_use

    def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot by the id that follows from its name."""
        request = csi.DeleteSnapshotRequest(snapshot_id=self.snapshot_id(name))
        self.server.client.controller.DeleteSnapshot(request, timeout=CALL_SECONDS)

    def group(self, name: str, *volumes: str) -> None:
        """Make a group snapshot."""
        ids = [self.volume_id(volume) for volume in volumes]
        request = csi.CreateVolumeGroupSnapshotRequest(name=name, source_volume_ids=ids)
        group = self.server.client.groups.CreateVolumeGroupSnapshot(request, timeout=CALL_SECONDS).group_snapshot
        assert (group.ready_to_use, len(group.snapshots)) == (True, len(volumes))

    def delete_group(self, name: str, *volumes: str) -> None:
        """Delete a group snapshot by the ids that follow from names."""
        members = [self.snapshot_id(self.member(name, volume)) for volume in volumes]
        request = csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=self.group_id(name), snapshot_ids=members)
        self.server.client.groups.DeleteVolumeGroupSnapshot(request, timeout=CALL_SECONDS)

    def expand(self, name: str, size: int) -> None:
        """Grow a volume's bytes and device."""
        request = csi.ControllerExpandVolumeRequest(
            volume_id=self.volume_id(name), capacity_range=csi.CapacityRange(required_bytes=size)
        )
        answer = self.server.client.controller.ControllerExpandVolume(request, timeout=CALL_SECONDS)
        assert (answer.capacity_bytes, answer.node_expansion_required) == (size, True)

    def expand_on_node(self, name: str, size: int) -> None:
        """Grow a published volume's file system."""
        request = csi.NodeExpandVolumeRequest(
            volume_id=self.volume_id(name),
            volume_path=str(self.target(name)),
            capacity_range=csi.CapacityRange(required_bytes=size),
        )
        answer = self.server.client.node.NodeExpandVolume(request, timeout=CALL_SECONDS)
        assert answer.capacity_bytes == size

    def modify(self, name: str, iops: int) -> None:
        """Give a volume another limit."""
        request = csi.ControllerModifyVolumeRequest(
            volume_id=self.volume_id(name), mutable_parameters={"readIOPS": str(iops)}
        )
        self.server.client.controller.ControllerModifyVolume(request, timeout=CALL_SECONDS)

    def write(self, name: str, data: bytes) -> None:
        """Write a pod's data to a published volume, and flush them."""
        raw = self._fs_type == RAW
        with (self.target(name) if raw else self.target(name) / "file").open("r+b" if raw else "wb") as file:
            file.write(HEADER.pack(len(data)) + data if raw else data)
            file.flush()
            os.fsync(file.fileno())

    def read(self, name: str) -> bytes:
        """Return a pod's data, read from the disk, b"" when there are none."""
        if self._fs_type == RAW:
            with self.target(name).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                return file.read(*HEADER.unpack(file.read(HEADER.size)))
        path = self.target(name) / "file"
        if not path.exists():
            assert {entry.name for entry in path.parent.iterdir()} <= {"lost+found"}
            return b""
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return file.read()

    def room(self, name: str) -> int:
        """Return the size of a published volume as its pod sees it, in bytes."""
        if self._fs_type == RAW:
            with self.target(name).open("rb") as file:
                return file.seek(0, os.SEEK_END)
        told = os.statvfs(self.target(name))
        return told.f_blocks * told.f_frsize

    def patiently(self, call: Callable[[], None]) -> None:
        """Call, and call again for as long as the answer is one after which sidecars go on asking."""
        tries = itertools.count()
        last: list[str] = []

        def done() -> bool:
            next(tries)
            try:
                call()
            except grpc.RpcError as error:
                if error.code() not in GOES_ON or self.server.ended():
                    raise
                last[:] = [f"{error.code()}: {error.details()}"]
                return False
            return True

        wait_for(f"it was done; the last answer was {last}", done, Deadline(PATIENCE_SECONDS))

    def _capability(self) -> csi.VolumeCapability:
        mode = Mode(mode=Mode.SINGLE_NODE_WRITER)
        if self._fs_type == RAW:
            return csi.VolumeCapability(block=csi.VolumeCapability.BlockVolume(), access_mode=mode)
        mount = csi.VolumeCapability.MountVolume(fs_type=self._fs_type)
        return csi.VolumeCapability(mount=mount, access_mode=mode)
