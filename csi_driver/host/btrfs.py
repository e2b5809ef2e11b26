"""btrfs: made by mkfs.btrfs, left to its own trees when it is mounted, grown by one ioctl.

What is other than with ext4 and XFS: a mounted one has a device number of its own, so that no mount shows the device's
(mountinfo.py looks it up); suspending the device below doesn't freeze it, FIFREEZE does (freeze.py); and it and its
copy have one UUID, which the kernel mounts beside each other only since Linux 6.7.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.errors import Unready
from csi_driver.host import geometry, online
from csi_driver.host.syscalls import BTRFS_IOC_RESIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device
    from csi_driver.host.syscalls import Kernel

SECTOR = 4096
FEATURES = Path("/sys/fs/btrfs/features")
"""What the kernel's btrfs can, once it is loaded."""
TEMP_FSID_SINCE = (6, 7)
# struct btrfs_ioctl_vol_args: fd s64, name char[4088]. "max" is all that the device has.
VOL_ARGS_SIZE, NAME_AT = 4096, 8


class Btrfs:
    """Know btrfs."""

    smallest = 256 << 20
    """mkfs.btrfs takes 109 MiB, the kernel never resizes to less than this, and below it is full when half of it is."""
    mount_options = ("nodiscard", "subvolid=5")
    """It discards by itself since Linux 6.2, from a kernel thread that no limit sees; a class may ask for that. And the
    subvolume at the top, whatever its user has made the default: what is shown decides what is shared and grown."""
    checker = ("btrfs", "check", "--readonly")

    def __init__(self, kernel: Kernel) -> None:
        """Take the door to the kernel."""
        self._kernel = kernel

    def mkfs(self, *, sector_size: int, blank: bool) -> list[str]:  # noqa: ARG002 - the same for all
        """Return the words that make one.

        Sectors of 4 KiB always: they fit devices of 512 and of 4096, and every kernel mounts them. One copy of data and
        one of metadata, as ext4 and XFS have: a second one (mkfs.btrfs's own choice) lies on the same disk, and doubles
        the metadata's writes, which no limit sees; a class may ask for it. No discard: nothing was ever written.
        """
        return ["mkfs.btrfs", "-q", "-f", "-K", "-s", str(SECTOR), "-d", "single", "-m", "single"]

    def check(self, path: Path, *, deadline: Deadline, prefix: Sequence[str]) -> bool:  # noqa: ARG002 - nothing runs
        """Look whether the superblock is that of a whole file system on one device. No program runs.

        Trees are never overwritten, so that what is on the disk is whole after any cut, and the mount replays the log.
        `btrfs check` reads all metadata, minutes of a large volume, to find what checksums show when it is read anyway.
        """
        geometry.btrfs_superblock(path)
        return False

    def size(self, mounted: Path, device: Device) -> int:  # noqa: ARG002 - the superblock says it
        """Return the bytes that it takes itself to have."""
        return geometry.btrfs_size(geometry.btrfs_superblock(device.path))

    def grow(self, device: Device, mounted: Path, size: int) -> bool:
        """Let a mounted one fill its device of `size` bytes. Return whether it had to grow."""
        before = self.size(mounted, device)
        if before + SECTOR > size:
            return False
        argument = bytes(NAME_AT) + b"max".ljust(VOL_ARGS_SIZE - NAME_AT, b"\0")
        online.resize(self._kernel, device, mounted, BTRFS_IOC_RESIZE, argument)
        return self.size(mounted, device) != before

    def grow_unmounted(self, device: Device, size: int, deadline: Deadline, prefix: Sequence[str]) -> bool:  # noqa: ARG002
        """Raise Unready: it can't."""
        raise Unready(f"{device.path} has btrfs, which grows only while it is mounted: it will at the next stage")


def copies_mount(features: Path = FEATURES, release: str = "") -> bool:
    """Return whether the kernel can mount a btrfs and its copy at once, by its btrfs's own word or by its release."""
    if features.is_dir():
        return (features / "temp_fsid").exists()
    numbers = re.match(r"(\d+)\.(\d+)", release or platform.release())
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= TEMP_FSID_SINCE
