"""Files with as many extents as one wants: where a file's blocks lie, and how to break another's into pieces."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import struct
import threading
from array import array
from typing import TYPE_CHECKING

from csi_driver.errors import NoSpace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BLOCK = 4096
FS_IOC_FIEMAP = 0xC020660B
FIEMAP_FLAG_SYNC = 1
# linux/fiemap.h: start, length, flags, mapped, extent count, reserved; an extent has logical, physical, length, ...
HEADER = struct.Struct("=QQIIII")
EXTENT = struct.Struct("=QQQ 16x I 12x")
MOST = 4096
THREADS = 4
SEED = 1


def count(path: Path) -> int:
    """Return how many extents a file has, by FIEMAP's own count."""
    return _fiemap(path, 0)[0]


def places(path: Path) -> list[tuple[int, int]]:
    """Return where a file's blocks lie on its device: offsets and lengths in bytes."""
    found, data = _fiemap(path, MOST)
    extents = [EXTENT.unpack_from(data, HEADER.size + number * EXTENT.size) for number in range(found)]
    return [(physical, length) for _, physical, length, _ in extents]


def _fiemap(path: Path, most: int) -> tuple[int, bytearray]:
    buffer = bytearray(HEADER.size + most * EXTENT.size)
    HEADER.pack_into(buffer, 0, 0, (1 << 64) - 1, FIEMAP_FLAG_SYNC, 0, most, 0)
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FS_IOC_FIEMAP, buffer)
    finally:
        os.close(fd)
    return HEADER.unpack_from(buffer)[3], buffer


def every_other(spans: Sequence[tuple[int, int]], wanted: int) -> array[int]:
    """Return the offsets of every other block of these spans, in an order as random as a database's.

    Raises NoSpace when they have fewer.
    """
    offsets = array("Q")
    for start, length in spans:
        offsets.extend(range(start, start + length - BLOCK + 1, 2 * BLOCK))
    if len(offsets) < wanted:
        raise NoSpace(f"{len(offsets)} blocks are there, {wanted} are wanted: take a larger volume")
    shuffled = offsets.tolist()
    random.Random(SEED).shuffle(shuffled)  # noqa: S311 - an order, not a secret
    return array("Q", shuffled[:wanted])


def write_blocks(path: Path, offsets: Sequence[int]) -> None:
    """Write one block at each offset, past the page cache: each becomes an extent if its neighbours are holes."""
    errors: list[OSError] = []

    def work(mine: Sequence[int]) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, BLOCK) as block:  # aligned, as O_DIRECT wants
                block[:] = b"\xa5" * BLOCK
                for offset in mine:
                    os.pwritev(fd, [block], offset)
        except OSError as error:
            errors.append(error)
        finally:
            os.close(fd)

    threads = [threading.Thread(target=work, args=(offsets[number::THREADS],)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
