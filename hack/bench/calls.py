"""One caller of a CSI driver: its own channel, messages made before the clock starts, answers read after it stops."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from csi_driver.errors import StorageError
from csi_driver.rpc import csi_pb2 as csi
from hack.bench.figures import LIFE

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 60.0
GIB = 1 << 30
CAP_SYS_RESOURCE = 24
OPTIONS = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
"""An authority, since a Unix path is none; a connection of its own for each channel, as sidecars have."""

METHODS = {
    method.name: f"/{service.full_name}/{method.name}"
    for service in csi.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
CAPABILITY = csi.VolumeCapability(
    mount=csi.VolumeCapability.MountVolume(fs_type="ext4"),
    access_mode=csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)
TIMED_LIFE = (
    "CreateVolume",
    "NodeStageVolume",
    "NodePublishVolume",
    "NodeGetVolumeStats",
    "NodeUnpublishVolume",
    "NodeUnstageVolume",
    "DeleteVolume",
)


UNCOUNTED = "-"
LONGEST = 300
"""Characters of a failure that are kept."""


class Failed(StorageError):
    """Say which call failed and how."""


class Caller:
    """Make calls one after the other, and keep how long each took."""

    def __init__(self, socket: Path, folder: Path, name: str, size: int = GIB) -> None:
        """Take the driver's socket, a folder for staging and target paths, and a name that no other caller has."""
        self._channel = grpc.insecure_channel(f"unix:{socket}", OPTIONS)
        # Bytes in, bytes out: what protobuf takes is no part of the driver's time.
        self._methods: dict[str, Callable[..., bytes]] = {
            rpc: self._channel.unary_unary(path) for rpc, path in METHODS.items()
        }
        self._name = name
        self._size = size
        self._count = 0
        self._staging, self.target = folder / name / "staging", folder / name / "target/mount"
        self._staging.mkdir(parents=True)
        self.target.parent.mkdir(parents=True)
        self.samples: defaultdict[str, list[float]] = defaultdict(list)
        self.failures: Counter[str] = Counter()

    def call(self, rpc: str, message: bytes, shown: str = "") -> bytes:
        """Make one call, count it under `shown` or its own name, and return the answer. Raises Failed."""
        method = self._methods[rpc]
        started = time.perf_counter()
        try:
            answer = method(message, timeout=SECONDS)
        except grpc.RpcError as error:
            said = f"{rpc}: {error.code().name}: {error.details()}"[:LONGEST]
            self.failures[said] += 1
            raise Failed(said) from error
        self.samples[shown or rpc].append((time.perf_counter() - started) * 1000)
        return answer

    def clear(self) -> None:
        """Forget what was measured."""
        self.samples.clear()
        self.failures.clear()

    def create(self, shown: str = "", snapshot: str = "") -> str:
        """Create a volume and return its id."""
        self._count += 1
        request = csi.CreateVolumeRequest(
            name=f"{self._name}-{self._count}",
            capacity_range=csi.CapacityRange(required_bytes=self._size),
            volume_capabilities=[CAPABILITY],
        )
        if snapshot:
            request.volume_content_source.snapshot.snapshot_id = snapshot
        answer = self.call("CreateVolume", request.SerializeToString(), shown)
        return csi.CreateVolumeResponse.FromString(answer).volume.volume_id or "none"

    def delete(self, volume_id: str, shown: str = "") -> None:
        """Delete a volume."""
        self.call("DeleteVolume", _delete(volume_id), shown)

    def publish(self, volume_id: str) -> None:
        """Stage a volume and publish it at `target`, uncounted."""
        for rpc, message in self._up(volume_id):
            self.call(rpc, message, UNCOUNTED)

    def take_down(self, volume_id: str) -> None:
        """Unpublish, unstage and delete a volume, uncounted."""
        for rpc, message in self._down(volume_id):
            self.call(rpc, message, UNCOUNTED)
        self.delete(volume_id, UNCOUNTED)

    def cut(self, volume_id: str) -> str:
        """Make a snapshot and return its id."""
        self._count += 1
        request = csi.CreateSnapshotRequest(source_volume_id=volume_id, name=f"{self._name}-cut-{self._count}")
        answer = self.call("CreateSnapshot", request.SerializeToString())
        return csi.CreateSnapshotResponse.FromString(answer).snapshot.snapshot_id or "none"

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot."""
        self.call("DeleteSnapshot", csi.DeleteSnapshotRequest(snapshot_id=snapshot_id).SerializeToString())

    def life(self) -> None:
        """Live one whole life: its seven calls, and their sum. A life that fails is cleared away and not counted."""
        volume_id = ""
        before = {rpc: len(self.samples[rpc]) for rpc in TIMED_LIFE}
        try:
            volume_id = self.create()
            for rpc, message in self.middle(volume_id):
                self.call(rpc, message)
            self.delete(volume_id)
        except Failed:
            self._clear_away(volume_id)
            self.samples.pop(UNCOUNTED, None)
            return
        self.samples[LIFE].append(sum(self.samples[rpc][before[rpc]] for rpc in TIMED_LIFE))

    def middle(self, volume_id: str) -> list[tuple[str, bytes]]:
        """Return the calls of a life between create and delete: their names and messages."""
        target = str(self.target)
        stats = csi.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=target)
        return [*self._up(volume_id), ("NodeGetVolumeStats", stats.SerializeToString()), *self._down(volume_id)]

    def _up(self, volume_id: str) -> list[tuple[str, bytes]]:
        staging, target = str(self._staging), str(self.target)
        stage = csi.NodeStageVolumeRequest(
            volume_id=volume_id, staging_target_path=staging, volume_capability=CAPABILITY
        )
        publish = csi.NodePublishVolumeRequest(
            volume_id=volume_id, staging_target_path=staging, target_path=target, volume_capability=CAPABILITY
        )
        return [("NodeStageVolume", stage.SerializeToString()), ("NodePublishVolume", publish.SerializeToString())]

    def _down(self, volume_id: str) -> list[tuple[str, bytes]]:
        unpublish = csi.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(self.target))
        unstage = csi.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(self._staging))
        return [
            ("NodeUnpublishVolume", unpublish.SerializeToString()),
            ("NodeUnstageVolume", unstage.SerializeToString()),
        ]

    def _clear_away(self, volume_id: str, restored: str = "", snapshot: str = "") -> None:
        """Go the way back, whatever of it is needed; what fails here failed before."""
        gone = csi.DeleteSnapshotRequest(snapshot_id=snapshot).SerializeToString()
        calls = self._down(volume_id) if volume_id else []
        calls += [("DeleteSnapshot", gone)] if snapshot else []
        calls += [("DeleteVolume", _delete(each)) for each in (restored, volume_id) if each]
        for rpc, message in calls:
            with contextlib.suppress(Failed):
                self.call(rpc, message, UNCOUNTED)

    def others(self) -> None:
        """Cut, restore, change and grow a published volume: the calls that a life doesn't have."""
        volume_id = restored = snapshot = ""
        with contextlib.suppress(Failed):
            volume_id = self.create(UNCOUNTED)
            self.publish(volume_id)
            snapshot = self.cut(volume_id)
            restored = self.create("CreateVolume (restore)", snapshot)
            for rpc, message in self._changes(volume_id):
                self.call(rpc, message)
            self.delete_snapshot(snapshot)
            snapshot = ""
        self._clear_away(volume_id, restored, snapshot)
        self.samples.pop(UNCOUNTED, None)

    def _changes(self, volume_id: str) -> list[tuple[str, bytes]]:
        larger = csi.CapacityRange(required_bytes=self._size * 2)
        change = csi.ControllerModifyVolumeRequest(volume_id=volume_id, mutable_parameters={"readIOPS": "5k"})
        grow = csi.ControllerExpandVolumeRequest(volume_id=volume_id, capacity_range=larger)
        follow = csi.NodeExpandVolumeRequest(
            volume_id=volume_id, volume_path=str(self.target), capacity_range=larger, volume_capability=CAPABILITY
        )
        calls = [
            ("ControllerModifyVolume", change.SerializeToString()),
            ("ControllerExpandVolume", grow.SerializeToString()),
        ]
        return calls + ([("NodeExpandVolume", follow.SerializeToString())] if may_grow() else [])

    def close(self) -> None:
        """Let the channel go."""
        self._channel.close()


@functools.cache
def may_grow() -> bool:
    """Return whether ext4 can grow while mounted: it takes CAP_SYS_RESOURCE, which root has not in every container."""
    status = Path("/proc/self/status").read_text()
    (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(mask >> CAP_SYS_RESOURCE & 1)


def _delete(volume_id: str) -> bytes:
    return csi.DeleteVolumeRequest(volume_id=volume_id).SerializeToString()
