"""Grow and measure volumes where they are staged or published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_driver.errors import OutOfRange
from csi_driver.host.filesystem import ext4_errors
from csi_driver.node.uses import Stats, known_id

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device
    from csi_driver.host.filesystem import Filesystems
    from csi_driver.host.mounts import Mount
    from csi_driver.limiting import Limiting
    from csi_driver.locks import Locks
    from csi_driver.node.staged import Staged


class Growing:
    """Answer NodeExpandVolume and NodeGetVolumeStats."""

    def __init__(self, staged: Staged, filesystems: Filesystems, limiting: Limiting, locks: Locks) -> None:
        self._staged = staged
        self._filesystems = filesystems
        self._limiting = limiting
        self._locks = locks

    def expand(self, volume_id: str, path: Path, required: int, deadline: Deadline) -> int:
        """Grow the file system at a path to its device, and return the device's size in bytes.

        A volume that is read-only wherever it is shown grows when it is staged to be written. Raises OutOfRange when
        the device has less than `required` bytes: it grows by ControllerExpandVolume.
        """
        with self._locks.hold(known_id(volume_id), "NodeExpandVolume of"):
            device, mount = self._staged.at(volume_id, path)
            size = self._staged.size(device)
            if size < required:
                raise OutOfRange(f"capacity_range: volume {volume_id} has {size} bytes, {required} are required")
            mounts = [each for each in self._staged.mounts(device) if each.dev == device.dev]
            writable = next((each.target for each in mounts if "ro" not in each.options), None)
            if mount.dev == device.dev and writable is not None:  # the path may be one that a pod only reads at
                prefix = self._limiting.helper_prefix
                self._filesystems.grow(device, mount.fstype, mounted=writable, deadline=deadline, prefix=prefix)
            return size

    def stats(self, volume_id: str, path: Path) -> Stats:
        """Measure a volume at a path where it is staged or published. Raises NotFound."""
        device, mount = self._staged.at(known_id(volume_id), path)
        usage = self._filesystems.usage(path) if mount.dev == device.dev else None
        return Stats(self._staged.size(device), usage, self._abnormal(volume_id, device, mount))

    def _abnormal(self, volume_id: str, device: Device, mount: Mount) -> str:
        """Return what is wrong with a volume in use, "" when nothing is."""
        record = self._staged.record(volume_id)
        if record is not None and record.status.seen.abnormal:
            return record.status.seen.abnormal
        if mount.dev != device.dev:
            return ""
        # Staged to be read only, it is so by the mount's own word too; an error leaves the mount writable.
        if "ro" in mount.super_options and any("ro" not in each.options for each in self._staged.mounts(device)):
            return f"the file system of {device.path} went read-only; the kernel log says why"
        if errors := ext4_errors(device):
            remedy = "stop its pods, and it is checked when it is staged again"
            return f"the file system of {device.path} met {errors} errors, the kernel log says which; {remedy}"
        return ""
