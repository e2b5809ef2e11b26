"""XFS: made by mkfs.xfs, left to its own log when it is mounted, grown by one ioctl."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from csi_driver.errors import Unready
from csi_driver.host import geometry, online
from csi_driver.host.syscalls import XFS_IOC_FSGROWFSDATA

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device
    from csi_driver.host.syscalls import Kernel

# XFS drops a last allocation group of fewer blocks (XFS_MIN_AG_BLOCKS), so such a rest never gets used.
MIN_AG_BLOCKS = 64


class Xfs:
    """Know XFS."""

    smallest = 300 << 20
    """mkfs.xfs of xfsprogs 6 refuses less."""
    mount_options = ("nouuid",)
    """An XFS and its clone have one UUID, and the kernel refuses the second without this."""
    checker = ("xfs_repair", "-n")

    def __init__(self, kernel: Kernel) -> None:
        """Take the door to the kernel."""
        self._kernel = kernel

    def mkfs(self, *, sector_size: int, blank: bool) -> list[str]:  # noqa: ARG002 - it never writes zeros anywhere else
        """Return the words that make one. No discard: nothing was ever written."""
        return ["mkfs.xfs", "-q", "-f", "-K", "-s", f"size={sector_size}"]

    def check(self, path: Path, *, deadline: Deadline, prefix: Sequence[str]) -> bool:  # noqa: ARG002 - nothing runs
        """Do nothing: its mount replays the log, and says if that is not enough."""
        return False

    def size(self, mounted: Path, device: Device) -> int:  # noqa: ARG002 - it tells where it is mounted
        """Return the bytes that it takes itself to have."""
        block_size, blocks, _ = geometry.xfs_geometry(mounted)
        return block_size * blocks

    def grow(self, device: Device, mounted: Path, size: int) -> bool:
        """Let a mounted one have `size` bytes. Return whether it had to grow."""
        block_size, blocks, most_inodes = geometry.xfs_geometry(mounted)
        if size // block_size < blocks + MIN_AG_BLOCKS:
            return False
        # struct xfs_growfs_data: newblocks u64, imaxpct u32, padded to 16. This is all that xfs_growfs(8) does.
        argument = struct.pack("=QI4x", size // block_size, most_inodes)
        online.resize(self._kernel, device, mounted, XFS_IOC_FSGROWFSDATA, argument)
        return geometry.xfs_geometry(mounted)[1] != blocks

    def grow_unmounted(self, device: Device, size: int, deadline: Deadline, prefix: Sequence[str]) -> bool:  # noqa: ARG002
        """Raise Unready: it can't."""
        raise Unready(f"{device.path} has xfs, which grows only while it is mounted: it will at the next stage")
