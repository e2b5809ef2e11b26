"""A volume and a snapshot, as what a kubelet and a provisioner ask of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.rpc import csi_pb2 as csi
from qos.limits import DevNo

if TYPE_CHECKING:
    from tests.serving import Server

CALL_SECONDS = 60
Mode = csi.VolumeCapability.AccessMode


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of a node's."""

    node: Server
    id: str

    def delete(self) -> None:
        """Delete it."""
        request = csi.DeleteSnapshotRequest(snapshot_id=self.id)
        self.node.client.controller.DeleteSnapshot(request, timeout=CALL_SECONDS)


@dataclass(frozen=True, slots=True)
class Group:
    """A group snapshot of a node's, with its members by the volumes that they are cuts of."""

    node: Server
    id: str
    members: dict[str, Snapshot]

    def delete(self) -> None:
        """Delete it and all its members."""
        ids = [member.id for member in self.members.values()]
        request = csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=self.id, snapshot_ids=ids)
        self.node.client.groups.DeleteVolumeGroupSnapshot(request, timeout=CALL_SECONDS)


class Volume:
    """A volume of a node's, with a staging path and one target path, as one pod would have it."""

    def __init__(self, node: Server, name: str, volume_id: str, *, block: bool, fs_type: str) -> None:
        self.node = node
        self.id = volume_id
        self.block = block
        self.fs_type = fs_type
        self.staging = node.folder / "staging" / name
        self.target = node.folder / "pods" / name / "volume"

    @staticmethod
    def capability(*, block: bool, fs_type: str) -> csi.VolumeCapability:
        """Return how it is used."""
        mode = Mode(mode=Mode.SINGLE_NODE_WRITER)
        if block:
            return csi.VolumeCapability(block=csi.VolumeCapability.BlockVolume(), access_mode=mode)
        return csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume(fs_type=fs_type), access_mode=mode)

    @property
    def file(self) -> Path:
        """Return a file in the volume, or its device, as a pod sees it."""
        return self.target if self.block else self.target / "file"

    @property
    def device(self) -> Path:
        """Return the volume's device."""
        names = Path("/sys/block").glob("dm-*/dm/name")
        return next(
            Path("/dev") / name.parent.parent.name for name in names if name.read_text().strip() == f"sluice-{self.id}"
        )

    @property
    def number(self) -> DevNo:
        """Return the device's number."""
        status = self.device.stat()
        return DevNo(os.major(status.st_rdev), os.minor(status.st_rdev))

    @property
    def suspended(self) -> bool:
        """Return whether the device holds all I/O back."""
        return (Path("/sys/block") / self.device.name / "dm/suspended").read_text().strip() == "1"

    def staged_as(self, *, block: bool) -> Volume:
        """Return the same volume, used in another way."""
        return Volume(self.node, self.staging.name, self.id, block=block, fs_type=self.fs_type)

    def stage(self) -> None:
        """Stage it."""
        self.staging.mkdir(parents=True, exist_ok=True)
        request = csi.NodeStageVolumeRequest(
            volume_id=self.id,
            staging_target_path=str(self.staging),
            volume_capability=self.capability(block=self.block, fs_type=self.fs_type),
        )
        self.node.client.node.NodeStageVolume(request, timeout=CALL_SECONDS)

    def publish(self) -> None:
        """Publish it."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        request = csi.NodePublishVolumeRequest(
            volume_id=self.id,
            staging_target_path=str(self.staging),
            target_path=str(self.target),
            volume_capability=self.capability(block=self.block, fs_type=self.fs_type),
        )
        self.node.client.node.NodePublishVolume(request, timeout=CALL_SECONDS)

    def up(self) -> Volume:
        """Stage and publish it."""
        self.stage()
        self.publish()
        return self

    def unpublish(self) -> None:
        """Take it away from its pod."""
        request = csi.NodeUnpublishVolumeRequest(volume_id=self.id, target_path=str(self.target))
        self.node.client.node.NodeUnpublishVolume(request, timeout=CALL_SECONDS)

    def unstage(self) -> None:
        """Unstage it."""
        request = csi.NodeUnstageVolumeRequest(volume_id=self.id, staging_target_path=str(self.staging))
        self.node.client.node.NodeUnstageVolume(request, timeout=CALL_SECONDS)

    def down(self) -> None:
        """Unpublish and unstage it."""
        self.unpublish()
        self.unstage()

    def delete(self) -> None:
        """Delete it."""
        self.node.client.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=self.id), timeout=CALL_SECONDS)

    def modify(self, **parameters: str) -> None:
        """Change its limits."""
        request = csi.ControllerModifyVolumeRequest(volume_id=self.id, mutable_parameters=parameters)
        self.node.client.controller.ControllerModifyVolume(request, timeout=CALL_SECONDS)

    def expand(self, size: int) -> bool:
        """Grow its bytes and its device; return whether the node has to grow the file system."""
        request = csi.ControllerExpandVolumeRequest(
            volume_id=self.id, capacity_range=csi.CapacityRange(required_bytes=size)
        )
        answer = self.node.client.controller.ControllerExpandVolume(request, timeout=CALL_SECONDS)
        assert answer.capacity_bytes == size
        return answer.node_expansion_required

    def expand_on_node(self, size: int) -> None:
        """Grow its file system."""
        request = csi.NodeExpandVolumeRequest(
            volume_id=self.id, volume_path=str(self.target), capacity_range=csi.CapacityRange(required_bytes=size)
        )
        answer = self.node.client.node.NodeExpandVolume(request, timeout=CALL_SECONDS)
        assert answer.capacity_bytes == size

    def condition(self) -> str:
        """Return what the controller says is wrong with it, "" for nothing."""
        request = csi.ControllerGetVolumeRequest(volume_id=self.id)
        seen = self.node.client.controller.ControllerGetVolume(request, timeout=CALL_SECONDS).status.volume_condition
        return seen.message if seen.abnormal else ""

    def condition_on_node(self) -> str:
        """Return what the node says is wrong with it where it is published, "" for nothing."""
        request = csi.NodeGetVolumeStatsRequest(volume_id=self.id, volume_path=str(self.target))
        seen = self.node.client.node.NodeGetVolumeStats(request, timeout=CALL_SECONDS).volume_condition
        return seen.message if seen.abnormal else ""

    def fill(self, size: int) -> None:
        """Write so many bytes, so that no later write has to allocate; not in a pod, so no limit holds it back."""
        data = os.urandom(1 << 20) * 4
        with open(self.file, "r+b" if self.block else "wb", buffering=0) as file:  # noqa: PTH123 - unbuffered
            file.writelines(data for _ in range(size // len(data)))
            os.fsync(file.fileno())
