"""Image files as their pool has them: their bytes, where these lie on the disk, and what checkers say of them."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from tests.kernel.node import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHECKS = {"ext4": ("e2fsck", "-fn"), "xfs": ("xfs_repair", "-n"), "btrfs": ("btrfs", "check", "--readonly")}
"""What looks at a whole file system that isn't mounted, and changes nothing."""

PIECE = 1 << 20
SECTORS_IN_BLOCK = 8
SUPERBLOCK = "0x0"
"""The first sector of the buffer that holds an XFS superblock."""


class Extent(NamedTuple):
    """Name a stretch of a disk, in sectors of 512 bytes."""

    start: int
    length: int


def digest(image: Path) -> str:
    """Return a digest of a file's bytes. Holes are skipped, and pieces of zeros count as if they were holes."""
    seen = hashlib.sha256()
    for offset, data in _data(image):
        if data != bytes(len(data)):
            seen.update(offset.to_bytes(8, "big") + data)
    return seen.hexdigest()


def extents(image: Path) -> list[Extent]:
    """Return where a file lies on the device of its file system."""
    rows = re.findall(
        r"^\s*\d+:\s*\d+\.\.\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+):", run("filefrag", "-v", image), re.MULTILINE
    )
    return [Extent(int(start) * SECTORS_IN_BLOCK, int(length) * SECTORS_IN_BLOCK) for start, length in rows]


def features(image: Path) -> set[str]:
    """Return the features of an ext4, among them `needs_recovery` while its journal isn't replayed."""
    lines = run("dumpe2fs", "-h", image).splitlines()
    return set(next(line for line in lines if line.startswith("Filesystem features:")).split()[2:])


def synced_writes(image: Path) -> bool:
    """Return whether a btrfs has a log to replay: what was synced since its last transaction (log_root)."""
    with image.open("rb") as file:
        file.seek((64 << 10) + 0x60)
        return file.read(8) != bytes(8)


def logged(image: Path) -> set[str]:
    """Return what an XFS would have to replay from its log: kinds of items, and buffers by their first sector."""
    transactions = run("xfs_logprint", "-t", image)
    kinds = set(re.findall(r"^([A-Z]+): ", transactions, re.MULTILINE)) - {"TRANS", "BUF"}
    return kinds | set(re.findall(r"\bblkno:(0x[0-9a-f]+)", transactions))


def _data(image: Path) -> Iterator[tuple[int, bytes]]:
    """Yield all pieces in which something may be; of a device, which knows no holes, all there are."""
    fd = os.open(image, os.O_RDONLY)
    try:
        offset = 0
        while True:
            if not image.is_block_device():
                try:
                    offset = os.lseek(fd, offset, os.SEEK_DATA) // PIECE * PIECE
                except OSError:  # ENXIO: nothing but a hole is left
                    return
            data = os.pread(fd, PIECE, offset)
            if not data:
                return
            yield offset, data
            offset += PIECE
    finally:
        os.close(fd)
