"""What file systems say of themselves, in a superblock or by an ioctl."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from csi_driver.errors import Unready
from csi_driver.host.signatures import EXT_MAGIC
from csi_driver.host.syscalls import XFS_IOC_FSGEOMETRY_V1, query

if TYPE_CHECKING:
    from pathlib import Path

# It is as long as it is far from the start.
SUPERBLOCK_SIZE = 1024
# ext4.h, struct ext4_super_block, at byte 1024: s_blocks_count_lo 0x4, s_log_block_size 0x18, s_state 0x3A,
# s_feature_incompat 0x60, s_blocks_count_hi 0x150, s_error_count 0x194.
EXT4_VALID_FS, EXT4_ERROR_FS, NEEDS_RECOVERY, INCOMPAT_64BIT = 0x1, 0x2, 0x4, 0x80
# xfs_fs.h, struct xfs_fsop_geom_v1, 112 bytes: blocksize u32 at 0, imaxpct u32 at 28, datablocks u64 at 32.
XFS_GEOMETRY_SIZE = 112
# btrfs_tree.h, struct btrfs_super_block, at 64 KiB: magic at 0x40, total_bytes u64 at 0x70, num_devices u64 at 0x88.
BTRFS_SUPERBLOCK_AT, BTRFS_SUPERBLOCK_SIZE = 64 << 10, 4096
BTRFS_MAGIC = b"_BHRfS_M"
# What mkfs.btrfs writes while it is at work.
BTRFS_UNFINISHED = b"!BHRfS_M"


def ext4_superblock(path: Path) -> bytes:
    """Return ext4's superblock through the page cache, which is where a mounted ext4 keeps its newest."""
    try:
        with path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), SUPERBLOCK_SIZE, SUPERBLOCK_SIZE)
    except OSError as error:
        raise Unready(f"read error on {path}: {error.strerror}, not touching it") from error
    if len(data) < SUPERBLOCK_SIZE or struct.unpack_from("<H", data, 0x38)[0] != EXT_MAGIC:
        raise Unready(f"{path} has no ext4 superblock")
    return data


def ext4_needs_no_check(superblock: bytes) -> bool:
    """Return whether an unmounted ext4 can be mounted as it is: clean, or with nothing but its log to replay."""
    (state,) = struct.unpack_from("<H", superblock, 0x3A)
    (errors,) = struct.unpack_from("<I", superblock, 0x194)
    (incompat,) = struct.unpack_from("<I", superblock, 0x60)
    return not errors and not state & EXT4_ERROR_FS and bool(state & EXT4_VALID_FS or incompat & NEEDS_RECOVERY)


def ext4_block_size(superblock: bytes) -> int:
    """Return the block size in bytes."""
    (exponent,) = struct.unpack_from("<I", superblock, 0x18)
    return int(1024 << exponent)


def ext4_size(superblock: bytes) -> int:
    """Return the size of the file system in bytes."""
    (low,) = struct.unpack_from("<I", superblock, 0x4)
    (incompat,) = struct.unpack_from("<I", superblock, 0x60)
    high = struct.unpack_from("<I", superblock, 0x150)[0] if incompat & INCOMPAT_64BIT else 0
    return int(low | high << 32) * ext4_block_size(superblock)


def xfs_geometry(mounted: Path) -> tuple[int, int, int]:
    """Return xfs's block size in bytes, its data blocks and its greatest percentage of inodes."""
    try:
        fd = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)
        try:
            answer = query(fd, XFS_IOC_FSGEOMETRY_V1, bytearray(XFS_GEOMETRY_SIZE))
        finally:
            os.close(fd)
    except OSError as error:
        raise Unready(f"can't ask xfs at {mounted} for its size: {error}") from error
    return (
        struct.unpack_from("=I", answer, 0)[0],
        struct.unpack_from("=Q", answer, 32)[0],
        struct.unpack_from("=I", answer, 28)[0],
    )


def btrfs_superblock(path: Path) -> bytes:
    """Return the first superblock of a btrfs that is whole and has this device alone. Raises Unready."""
    try:
        with path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), BTRFS_SUPERBLOCK_SIZE, BTRFS_SUPERBLOCK_AT)
    except OSError as error:
        raise Unready(f"read error on {path}: {error.strerror}, not touching it") from error
    magic = data[0x40:0x48]
    if magic == BTRFS_UNFINISHED:
        raise Unready(f"{path} holds a btrfs whose mkfs did not end; not touching it")
    if magic != BTRFS_MAGIC:
        raise Unready(f"{path} has no btrfs superblock; `btrfs rescue super-recover` knows where its copies are")
    (devices,) = struct.unpack_from("<Q", data, 0x88)
    if devices != 1:
        raise Unready(f"{path} is one of {devices} devices of a btrfs; make it the only one by `btrfs device remove`")
    return data


def btrfs_size(superblock: bytes) -> int:
    """Return the size of the file system in bytes."""
    return int(struct.unpack_from("<Q", superblock, 0x70)[0])
