"""Grow a file system while it is mounted: one ioctl on its mount point, at most one."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from csi_driver.errors import Unready
from csi_driver.host import mountinfo

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.host.block import Device
    from csi_driver.host.syscalls import Kernel


def resize(kernel: Kernel, device: Device, mounted: Path, request: int, argument: bytes) -> None:
    """Make a resizing ioctl on the file system that shows this device at a path. Raises Unready."""
    try:
        fd = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # If nothing is mounted there the ioctl would reach the file system below, such as the machine's root.
            # Not by st_dev: a btrfs has a number of its own.
            shown = mountinfo.of_descriptor(fd)
            if shown is None or shown.dev != device.dev:
                raise Unready(f"can't grow the file system at {mounted}: {device.path} is not mounted there")
            answer = kernel.ioctl_struct(fd, request, argument, path=mounted)
        finally:
            os.close(fd)
    except OSError as error:
        # ext4 asks for more than root: a container has to be privileged or be given this capability.
        why = "CAP_SYS_RESOURCE is missing" if error.errno == errno.EPERM else "the kernel log has the reason"
        raise Unready(f"can't grow the file system at {mounted}: {error}; {why}") from error
    if answer:  # btrfs: the volume's own user balances, or replaces a device (enum btrfs_err_code)
        raise Unready(f"can't grow the file system at {mounted}: it is busy with a balance or the like; ask again")
