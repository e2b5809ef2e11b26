"""ext4: made by mke2fs, checked by e2fsck where its superblock asks for it, grown by one ioctl."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from csi_driver.errors import ToolFailed, Unready
from csi_driver.host import geometry, online
from csi_driver.host.syscalls import EXT4_IOC_RESIZE_FS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device
    from csi_driver.host.run import Runner
    from csi_driver.host.syscalls import Kernel

BLOCK = 4096
# e2fsck(8): 1 is "errors corrected", 2 "corrected, reboot" which concerns a mounted root file system.
FSCK_FINE = (0, 1, 2)


class Ext4:
    """Know ext4."""

    smallest = 8 << 20
    """mkfs.ext4 makes a journal from here on."""
    mount_options: tuple[str, ...] = ()
    checker = ("e2fsck", "-n")

    def __init__(self, runner: Runner, kernel: Kernel) -> None:
        """Take the two doors."""
        self._runner = runner
        self._kernel = kernel

    def mkfs(self, *, sector_size: int, blank: bool) -> list[str]:  # noqa: ARG002 - it has no sectors, only blocks
        """Return the words that make one.

        Blocks of 4 KiB, since mke2fs takes 1 KiB for small ones, which a sector of 4 KiB can't mount. No discard:
        nothing was ever written, and it would walk the whole device.
        """
        extended = "nodiscard,assume_storage_prezeroed=1" if blank else "nodiscard"
        return ["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-E", extended]

    def check(self, path: Path, *, deadline: Deadline, prefix: Sequence[str]) -> bool:
        """Check and repair it. Nothing runs for a clean one, nor for one that only has its log to replay."""
        if geometry.ext4_needs_no_check(geometry.ext4_superblock(path)):
            return False
        output = self._runner.run(["e2fsck", "-p", str(path)], deadline=deadline, prefix=prefix, accept=range(64))
        if output.returncode not in FSCK_FINE:
            said = " ".join(output.stdout.split())[-300:]
            raise Unready(f"{path} needs repair by hand (e2fsck status {output.returncode}): {said}")
        return True

    def size(self, mounted: Path, device: Device) -> int:  # noqa: ARG002 - the superblock says it
        """Return the bytes that it takes itself to have."""
        return geometry.ext4_size(geometry.ext4_superblock(device.path))

    def grow(self, device: Device, mounted: Path, size: int) -> bool:
        """Let a mounted one have `size` bytes. Return whether it had to grow."""
        superblock = geometry.ext4_superblock(device.path)
        before = geometry.ext4_size(superblock)
        if before + BLOCK > size:
            return False
        blocks = size // geometry.ext4_block_size(superblock)
        online.resize(self._kernel, device, mounted, EXT4_IOC_RESIZE_FS, struct.pack("=Q", blocks))
        return geometry.ext4_size(geometry.ext4_superblock(device.path)) != before

    def grow_unmounted(self, device: Device, size: int, deadline: Deadline, prefix: Sequence[str]) -> bool:
        """Let one that isn't mounted have `size` bytes, by its programs. Return whether it had to grow."""
        before = geometry.ext4_size(geometry.ext4_superblock(device.path))
        if before + BLOCK > size:
            return False
        path = str(device.path)
        output = self._runner.run(["e2fsck", "-f", "-p", path], deadline=deadline, prefix=prefix, accept=range(64))
        if output.returncode not in FSCK_FINE:
            raise ToolFailed("e2fsck", output.returncode, output.stdout)
        self._runner.run(["resize2fs", path], deadline=deadline, prefix=prefix)
        return geometry.ext4_size(geometry.ext4_superblock(device.path)) != before
