"""The objects that all callers of a storm are at, and the calls about them. Ids follow from names, so all know them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from csi_driver.config import DRIVER_NAME
from csi_driver.ids import new_id
from csi_driver.records import Snapshot, Volume
from csi_driver.rpc import csi_pb2 as csi

MIB = 1 << 20
SCOPE = f"local/{DRIVER_NAME}"
SIZE, GROWN = 16 * MIB, 24 * MIB
CAP_SYS_RESOURCE = 24
EXT4_GROWS = bool(
    int(re.findall(r"CapEff:\s+(\w+)", Path("/proc/self/status").read_text())[0], 16) >> CAP_SYS_RESOURCE & 1
)
"""Whether a mounted ext4 can grow on this machine: the kernel wants a capability that some containers lack."""

MOUNTED = tuple(f"v{number}" for number in range(8))
RAW = ("r0", "r1")
SNAPSHOTS = tuple(f"s{number}" for number in range(6))
CLONES = tuple(f"c{number}" for number in range(6))
VOLUMES = (*MOUNTED, *RAW, *CLONES)
TARGETS = ("one", "two")

Mode = csi.VolumeCapability.AccessMode


def volume_id(name: str) -> str:
    """Return a volume's id."""
    return new_id(SCOPE, Volume.KIND, name)


def snapshot_id(name: str) -> str:
    """Return a snapshot's id."""
    return new_id(SCOPE, Snapshot.KIND, name)


def source_of(name: str) -> str:
    """Return the name of what a snapshot or a clone is made from: half of the clones come from snapshots."""
    number = int(name[1:])
    return f"s{number}" if name in CLONES and number % 2 else f"v{number}"


def size(name: str) -> int:
    """Return the size that a volume is made with: a clone is larger than its source if its file system can follow."""
    return GROWN if name in CLONES and EXT4_GROWS else SIZE


def grown(name: str) -> int:
    """Return the size that a volume is expanded to."""
    return GROWN if name in RAW or EXT4_GROWS else SIZE


def capability(name: str) -> csi.VolumeCapability:
    """Return how a volume is used."""
    mode = Mode(mode=Mode.SINGLE_NODE_WRITER)
    if name in RAW:
        return csi.VolumeCapability(block=csi.VolumeCapability.BlockVolume(), access_mode=mode)
    return csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume(fs_type="ext4"), access_mode=mode)


def create(name: str) -> csi.CreateVolumeRequest:
    """Return the call that makes a volume, empty or from its source."""
    request = csi.CreateVolumeRequest(
        name=name,
        capacity_range=csi.CapacityRange(required_bytes=size(name)),
        volume_capabilities=[capability(name)],
    )
    if name in CLONES:
        source = source_of(name)
        if source in SNAPSHOTS:
            request.volume_content_source.snapshot.snapshot_id = snapshot_id(source)
        else:
            request.volume_content_source.volume.volume_id = volume_id(source)
    return request


def cut(name: str) -> csi.CreateSnapshotRequest:
    """Return the call that makes a snapshot."""
    return csi.CreateSnapshotRequest(name=name, source_volume_id=volume_id(source_of(name)))


def expand(name: str) -> csi.ControllerExpandVolumeRequest:
    """Return the call that grows a volume."""
    return csi.ControllerExpandVolumeRequest(
        volume_id=volume_id(name),
        capacity_range=csi.CapacityRange(required_bytes=grown(name)),
        volume_capability=capability(name),
    )


@dataclass(frozen=True, slots=True)
class Places:
    """Say where volumes are staged and published, below a server's folder."""

    folder: Path

    def staging(self, name: str) -> Path:
        """Return the staging path of a volume."""
        return self.folder / "staging" / name

    def target(self, name: str, which: str) -> Path:
        """Return one of the target paths of a volume."""
        return self.folder / "pods" / f"{name}-{which}" / "volume"

    def make(self) -> None:
        """Make the folders that a kubelet would make."""
        for name in VOLUMES:
            self.staging(name).mkdir(parents=True, exist_ok=True)
            for which in TARGETS:
                self.target(name, which).parent.mkdir(parents=True, exist_ok=True)

    def stage(self, name: str) -> csi.NodeStageVolumeRequest:
        """Return the call that stages a volume."""
        return csi.NodeStageVolumeRequest(
            volume_id=volume_id(name),
            staging_target_path=str(self.staging(name)),
            volume_capability=capability(name),
        )

    def unstage(self, name: str) -> csi.NodeUnstageVolumeRequest:
        """Return the call that unstages a volume."""
        return csi.NodeUnstageVolumeRequest(volume_id=volume_id(name), staging_target_path=str(self.staging(name)))

    def publish(self, name: str, which: str) -> csi.NodePublishVolumeRequest:
        """Return the call that publishes a volume at one of its targets."""
        return csi.NodePublishVolumeRequest(
            volume_id=volume_id(name),
            staging_target_path=str(self.staging(name)),
            target_path=str(self.target(name, which)),
            volume_capability=capability(name),
        )

    def unpublish(self, name: str, which: str) -> csi.NodeUnpublishVolumeRequest:
        """Return the call that takes a volume from one of its targets."""
        return csi.NodeUnpublishVolumeRequest(volume_id=volume_id(name), target_path=str(self.target(name, which)))
