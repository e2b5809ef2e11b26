"""A thin pool that fills, in data and in metadata, and what trims give back to it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Unknown
from hack.bench.thindevices import ThinDevices
from tests.kernel.filling import (
    CEILING,
    LEAST_RATE,
    MIB,
    SEEN_SECONDS,
    comes_to,
    is_limited,
    is_trimmed,
    only_training_yields,
)
from tests.kernel.node import refusal, run
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.thinpool import ThinPool, lvm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

BLOCK = bytes(4096)
COUNTED_SECONDS = 5.0
"""Within which a pool's own count shows what was written or discarded, if nobody else does either."""


class FilledThin(ThinNode):
    """A node whose thin pool can be filled to a percent."""

    def __init__(self) -> None:
        # Large chunks, so that few writes fill it, and little metadata, which some hundred devices fill.
        super().__init__("--trim-every=1s", thin=ThinPool(chunk="1m", size=("-L", "1g"), metadata="2m"))
        self._chunks = 0
        self._devices = 0

    def mount(self) -> None:
        """Make the folder, and the volume of somebody else that fills the pool."""
        super().mount()
        lvm("lvcreate", "-y", "-V", "2g", "-T", f"{self.thin.vg}/{self.thin.name}", "-n", "ballast")

    def used(self, what: str = "data") -> tuple[float, float]:
        """Return how much is allocated and how much there is, in bytes, as the metrics say."""
        used, size = (f'sluice_pool_{what}_{word}_bytes{{pool="fast"}}' for word in ("used", "size"))
        return self.metric(used), self.metric(size)

    def fill(self, percent: int) -> None:
        """Have so much of the pool's data allocated, and again what volumes have written or given back meanwhile."""
        wait_for(f"the pool is filled to {percent}%", lambda: self._is_filled(percent), Deadline(SEEN_SECONDS))

    def _is_filled(self, percent: int) -> bool:
        """Write into as many chunks as lack, or discard them, and return whether the kernel counts what is wanted."""
        used, size = self.used()
        wanted = size * percent / 100
        chunks = self._chunks + round((wanted - used) / MIB)
        path = Path("/dev") / self.thin.vg / "ballast"
        if chunks < self._chunks:
            run("blkdiscard", "--offset", str(chunks * MIB), "--length", str((self._chunks - chunks) * MIB), path)
        else:
            fd = os.open(path, os.O_WRONLY)
            try:
                for chunk in range(self._chunks, chunks):
                    os.pwrite(fd, BLOCK, chunk * MIB)
                os.fsync(fd)
            finally:
                os.close(fd)
        self._chunks = chunks
        with contextlib.suppress(Unknown):
            wait_for(
                "the kernel has counted it", lambda: abs(self.used()[0] - wanted) <= MIB, Deadline(COUNTED_SECONDS)
            )
            return True
        return False

    def fill_metadata(self, percent: int) -> None:
        """Have so much of its metadata allocated, by thin devices of which lvm knows nothing: one block for each."""
        used, size = self.used("metadata")
        more = round((size * percent / 100 - used) / len(BLOCK))
        wanted = max(0, self._devices + more)
        with ThinDevices.of(self.thin.vg, self.thin.name) as devices:
            for number in range(self._devices, wanted):
                devices.create(number)
            for number in range(wanted, self._devices):
                devices.delete(number)
        self._devices = wanted


@pytest.fixture(scope="module")
def filled() -> Iterator[FilledThin]:
    """Give a node that serves the small pool and trims its volumes every second."""
    before = Leftovers.now()
    with FilledThin() as running:
        yield running

    assert Leftovers.now().since(before) == []


def test_data_goes_through_all_levels_and_back_and_only_training_yields(filled: FilledThin) -> None:
    """The kernel's own count of chunks decides; what is refused says how full the pool is, and what to do."""
    refused = only_training_yields(filled, filled.fill)
    filled.take_down()

    assert all("emergency: its data is 9" in said and "sluice pool extend" in said for said in refused)


def test_metadata_alone_brings_an_emergency(filled: FilledThin) -> None:
    """A pool that runs out of it is read-only until it is repaired, so it has lower bounds than data."""
    training = filled.up("training", tier="training", writeBPS=CEILING)
    filled.fill_metadata(72)
    comes_to(filled, "no-new-volumes")
    filled.fill_metadata(92)
    comes_to(filled, "emergency")
    is_limited(training, LEAST_RATE)
    _, said = refusal(lambda: filled.create("late"))
    filled.fill_metadata(30)
    comes_to(filled, "ok")

    assert "emergency: its metadata is 9" in said
    filled.take_down()


def test_a_trim_gives_chunks_back_to_the_pool(filled: FilledThin) -> None:
    """By the kernel's count of them."""
    is_trimmed(filled.up("trimmed", 400 * MIB), lambda: filled.used()[0])
    filled.take_down()
