"""What device-mapper says of thin volumes and their pools. Pure: the words are the kernel's (thin-provisioning.txt)."""

from __future__ import annotations

from dataclasses import dataclass

from csi_driver.errors import Unready
from csi_driver.host.block import SECTOR

METADATA_BLOCK = 4096
READ_ONLY, OUT_OF_SPACE = "ro", "out_of_data_space"


@dataclass(frozen=True, slots=True)
class PoolState:
    """Say how a thin pool is. Data in chunks of the pool, metadata in bytes.

    `mode` is rw, ro or out_of_data_space; `needs_check` says that its metadata must be repaired before it writes again.
    """

    transaction: int
    metadata_used: int
    metadata_total: int
    chunks_used: int
    chunks_total: int
    mode: str
    needs_check: bool


def pool_state(name: str, words: str) -> PoolState:
    """Read the status line of a thin-pool target. Raises Unready for a pool that failed."""
    match words.split():
        case [transaction, metadata, data, _held, mode, *more]:
            meta_used, meta_total = (int(number) * METADATA_BLOCK for number in metadata.split("/"))
            used, total = (int(number) for number in data.split("/"))
            return PoolState(int(transaction), meta_used, meta_total, used, total, mode, "needs_check" in more)
    raise Unready(f"thin pool {name} failed, the kernel says {words!r}: see its log; lvconvert --repair may help")


@dataclass(frozen=True, slots=True)
class Mapped:
    """Say what of a thin volume is allocated, in bytes, and where the last of it ends, 0 when nothing is."""

    bytes: int
    end: int


def mapped(name: str, words: str) -> Mapped:
    """Read the status line of a thin target. Raises Unready."""
    match words.split():
        case [sectors, highest] if sectors.isdecimal():
            end = int(highest) + 1 if highest.isdecimal() else 0  # a dash where nothing is
            return Mapped(int(sectors) * SECTOR, end * SECTOR)
    raise Unready(f"thin volume {name}: the kernel says {words!r}; its pool failed, see the kernel log")
