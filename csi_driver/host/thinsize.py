"""How large the parts of a thin pool are. Pure arithmetic, with the reasons.

The kernel keeps a mapping of 16 bytes for each chunk in trees of 4 KiB nodes, which are half full when they were filled
in no order: 32 bytes a chunk (thin_metadata_size reckons so). lvm takes twice that, 64. We take twice again, since each
snapshot of a volume that is rewritten at random has leaves of its own, also for chunks that it shares: metadata then
fills faster than data, and a pool without metadata is read-only until it is repaired. At chunks of 64 KiB that is 0.2 %
of the data, and as much for the spare that a repair needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from csi_driver.errors import NoSpace

MIB = 1 << 20
CHUNK = 64 << 10
CHUNK_STEP = 64 << 10
LARGEST_CHUNK = 1 << 30
METADATA_PER_CHUNK, LVMS_METADATA_PER_CHUNK = 128, 64
LEAST_METADATA, MOST_METADATA = 32 * MIB, 16192 * MIB
"""The kernel uses no more than the most, 15.81 GiB (dm-thin-metadata.h)."""
AREA = 64 * MIB
"""A disk's metadata area. It holds the group's text twice, the newest and the one that is being written, and a volume
or snapshot has about 1 KB there: 32,000 of them. It can't be made larger afterwards."""
BYTES_PER_VOLUME = 1000
RESERVE = 0.05
"""Of a group, left free: for twice the metadata, and to make a full pool larger at once, before there is a new disk."""
LEAST_DATA = 64 * MIB


@dataclass(frozen=True, slots=True)
class Sizes:
    """Hold the bytes of a pool's data and of its metadata. The spare is as large as the metadata."""

    data: int
    metadata: int


def most_volumes(area: int) -> int:
    """Return how many volumes and snapshots a group's text has room for in areas of so many bytes."""
    return area // 2 // BYTES_PER_VOLUME


def metadata_for(data: int, chunk: int, extent: int) -> int:
    """Return the bytes of metadata for so many bytes of data, in whole extents."""
    wanted = -(-data // chunk) * METADATA_PER_CHUNK
    return _up(max(LEAST_METADATA, min(wanted, MOST_METADATA)), extent)


def least_metadata(data: int, chunk: int) -> int:
    """Return the bytes of metadata below which a pool is unsound: what lvm would give it."""
    return min(-(-data // chunk) * LVMS_METADATA_PER_CHUNK, MOST_METADATA)


def new_pool(free: int, chunk: int, reserve: float, extent: int, metadata: int = 0) -> Sizes:
    """Share out a group's free bytes, but for the reserve; `metadata` is as large as said, or 0: as it should be.

    Raises NoSpace when they are too few.
    """
    usable = _down(int(free * (1 - reserve)), extent)
    metadata = _up(metadata, extent) or metadata_for(usable, chunk, extent)
    data = usable - 2 * metadata
    if data < LEAST_DATA:
        raise NoSpace(
            f"{free // MIB} MiB are too few for a thin pool: its metadata and their spare take {2 * metadata // MIB} "
            f"MiB, {reserve:.0%} are left free, and {LEAST_DATA // MIB} MiB of data are the least"
        )
    return Sizes(data, metadata)


def grown(now: Sizes, room: int, chunk: int, extent: int) -> Sizes:
    """Return what a pool is when it takes so many more bytes in all: metadata and spare as they should be, then data.

    Raises NoSpace when nothing is left for data.
    """
    metadata = max(now.metadata, metadata_for(now.data + room, chunk, extent))
    data = _down(now.data + room - 2 * (metadata - now.metadata), extent)
    if data <= now.data:
        raise NoSpace(
            f"{room // MIB} MiB make the pool no larger: its metadata and their spare should have "
            f"{2 * (metadata - now.metadata) // MIB} MiB more first; add a disk by --device"
        )
    return Sizes(data, metadata)


def _up(size: int, extent: int) -> int:
    return -(-size // extent) * extent


def _down(size: int, extent: int) -> int:
    return size - size % extent
