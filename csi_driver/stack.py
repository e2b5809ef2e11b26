"""What stands between a pool's bytes and a staging path: the backend's device and the dm-linear on top of it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from csi_driver.errors import InUse, Unsupported
from csi_driver.host import block, facts
from csi_driver.host.block import dev_number
from csi_driver.host.btrfs import copies_mount
from csi_driver.host.filesystem import BTRFS
from csi_driver.host.freeze import Still
from csi_driver.host.refusals import as_unready

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from csi_driver.backends.base import Backend, Frozen
    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device
    from csi_driver.host.dm import DeviceMapper
    from csi_driver.host.freeze import Freezer
    from csi_driver.host.mounts import Mount, Mounts
    from csi_driver.host.syscalls import Kernel

PREFIX = "sluice-"


def dm_name(record_id: str) -> str:
    """Return the device-mapper name of a volume."""
    return PREFIX + record_id


class Stack:
    """Bring a volume's device up and down, and answer who uses it, from the kernel alone.

    Where there is no device-mapper, the backend's own device is the volume's device.
    """

    def __init__(self, mapper: DeviceMapper | None, mounts: Mounts, freezer: Freezer) -> None:
        self._mapper = mapper
        self._mounts = mounts
        self._freezer = freezer

    def up(self, backend: Backend, record_id: str, sector_size: int, size: int, deadline: Deadline) -> Device:
        """Return the volume's device, bringing up what isn't."""
        below = backend.attach(record_id, sector_size, deadline)
        if self._mapper is None:
            return below
        name = dm_name(record_id)
        info = self._mapper.info(name)
        if info is not None and info.below == below.dev and info.size_bytes != size:
            return self._mapper.reload_linear(name, below, size)
        return self._mapper.create_linear(name, f"SLUICE-{record_id}", below, size)

    def device(self, backend: Backend, record_id: str) -> Device | None:
        """Return the volume's device when it is up."""
        if self._mapper is None:
            return backend.attached(record_id)
        info = self._mapper.info(dm_name(record_id))
        return info.device if info else None

    def size(self, device: Device) -> int:
        """Return the bytes that a device has, by the kernel's word."""
        return block.size_bytes(device.dev)

    def set_read_ahead(self, kernel: Kernel, device: Device, kib: int) -> None:
        """Set a device's read-ahead in KiB."""
        with as_unready(f"read-ahead of {device.path}"):
            block.set_read_ahead(kernel, device.dev, kib)

    def keep_bytes(self, kernel: Kernel, device: Device) -> None:
        """See that nobody gives a thick volume's bytes back to its pool by discards.

        Not without device-mapper: a loop device would keep that for the next volume that gets it.
        """
        if self._mapper is not None:
            with as_unready(f"discards of {device.path}"):
                block.refuse_discards(kernel, device.dev)

    def resize(self, backend: Backend, record_id: str, size: int, deadline: Deadline) -> None:
        """Let the devices that are up have the new size of the bytes below."""
        below = backend.attached(record_id)
        if below is None:
            return
        backend.resize(record_id, deadline)
        info = self._mapper.info(dm_name(record_id)) if self._mapper else None
        if self._mapper is not None and info is not None and info.size_bytes != size:
            self._mapper.reload_linear(info.name, below, size)

    def down(self, backend: Backend, record_id: str, deadline: Deadline) -> bool:
        """Take the volume's devices down, also those that a cut call left. False: there were none."""
        changed = False
        if self._mapper is not None:
            changed = self._mapper.remove(dm_name(record_id), deadline)
        return backend.detach(record_id, deadline) or changed

    def check_unused(self, backend: Backend, record_id: str) -> None:
        """Raise InUse, naming the mounts or the number of openers, when somebody uses the volume."""
        device = self.device(backend, record_id)
        if device is None:
            return
        if mounts := self.mounts(device):
            where = ", ".join(str(mount.target) for mount in mounts)
            raise InUse(f"volume {record_id} is mounted at {where}; unpublish and unstage it first")
        info = self._mapper.info(dm_name(record_id)) if self._mapper else None
        if info is not None and info.open_count:
            raise InUse(f"volume {record_id}: {device.path} is open {info.open_count} times; stop who uses it first")

    def mounts(self, device: Device) -> tuple[Mount, ...]:
        """Return where the device's file system is mounted, and where its node is shown to a pod."""
        with as_unready(str(device.path)):
            folder = dev_number(device.path.stat().st_dev)
        found = self._mounts.of(device.dev, folder)
        return tuple(mount for mount in found if mount.dev == device.dev or mount.root == f"/{device.path.name}")

    def users(self, device: Device) -> frozenset[str]:
        """Return who has the device, by the paths where it is shown."""
        return users_at(mount.target for mount in self.mounts(device))

    def check_copies(self, fs_type: str) -> None:
        """Raise Unsupported where the kernel can't mount a file system of this type and its copy at once."""
        if fs_type == BTRFS and not copies_mount():
            raise Unsupported(
                f"kernel {facts.kernel_release()} can't mount a btrfs beside its copy, which has the same UUID: run "
                "Linux 6.7 or newer on this node, or use ext4 or xfs"
            )

    def frozen(self, backend: Backend, *record_ids: str) -> Frozen:
        """Hold back all writes to volumes, their file systems whole on the devices below, while the context lasts.

        Several are held in the order of the ids, and then all at once. Raises Unsupported for one of several that
        can't be: a raw volume in use where there is no device-mapper.
        """
        stills = [self._still(backend, record_id, alone=len(record_ids) == 1) for record_id in sorted(record_ids)]
        in_use = [still for still in stills if still is not None]
        return self._freezer.together(*in_use) if in_use else nullcontext()

    def _still(self, backend: Backend, record_id: str, *, alone: bool) -> Still | None:
        """Return by what a volume is held still, None when nobody writes to it, or nothing holds it."""
        device = self.device(backend, record_id)
        if device is None:
            return None
        mounts = [mount for mount in self.mounts(device) if mount.dev == device.dev]
        name = dm_name(record_id) if self._mapper else None
        if mounts:
            return Still(mounts[0].target, name, by_itself=mounts[0].fstype == BTRFS)
        if name is not None:
            return Still(None, name)
        if alone:
            return None
        raise Unsupported(
            f"volume {record_id} is in use as a raw device, which can't be held still together with others without "
            "device-mapper: load dm_mod, or unstage it first"
        )


def users_at(targets: Iterable[Path]) -> frozenset[str]:
    """Return who has a volume that is shown at these paths.

    The kubelet has a pod's uid in them: pods/UID/volumes/..., or publish/NAME/UID for a raw device. On a machine
    without, who publishes below a folder pods/NAME says so that NAME is the workload's cgroup.
    """
    return frozenset(user for target in targets if (user := _user_at(target.parts)))


def _user_at(parts: tuple[str, ...]) -> str:
    """Return the pod that a target path names, "" for a path of another form."""
    for folder, behind in (("pods", 1), ("publish", 2)):
        if folder in parts:
            return next(iter(parts[parts.index(folder) + behind :]), "")
    return ""
