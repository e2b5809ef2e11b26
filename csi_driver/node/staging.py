"""Stage and unstage: a volume's device, file system, limits and staging mount."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import structlog

from csi_driver.errors import Conflict, InUse, Invalid, StorageError, Unready
from csi_driver.host.mountinfo import is_read_only
from csi_driver.host.refusals import as_unready
from csi_driver.limiting import yielding
from csi_driver.node.uses import Use, fs_type_for, known_id, place

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.backends.base import Backend
    from csi_driver.deadline import Deadline
    from csi_driver.formatting import Formatting
    from csi_driver.host.block import Device
    from csi_driver.host.filesystem import Filesystems
    from csi_driver.host.mounts import Mounts
    from csi_driver.host.syscalls import Kernel
    from csi_driver.limiting import Limiting
    from csi_driver.locks import Locks
    from csi_driver.node.staged import Staged
    from csi_driver.pools import ServedPool, ServedPools
    from csi_driver.records import Volume
    from csi_driver.stack import Stack
    from qos.limits import Limits

log = structlog.get_logger(__name__)

STAGING = "staging_target_path"


class Staging:
    """Bring volumes up for use, and take them down again."""

    def __init__(
        self,
        staged: Staged,
        pools: ServedPools,
        stack: Stack,
        formatting: Formatting,
        filesystems: Filesystems,
        mounts: Mounts,
        kernel: Kernel,
        limiting: Limiting,
        locks: Locks,
    ) -> None:
        self._staged = staged
        self._pools = pools
        self._stack = stack
        self._formatting = formatting
        self._filesystems = filesystems
        self._mounts = mounts
        self._kernel = kernel
        self._limiting = limiting
        self._locks = locks

    def stage(self, volume_id: str, staging: Path, use: Use, deadline: Deadline) -> None:
        """Bring a volume's device up, formatted, checked, limited and mounted. Nothing is left of a failed try."""
        with self._locks.hold(known_id(volume_id), "NodeStageVolume of"):
            record, pool = self._staged.volume(volume_id)
            use = dataclasses.replace(use, fs_type=fs_type_for(record, use))
            staging = place(staging, STAGING)
            with as_unready(f"{STAGING}: {staging}"):
                if not use.block and not staging.is_dir():
                    raise Invalid(f"{STAGING}: {staging} is not a folder")
            there = self._stack.device(pool.backend, volume_id)
            new = there is None
            if there is not None:
                self._check_use(record, there, staging, use)
            try:
                device, limits = self._up(record, pool, staging, use, deadline, new=new)
                self._limiting.hold(record, pool.costs(), partial(self._stack.users, device))
            except BaseException:
                if new:
                    self._undo(volume_id, pool.backend, staging, use, deadline)
                raise
            abnormal = yielding(record, pool.emergency)
            self._staged.observe(
                volume_id, staged=str(staging), device=str(device.path), limits=limits, abnormal=abnormal
            )

    def unstage(self, volume_id: str, staging: Path, deadline: Deadline) -> None:
        """Take a volume's mount, limits and devices away. Fine when there are none. Raises InUse."""
        with self._locks.hold(known_id(volume_id), "NodeUnstageVolume of"):
            staging = place(staging, STAGING)
            for pool in self._pools:
                device = self._stack.device(pool.backend, volume_id)
                if device is not None:
                    self._unmount(device, volume_id, staging, deadline)
                    self._limiting.lift(volume_id, device)
                self._stack.down(pool.backend, volume_id, deadline)
            self._staged.observe(volume_id, staged="", device="", limits=None)

    def _up(
        self, record: Volume, pool: ServedPool, staging: Path, use: Use, deadline: Deadline, *, new: bool
    ) -> tuple[Device, Limits | None]:
        history, file_system = record.status.history, record.spec.file_system
        device = self._stack.up(pool.backend, record.id, history.sector_size, history.size, deadline)
        if file_system.read_ahead_kib is not None:
            self._stack.set_read_ahead(self._kernel, device, file_system.read_ahead_kib)
        if record.spec.thick:
            self._stack.keep_bytes(self._kernel, device)
        if use.block:
            self._formatting.hand_out_raw(record, pool.backend)
            return device, self._limiting.apply(record, device, pool.emergency)
        always = self._filesystems.mount_options(use.fs_type)
        options = (*always, *file_system.mount_options, *use.mount_flags)
        filled = False
        if not self._mounts.mounted(staging):
            # Else it is in use: somebody unmounted the staging path behind our back. A new device is nowhere mounted.
            if new or not self._stack.mounts(device):
                filled = self._formatting.prepare(record, pool.backend, device, use.fs_type, deadline)
            limits = self._limiting.apply(record, device, pool.emergency)
            self._mounts.mount(device.path, staging, use.fs_type, options)
        else:
            limits = self._limiting.apply(record, device, pool.emergency)
        read_only = "ro" in options
        self._check_mounted(device, staging, use, read_only=read_only)
        if not read_only and not filled:  # read-only, it grows when it is staged to be written
            prefix = self._limiting.helper_prefix
            self._filesystems.grow(device, use.fs_type, mounted=staging, deadline=deadline, prefix=prefix)
        return device, limits

    def _check_use(self, record: Volume, device: Device, staging: Path, use: Use) -> None:
        """Raise Conflict for a volume that is in use in the other form, InUse for one that is staged elsewhere.

        A device that a pod has in its hands is never mounted: what stands there is the pod's. And of two staging paths
        neither could be unstaged, for the other's sake.
        """
        mounts = self._stack.mounts(device)
        other = [str(mount.target) for mount in mounts if (mount.dev == device.dev) == use.block]
        if other:
            form, asked = ("file system", "block device") if use.block else ("block device", "file system")
            raise Conflict(f"volume {record.id} is in use as a {form} at {', '.join(other)}; it can't be a {asked} too")
        # Somebody unmounted the staging path behind our back when pods have the volume and only its record knows it.
        here = record.status.seen.staged == str(staging) or any(mount.target == staging for mount in mounts)
        if mounts and not use.block and not here:
            where = record.status.seen.staged or str(mounts[0].target)
            raise InUse(f"{STAGING}: volume {record.id} is staged at {where}; unstage it there first")

    def _check_mounted(self, device: Device, staging: Path, use: Use, *, read_only: bool) -> None:
        """Raise unless the staging path shows this device, alive, and writable if it is meant to be."""
        mount = self._mounts.at(staging)
        if mount is None or mount.dev != device.dev or mount.fstype != use.fs_type:
            shows = f"{mount.source} ({mount.fstype})" if mount else "nothing"
            raise Conflict(f"staging_target_path: {staging} shows {shows}, not {device.path} ({use.fs_type})")
        if is_read_only(mount) and not read_only:
            raise Unready(f"{device.path} is read-only at {staging}: the kernel log says why; check its file system")
        if not self._stack.size(device):
            raise Unready(f"{device.path} is dead: it has no bytes; unstage the volume and stage it again")

    def _undo(self, volume_id: str, backend: Backend, staging: Path, use: Use, deadline: Deadline) -> None:
        """Leave nothing of a failed stage. What can't be undone is said; the caller hears of the failure itself."""
        try:
            device = self._stack.device(backend, volume_id)
            if device is not None:
                mount = None if use.block else self._mounts.at(staging)
                if mount is not None and mount.dev == device.dev:
                    self._mounts.unmount(staging, deadline)
                self._limiting.lift(volume_id, device)
            self._stack.down(backend, volume_id, deadline)
        except (StorageError, OSError) as error:
            log.warning("a failed stage is not undone", volume=volume_id, reason=str(error))

    def _unmount(self, device: Device, volume_id: str, staging: Path, deadline: Deadline) -> None:
        mounts = self._stack.mounts(device)
        if elsewhere := [str(mount.target) for mount in mounts if mount.target != staging]:
            raise InUse(f"volume {volume_id} is still shown at {', '.join(elsewhere)}; unpublish it first")
        if mounts:
            self._mounts.unmount(staging, deadline)
