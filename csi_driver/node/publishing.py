"""Publish and unpublish: show a staged volume to a pod, at the path that kubelet names."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from csi_driver.errors import Conflict, InUse, Invalid, NotFound, NotStaged, Unready
from csi_driver.host.refusals import as_unready
from csi_driver.node.uses import known_id, place
from csi_driver.parameters import check_mount_options
from csi_driver.stack import users_at

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device
    from csi_driver.host.mounts import Mount, Mounts
    from csi_driver.host.syscalls import Kernel
    from csi_driver.limiting import Limiting
    from csi_driver.locks import Locks
    from csi_driver.node.staged import Staged
    from csi_driver.node.uses import Use
    from csi_driver.records import Volume
    from csi_driver.stack import Stack


TARGET = "target_path"


class Publishing:
    """Bind staged volumes to target paths."""

    def __init__(
        self, staged: Staged, stack: Stack, mounts: Mounts, kernel: Kernel, limiting: Limiting, locks: Locks
    ) -> None:
        self._staged = staged
        self._stack = stack
        self._mounts = mounts
        self._kernel = kernel
        self._limiting = limiting
        self._locks = locks

    def publish(self, volume_id: str, staging: Path, target: Path, use: Use) -> None:
        """Show a staged volume at one more path. Raises NotStaged, Conflict, InUse."""
        with self._locks.hold(known_id(volume_id), "NodePublishVolume of"):
            staging, target = place(staging, "staging_target_path"), place(target, TARGET)
            if target.is_relative_to(staging):
                raise Invalid(f"{TARGET}: {target} is the staging path, or within the volume itself")
            device = self._device(volume_id)
            mounts = self._stack.mounts(device)
            self._check_staged(volume_id, device, staging, use, mounts)
            published = [mount for mount in mounts if mount.target != staging]
            if at_target := next((mount for mount in published if mount.target == target), None):
                read_only = use.read_only or any("ro" in mount.options for mount in mounts if mount.target == staging)
                _check_same(at_target, volume_id, read_only=read_only)
                return
            if published and not use.shared:
                where = published[0].target
                raise InUse(f"volume {volume_id} is published at {where}, and its access mode allows one path only")
            self._limiting.use(volume_id, users_at([target, *(mount.target for mount in mounts)]))
            self._bind(device.path if use.block else staging, target, use)

    def unpublish(self, volume_id: str, target: Path, deadline: Deadline) -> None:
        """Take a volume away from one path, and the path with it. Fine when it isn't there."""
        with self._locks.hold(known_id(volume_id), "NodeUnpublishVolume of"):
            target = place(target, TARGET)
            if self._mounts.mounted(target):
                self._check_ours(target, volume_id)
                self._mounts.unmount(target, deadline)
            self._remove_target(target)

    def _device(self, volume_id: str) -> Device:
        device = self._staged.device(volume_id)
        if device is None:
            self._record(volume_id)
            raise NotStaged(f"volume {volume_id} is not staged on this node; stage it first")
        return device

    def _record(self, volume_id: str) -> Volume:
        record = self._staged.record(volume_id)
        if record is None:
            raise NotFound(f"volume_id: there is no volume {volume_id}")
        return record

    def _check_staged(self, volume_id: str, device: Device, staging: Path, use: Use, mounts: tuple[Mount, ...]) -> None:
        """Raise NotStaged unless the volume is staged there in the form that is asked for."""
        if use.block:
            if mounted := [str(mount.target) for mount in mounts if mount.dev == device.dev]:
                raise NotStaged(f"volume {volume_id} is staged as a file system at {mounted[0]}, not as a device")
            self._check_handed_out(volume_id)
            return
        mount = self._mounts.topmost(staging, mounts)
        if mount is None or mount.dev != device.dev:
            raise NotStaged(f"staging_target_path: volume {volume_id} is not staged at {staging}")
        check_mount_options(mount.fstype, use.mount_flags, "mount_flags")

    def _check_handed_out(self, volume_id: str) -> None:
        """Raise NotStaged for a device that was never staged as one, such as a stage that was cut left of a mount.

        Where an mkfs had begun it would be made again, over what a pod has written since.
        """
        if not self._record(volume_id).status.history.raw:
            raise NotStaged(f"volume {volume_id} is not staged as a block device; stage it as one first")

    def _bind(self, source: Path, target: Path, use: Use) -> None:
        made = self._make_target(target, use)
        try:
            self._mounts.bind(source, target, read_only=use.read_only)
        except BaseException:
            if made:
                self._remove_target(target)
            raise

    def _check_ours(self, target: Path, volume_id: str) -> None:
        """Raise Invalid rather than unmount what is another's."""
        device = self._staged.device(volume_id)
        if device is not None and self._mounts.topmost(target, self._stack.mounts(device)) is not None:
            return
        if (mount := self._mounts.at(target)) is not None:  # else it is unmounted since
            raise Invalid(f"target_path: {target} shows {mount.source}, not volume {volume_id}; it is left alone")

    def _make_target(self, target: Path, use: Use) -> bool:
        """Make the file or folder to bind to; False when it was there."""
        with as_unready(f"{TARGET}: {target}"):
            if (there := _status(target)) is not None:
                if stat.S_ISREG(there.st_mode) if use.block else stat.S_ISDIR(there.st_mode):
                    return False
                raise Invalid(f"{TARGET}: {target} is there and is not a {'file' if use.block else 'folder'}")
            if not target.parent.is_dir():
                raise Invalid(f"{TARGET}: {target.parent} is not a folder; the caller must make it")
            if use.block:
                os.close(self._kernel.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            else:
                self._kernel.mkdir(target)
        return True

    def _remove_target(self, target: Path) -> None:
        """Remove the bare file or folder that a volume was shown at; never anything that holds data."""
        try:
            with contextlib.suppress(FileNotFoundError):
                status = _status(target)
                if status is not None and stat.S_ISDIR(status.st_mode):
                    self._kernel.rmdir(target)
                elif status is not None and stat.S_ISREG(status.st_mode) and status.st_size == 0:
                    self._kernel.unlink(target)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise InUse(f"{TARGET}: {target} holds files, none of them the volume's; move them away") from error
            raise Unready(f"{TARGET}: {target}: {error.strerror}") from error


def _status(target: Path) -> os.stat_result | None:
    """Return what stands at a path, None where nothing can: a folder on the way is missing, or is none."""
    try:
        return target.lstat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def _check_same(mount: Mount, volume_id: str, *, read_only: bool) -> None:
    if ("ro" in mount.options) != read_only:
        now = "read-only" if "ro" in mount.options else "writable"
        raise Conflict(f"target_path: volume {volume_id} is published at {mount.target} already, {now}")
