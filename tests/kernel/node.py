"""A machine that serves volumes: its pool on the data disk, its server, and short words for the CSI calls."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc

from csi_driver.assemble import DATABASE
from csi_driver.groups import GroupSnapshot
from csi_driver.records import Snapshot as SnapshotRecord
from csi_driver.records import Volume as Record
from csi_driver.rpc import csi_pb2 as csi
from csi_driver.store.sqlite import SqliteStore
from qos.limits import DevNo
from tests.kernel.volume import CALL_SECONDS, Group, Snapshot, Volume
from tests.serving import PREFIX, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

METRICS = "127.0.0.1:9809"
MIB = 1 << 20


def run(*argv: str | Path, status: int = 0) -> str:
    """Run a program to its end and return what it said; another status than the expected one is the test's failure."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == status, f"{argv} ended with status {done.returncode}: {said}"
    return said


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Return the code and the words with which a call is refused."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError(f"it was not refused: {answer}")


class Node(Server):
    """A server with limits in force and its pool, state and mounts in a folder that is an XFS on the data disk."""

    def __init__(
        self, *flags: str, qos: str = "enforce", folder: Path | None = None, disk: str = "", pool: str = "ratio=10"
    ) -> None:
        """Take flags for the server; a folder of a fixed name; and another device than the data disk."""
        folder = folder or Path(tempfile.mkdtemp(prefix=PREFIX, dir="/var/tmp"))
        super().__init__(f"--metrics={METRICS}", *flags, qos=qos, pool=pool, folder=folder)
        self.disk = disk or os.environ["SLUICE_DISK"]
        self.volumes: list[Volume] = []
        self.snapshots: list[Snapshot] = []
        self.groups: list[Group] = []

    def format(self) -> None:
        """Make the file system that all is on."""
        run("mkfs.xfs", "-q", "-f", self.disk)

    def mount(self) -> None:
        """Mount it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        run("mount", self.disk, self.folder)
        self.pool.mkdir(exist_ok=True)

    @property
    def running(self) -> bool:
        """Return whether the server was started and not ended by `stop`."""
        return self._process is not None

    def images(self) -> list[str]:
        """Return the image files in the pool: volumes and snapshots."""
        return sorted(path.name for folder in ("images", "new") for path in (self.pool / folder).glob("*"))

    def image(self, record_id: str) -> Path:
        """Return the image file of a volume or snapshot."""
        return self.pool / "images" / f"{record_id}.img"

    @contextlib.contextmanager
    def copied(self, volume: Volume) -> Iterator[Path]:
        """Give a copy of a volume's bytes as they lie there now, cut by a command that freezes nothing."""
        bare = self.pool / "bare"
        run("cp", "--reflink=always", self.image(volume.id), bare)
        try:
            yield bare
        finally:
            bare.unlink()

    def record(self, volume_id: str) -> Record:
        """Return a volume's record, as the state folder has it."""
        store = SqliteStore(self.folder / "state" / DATABASE)
        try:
            record = store.get(Record, volume_id)
        finally:
            store.close()
        assert record is not None
        return record

    def records(self) -> list[Record | SnapshotRecord]:
        """Return all records of volumes and snapshots, as the state folder has them."""
        store = SqliteStore(self.folder / "state" / DATABASE)
        try:
            return [*store.all(Record), *store.all(SnapshotRecord)]
        finally:
            store.close()

    def create(
        self,
        name: str,
        size: int = 64 * MIB,
        *,
        block: bool = False,
        fs_type: str = "ext4",
        source: Snapshot | None = None,
        tier: str = "standard",
        **parameters: str,
    ) -> Volume:
        """Create a volume."""
        request = csi.CreateVolumeRequest(
            name=name,
            capacity_range=csi.CapacityRange(required_bytes=size),
            volume_capabilities=[Volume.capability(block=block, fs_type=fs_type)],
            parameters={"tier": tier, **parameters},
        )
        if source is not None:
            request.volume_content_source.snapshot.snapshot_id = source.id
        answer = self.client.controller.CreateVolume(request, timeout=CALL_SECONDS)
        volume = Volume(self, name, answer.volume.volume_id, block=block, fs_type=fs_type)
        self.volumes.append(volume)
        return volume

    def up(self, name: str, size: int = 64 * MIB, **words: str) -> Volume:
        """Create, stage and publish a volume with a file system."""
        return self.create(name, size, **words).up()  # type: ignore[arg-type]

    def cut(self, volume: Volume, name: str) -> Snapshot:
        """Create a snapshot."""
        request = csi.CreateSnapshotRequest(name=name, source_volume_id=volume.id)
        answer = self.client.controller.CreateSnapshot(request, timeout=CALL_SECONDS)
        assert answer.snapshot.ready_to_use
        snapshot = Snapshot(self, answer.snapshot.snapshot_id)
        self.snapshots.append(snapshot)
        return snapshot

    def group(self, volumes: Sequence[Volume], name: str, seconds: float = CALL_SECONDS) -> Group:
        """Create a group snapshot."""
        request = csi.CreateVolumeGroupSnapshotRequest(name=name, source_volume_ids=[volume.id for volume in volumes])
        made = self.client.groups.CreateVolumeGroupSnapshot(request, timeout=seconds).group_snapshot
        assert made.ready_to_use
        members = {one.source_volume_id: Snapshot(self, one.snapshot_id) for one in made.snapshots}
        self.groups.append(Group(self, made.group_snapshot_id, members))
        return self.groups[-1]

    def group_record(self, group_id: str) -> GroupSnapshot:
        """Return a group's record, as the state folder has it."""
        store = SqliteStore(self.folder / "state" / DATABASE)
        try:
            record = store.get(GroupSnapshot, group_id)
        finally:
            store.close()
        assert record is not None
        return record

    def listed(self) -> dict[str, str]:
        """Return the volumes that are listed, with what is wrong with each."""
        answer = self.client.controller.ListVolumes(csi.ListVolumesRequest(), timeout=CALL_SECONDS)
        conditions = {each.volume.volume_id: each.status.volume_condition for each in answer.entries}
        return {volume_id: seen.message if seen.abnormal else "" for volume_id, seen in conditions.items()}

    def metric(self, name: str) -> float:
        """Return a metric without labels."""
        with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=CALL_SECONDS) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def take_down(self) -> None:
        """Unpublish, unstage and delete all that was made, starting the server if a test has ended it."""
        if not self.running:
            self.start()
        for volume in self.volumes:
            volume.down()
        for volume in self.volumes:
            volume.delete()
        for snapshot in self.snapshots:
            snapshot.delete()
        for group in self.groups:
            group.delete()
        self.volumes, self.snapshots, self.groups = [], [], []

    def clear(self) -> None:
        """Take everything down from the outside, as after a test that failed in the middle, and unmount the disk."""
        mounts = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((path for path in mounts if self.folder in path.parents), reverse=True):
            subprocess.run(["umount", mount], check=False)
        for volume in self.volumes:
            subprocess.run(["dmsetup", "remove", "--retry", f"sluice-{volume.id}"], check=False, capture_output=True)
        loops = Path("/sys/block").glob("loop*/loop/backing_file")
        for device in [path.parent.parent.name for path in loops if str(self.folder) in path.read_text()]:
            subprocess.run(["losetup", "--detach", f"/dev/{device}"], check=False)
        super().clear()

    def leftovers(self) -> list[str]:
        """Return what is left besides the mount of the data disk."""
        return [thing for thing in super().leftovers() if not thing.endswith(f" at {self.folder}")]

    def __enter__(self) -> Self:
        """Format, mount and start."""
        self.format()
        self.mount()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take down what was made as far as that goes, and then the rest."""
        if kind is None:
            self.take_down()
        else:
            with contextlib.suppress(Exception):
                self.take_down()
        super().__exit__(kind, error, trace)


def number_of(path: Path) -> DevNo:
    """Return the number of a device node."""
    status = path.stat()
    return DevNo(os.major(status.st_rdev), os.minor(status.st_rdev))
