"""Volumes in every state behind a socket, for calls to be wrong about; what is below it is each stand's own."""

from __future__ import annotations

import abc
import os
from typing import TYPE_CHECKING, Any

import grpc

from csi_driver.groups import GroupSnapshot, member_name
from csi_driver.ids import new_id
from csi_driver.records import Snapshot, Volume
from csi_driver.rpc import csi_pb2 as csi
from tests.input.proto import METHODS, new, path_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from google.protobuf.message import Message

MIB = 1 << 20
SECONDS = 20
"""What a call may take. None waits here: an answer that comes later than a second or two means that one did."""
Capability = csi.VolumeCapability
WRITER = Capability.AccessMode(mode=Capability.AccessMode.SINGLE_NODE_WRITER)
MOUNT = Capability(mount=Capability.MountVolume(fs_type="ext4"), access_mode=WRITER)
BLOCK = Capability(block=Capability.BlockVolume(), access_mode=WRITER)
KEY = "csi.sluice.dev/node"
USED, IDLE, RAW, CUT, GROUP = "used", "idle", "raw", "cut", "group"
MEMBERS = (USED, IDLE)
"""The volumes that `group` is of."""


def ids_in(scope: str) -> dict[str, str]:
    """Return the ids of what a stand holds, by name."""
    ids = {name: new_id(scope, Volume.KIND, name) for name in (USED, IDLE, RAW)}
    group_id = new_id(scope, GroupSnapshot.KIND, GROUP)
    members = {f"{GROUP} {name}": new_id(scope, Snapshot.KIND, member_name(group_id, ids[name])) for name in MEMBERS}
    return {**ids, CUT: new_id(scope, Snapshot.KIND, CUT), GROUP: group_id, **members}


