"""Thick volumes: their bytes are there before they are written, and stay."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.kernel.node import MIB, Node, run

if TYPE_CHECKING:
    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

SIZE, LARGER = 300 * MIB, 400 * MIB


def _allocated(node: Node, volume: Volume) -> int:
    return node.image(volume.id).stat().st_blocks * 512


def test_a_scratch_volume_is_allocated_from_its_birth_and_through_all_that_happens_to_it(node: Node) -> None:
    """Formatted, written, overwritten, trimmed and grown: writes allocate nothing, discards give nothing back."""
    volume = node.create("scratch", SIZE, tier="scratch", fs_type="xfs")
    born = _allocated(node, volume)
    volume.up()
    volume.fill(64 * MIB)
    volume.file.unlink()
    run("sync", "-f", volume.target)
    run("fstrim", volume.target, status=1)
    used = _allocated(node, volume)
    volume.expand(LARGER)
    volume.expand_on_node(LARGER)
    volume.fill(300 * MIB)

    assert SIZE <= born <= SIZE + MIB
    assert SIZE <= used <= SIZE + MIB
    assert LARGER <= _allocated(node, volume) <= LARGER + MIB


def test_a_raw_scratch_volume_shows_zeros_and_takes_no_discard(node: Node) -> None:
    """Any pod with a raw volume may discard: it is refused, and what was written is there."""
    volume = node.create("scratch", SIZE, tier="scratch", block=True).up()
    with volume.file.open("rb") as file:
        zeros = file.read()
    volume.fill(32 * MIB)
    run("blkdiscard", "--offset", "0", "--length", str(32 * MIB), volume.file, status=2)
    with volume.file.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        begin = file.read(MIB)

    assert zeros == bytes(SIZE)
    assert begin != bytes(MIB)
    assert SIZE <= _allocated(node, volume) <= SIZE + MIB
