"""A pool that fills and empties again, on a real kernel: what is refused, who yields, and what the kernel is told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.kernel.filling import MIB, is_trimmed, only_training_yields
from tests.kernel.node import Node
from tests.leftovers import Leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel


class Filled(Node):
    """A node whose pool can be filled to a percent, by somebody else's file beside it."""

    @property
    def ballast(self) -> Path:
        """Return the file that fills the disk."""
        return self.folder / "ballast"

    def fill(self, percent: int) -> None:
        """Have so much of the disk allocated."""
        fd = os.open(self.ballast, os.O_RDWR | os.O_CREAT)
        try:
            disk, size = os.fstatvfs(fd), os.fstat(fd).st_size
            more = (disk.f_blocks * percent // 100 - disk.f_blocks + disk.f_bavail) * disk.f_frsize
            if more > 0:
                os.posix_fallocate(fd, size, more)
            else:
                os.ftruncate(fd, size + more)
        finally:
            os.close(fd)


@pytest.fixture(scope="module")
def filled() -> Iterator[Filled]:
    """Give a node that trims its volumes every second."""
    before = Leftovers.now()
    with Filled("--trim-every=1s") as running:
        yield running

    assert Leftovers.now().since(before) == []


@pytest.mark.torture
def test_a_pool_goes_through_all_levels_and_back_and_only_training_yields(filled: Filled) -> None:
    """What is refused in the emergency says how full the pool is."""
    refused = only_training_yields(filled, filled.fill)
    filled.ballast.unlink()
    filled.take_down()

    assert all("emergency: its data is 98.0% full" in said for said in refused)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_a_trim_reaches_the_pool_through_the_mapped_device(filled: Filled, fs_type: str) -> None:
    """What a pod deleted is a hole in the image."""
    volume = filled.up(f"trimmed-{fs_type}", 400 * MIB, fs_type=fs_type)
    image = filled.image(volume.id)
    is_trimmed(volume, lambda: image.stat().st_blocks * 512)
    filled.take_down()

    assert filled.metric('sluice_trimmed_bytes_total{pool="fast"}') > 50 * MIB