class Stand(abc.ABC):
    """Hold a channel to a server. `used` is published, `idle` nowhere, `raw` staged as a device.

    `cut` is of `used`, `group` of `used` and `idle`.
    """

    def __init__(self, folder: Path, socket: Path, scope: str, node: str) -> None:
        self.folder = folder
        self.socket = socket
        self.ids = ids_in(scope)
        self.node = node
        self.channel = grpc.insecure_channel(f"unix:{socket}", [("grpc.default_authority", "localhost")])
        self.furnished: list[str] = []

    @abc.abstractmethod
    def state(self) -> list[str]:
        """Return all that a call could have made or changed: records, images, devices, mounts, limits, files."""

    @abc.abstractmethod
    def shown(self) -> Iterable[tuple[str, str]]:
        """Return every mount of a volume: its id, and where."""

    @abc.abstractmethod
    def made(self) -> tuple[set[str], dict[str, str]]:
        """Return the ids of all volumes, and of all snapshots with those of their groups."""

    def ask(self, method: str, request: Message | bytes, seconds: float = SECONDS) -> tuple[str, str]:
        """Make a call; return the code's name and the words with which it was refused."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        many: grpc.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(path_of(METHODS[method]))
        try:
            if METHODS[method].server_streaming:
                list(many(data, timeout=seconds))
            else:
                self.answer(method, data, seconds)
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def answer(self, method: str, data: bytes, seconds: float = SECONDS) -> Any:  # noqa: ANN401 - any message
        """Make a call and return its answer. Raises RpcError."""
        one: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(path_of(METHODS[method]))
        answer = new(METHODS[method].output_type)
        answer.MergeFromString(one(data, timeout=seconds))
        return answer

    def must(self, method: str, request: Message) -> None:
        """Make a call that is right."""
        answered = self.ask(method, request)
        assert answered == ("OK", ""), answered

    def staging(self, name: str) -> str:
        """Return where a volume is staged."""
        return str(self.folder / "staging" / name)

    def target(self, name: str) -> str:
        """Return where a volume is published."""
        return str(self.folder / "pods" / name)

    def wrong_paths(self) -> list[str]:
        """Return paths below our folder that no call should get far with, and make what they name."""
        folder = self.folder / "wrong"
        folder.mkdir(exist_ok=True)
        (folder / "file").touch()
        (folder / "folder").mkdir(exist_ok=True)
        if not (folder / "fifo").exists():
            os.mkfifo(folder / "fifo")
        for name, points in {"link": "folder", "loop": "loop", "dangling": "nowhere"}.items():
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(points)
        names = ["file", "file/in", "fifo", "link", "link/in", "loop", "loop/in", "dangling", "dangling/in", "no/way"]
        names += ["folder/../folder", "x" * 256, "x" * 255, "/".join(["x" * 200] * 20)]
        names += ["a\nb", "\x1b[31m", " ", "é\u2028"]
        inside = [f"{self.staging(USED)}/in", f"{self.staging(USED)}/", f"/{self.staging(USED)}", self.staging("")]
        return [f"{folder}/{name}" for name in names] + inside

    def furnish(self) -> None:
        """Make what calls may name, and bring it into its state; what is there already stays."""
        (self.folder / "pods").mkdir(exist_ok=True)
        for name, capability in ((USED, MOUNT), (IDLE, MOUNT), (RAW, BLOCK)):
            size = csi.CapacityRange(required_bytes=64 * MIB)
            asked = csi.CreateVolumeRequest(name=name, capacity_range=size, volume_capabilities=[capability])
            self.must("CreateVolume", asked)
            (self.folder / "staging" / name).mkdir(parents=True, exist_ok=True)
            if name != IDLE:
                stage = csi.NodeStageVolumeRequest(volume_id=self.ids[name], staging_target_path=self.staging(name))
                stage.volume_capability.CopyFrom(capability)
                self.must("NodeStageVolume", stage)
        publish = csi.NodePublishVolumeRequest(
            volume_id=self.ids[USED], staging_target_path=self.staging(USED), target_path=self.target(USED)
        )
        publish.volume_capability.CopyFrom(MOUNT)
        self.must("NodePublishVolume", publish)
        self.must("CreateSnapshot", csi.CreateSnapshotRequest(name=CUT, source_volume_id=self.ids[USED]))
        members = [self.ids[name] for name in MEMBERS]
        self.must(
            "CreateVolumeGroupSnapshot", csi.CreateVolumeGroupSnapshotRequest(name=GROUP, source_volume_ids=members)
        )
        self.wrong_paths()
        self.furnished = self.state()

    def restore(self) -> None:
        """Bring everything back to how it was furnished, by the shortest way."""
        ours = set(self.ids.values())
        volumes, snapshots = self.made()
        for volume_id in volumes - ours:
            self.ask("DeleteVolume", csi.DeleteVolumeRequest(volume_id=volume_id))
        self._delete({snapshot_id: group for snapshot_id, group in snapshots.items() if snapshot_id not in ours})
        if self.state() != self.furnished:
            self.clear()
            self.furnish()

    def clear(self) -> None:
        """Take everything down."""
        for volume_id, target in self.shown():
            self.must("NodeUnpublishVolume", csi.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=target))
        volumes, snapshots = self.made()
        for volume_id in volumes:
            unstage = csi.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=self.staging("nowhere"))
            self.must("NodeUnstageVolume", unstage)
            self.must("DeleteVolume", csi.DeleteVolumeRequest(volume_id=volume_id))
        self._delete(snapshots)
        assert self.made() == (set(), {})

    def _delete(self, snapshots: dict[str, str]) -> None:
        """Delete snapshots, those of groups with their groups."""
        for snapshot_id in (snapshot_id for snapshot_id, group in snapshots.items() if not group):
            self.must("DeleteSnapshot", csi.DeleteSnapshotRequest(snapshot_id=snapshot_id))
        for group_id in set(snapshots.values()) - {""}:
            members = [snapshot_id for snapshot_id, group in snapshots.items() if group == group_id]
            asked = csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group_id, snapshot_ids=members)
            self.must("DeleteVolumeGroupSnapshot", asked)


def changed(capability: csi.VolumeCapability, **fields: Message) -> csi.VolumeCapability:
    """Return a capability with other parts."""
    made = csi.VolumeCapability()
    made.CopyFrom(capability)
    for name, value in fields.items():
        getattr(made, name).CopyFrom(value)
    return made
