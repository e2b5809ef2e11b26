"""What the operations are tried on: a driver that can be cut at any effect, and a machine that shows what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from csi_driver.host.mountinfo import Mount
    from qos.limits import DevNo
    from tests.killpoints.fuse import Point


@dataclass(frozen=True, slots=True)
class Cut:
    """Say how a cut operation went. `answered`: the caller was told that it is done. `died`: the point was reached."""

    answered: bool
    died: bool
    effects: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True, slots=True)
class Sight:
    """Hold all that there is, by ids of volumes and snapshots, seen from outside.

    volumes    those that are listed, with their size in bytes
    snapshots  those that are listed
    groups     group snapshots that are whole
    records    all records, also of what is half made or half deleted
    images     what stands in the pool, whole
    temporary  what stands there half made
    devices    volumes with a device, and with limits that the kernel shows, None where none are enforced here
    up         volumes whose own device, the uppermost, is there
    wanted     their limits as the records want them
    staged     volumes whose file system or device is at the staging path
    published  volumes that a pod sees
    told       volumes whose records say that they are up
    noted      volumes whose records say that they are staged
    strays     loop devices, mapped devices and mounts that belong to no volume
    promised   bytes that the records promise
    free       bytes that the pool says it can still promise
    """

    volumes: dict[str, int]
    snapshots: set[str]
    groups: set[str]
    records: set[str]
    images: set[str]
    temporary: set[str]
    devices: dict[str, str | None]
    up: set[str]
    wanted: dict[str, str]
    staged: set[str]
    published: set[str]
    told: set[str]
    noted: set[str]
    strays: set[str]
    promised: int
    free: int


@dataclass(frozen=True, slots=True)
class Mounted:
    """Hold which volumes are staged, which are published, and what else is mounted."""

    staged: set[str]
    published: set[str]
    strays: set[str]

    @classmethod
    def of(
        cls, mounts: Iterable[Mount], staging: dict[Path, str], targets: dict[Path, str], devices: dict[str, DevNo]
    ) -> Mounted:
        """Sort mounts by where volumes' devices have to be shown. A second mount at one place is a stray."""
        found = cls(set(), set(), set())
        for mount in mounts:
            volume_id = staging.get(mount.target) or targets.get(mount.target) or ""
            place = found.staged if mount.target in staging else found.published
            if devices.get(volume_id) == mount.dev and volume_id not in place:
                place.add(volume_id)
            else:
                found.strays.add(f"mount of {mount.source} at {mount.target}")
        return found


class Stand(Protocol):
    """Make calls as a sidecar or a kubelet would, cut them, and look. A call that is refused raises."""

    size: int
    """Of the volumes that it creates, in bytes."""

    def create(self, name: str, source: str = "", *, snapshot: bool = False) -> None:
        """Create a volume, from the volume or snapshot of a name if one is given."""

    def delete(self, name: str) -> None:
        """Delete a volume by the id that follows from its name."""

    def stage(self, name: str) -> None:
        """Stage a volume."""

    def unstage(self, name: str) -> None:
        """Unstage a volume."""

    def publish(self, name: str) -> None:
        """Publish a volume."""

    def unpublish(self, name: str) -> None:
        """Unpublish a volume."""

    def snapshot(self, name: str, volume: str) -> None:
        """Make a snapshot."""

    def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot by the id that follows from its name."""

    def group(self, name: str, *volumes: str) -> None:
        """Make a group snapshot."""

    def delete_group(self, name: str, *volumes: str) -> None:
        """Delete a group snapshot by the ids that follow from names."""

    def expand(self, name: str, size: int) -> None:
        """Grow a volume's bytes and device."""

    def expand_on_node(self, name: str, size: int) -> None:
        """Grow a published volume's file system."""

    def modify(self, name: str, iops: int) -> None:
        """Give a volume another limit."""

    def write(self, name: str, data: bytes) -> None:
        """Write a pod's data to a published volume, and flush them."""

    def read(self, name: str) -> bytes:
        """Return a pod's data, read from the disk, b"" when there are none."""

    def room(self, name: str) -> int:
        """Return the size of a published volume as its pod sees it, in bytes."""

    def volume_id(self, name: str) -> str:
        """Return the id of the volume of a name."""

    def snapshot_id(self, name: str) -> str:
        """Return the id of the snapshot of a name."""

    def group_id(self, name: str) -> str:
        """Return the id of the group snapshot of a name."""

    def member(self, group: str, volume: str) -> str:
        """Return the name of the snapshot that a group has of a volume."""

    def patiently(self, call: Callable[[], None]) -> None:
        """Call, and call again for as long as the answer is one after which sidecars go on asking."""

    def cut(self, call: Callable[[], None], point: Point | None) -> Cut:
        """Call once and have the driver die at a point; let it live, and count, with None. Returns when it is idle."""

    def restart(self) -> None:
        """Begin another life of the driver, which serves when this returns."""

    def recover(self, point: Point) -> bool:
        """Begin another life, and have it die at a point of what it does by itself, or when that is done.

        Return whether it reached the point.
        """

    def settle(self) -> None:
        """Wait until the driver has done all that it does by itself."""

    def look(self) -> Sight:
        """Look at what is there, when the driver has settled."""

    def limits(self) -> set[str | None]:
        """Return the limits on what is staged, also while no driver lives; None where none are enforced here."""

    def frozen(self) -> set[str]:
        """Return what is frozen or suspended, also while no driver lives."""
