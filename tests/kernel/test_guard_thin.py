"""A thin pool that fills, in data and in metadata, and what trims give back to it."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.host.dmtable import request_buffer
from tests.kernel.filling import CEILING, FALL, LEAST_RATE, MIB, RISE, SEEN_SECONDS, comes_to, is_limited, line, walk
from tests.kernel.node import refusal, run
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.thinpool import ThinPool, lvm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

BLOCK = bytes(4096)
CONTROL = Path("/dev/mapper/control")
DM_TARGET_MSG = 0xC138FD0E
SECTOR = struct.Struct("=Q")
FIRST_DEVICE = 1_000_000
"""Far above the ids that lvm gives to thin devices."""


class SmallPool(ThinPool):
    """A pool with large chunks, so that few writes fill it, and little metadata, which some hundred devices fill."""

    def make(self) -> None:
        """Make it."""
        lvm("pvcreate", "-ff", "-y", "--metadatasize", "16m", self.disk)
        lvm("vgcreate", "--setautoactivation", "n", self.vg, self.disk)
        words = ("--type", "thin-pool", "-c", "1m", "-Zy", "--poolmetadatasize", "2m", "-L", "1g")
        lvm("lvcreate", "-y", *words, "-n", self.name, self.vg)
        lvm("lvchange", "--errorwhenfull", "y", f"{self.vg}/{self.name}")


class FilledThin(ThinNode):
    """A node whose thin pool can be filled to a percent."""

    def __init__(self) -> None:
        super().__init__("--trim-every=1s")
        self.thin = SmallPool()
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
        """Have so much of the pool's data allocated, by a write into each chunk or a discard of it."""
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
        wait_for("the kernel has counted it", lambda: abs(self.used()[0] - wanted) <= MIB, Deadline(SEEN_SECONDS))

    def fill_metadata(self, percent: int) -> None:
        """Have so much of its metadata allocated, by thin devices of which lvm knows nothing: one block for each."""
        used, size = self.used("metadata")
        more = round((size * percent / 100 - used) / len(BLOCK))
        wanted = max(0, self._devices + more)
        with CONTROL.open("rb") as control:
            for number in range(self._devices, wanted):
                self._message(control.fileno(), f"create_thin {FIRST_DEVICE + number}")
            for number in range(wanted, self._devices):
                self._message(control.fileno(), f"delete {FIRST_DEVICE + number}")
        self._devices = wanted

    def _message(self, control: int, words: str) -> None:
        """Tell the pool something, as dmsetup does; hundreds of programs would take minutes."""
        message = SECTOR.pack(0) + words.encode() + b"\0"
        name = f"{self.thin.vg}-{self.thin.name}-tpool"
        fcntl.ioctl(control, DM_TARGET_MSG, request_buffer(name, "", 0, message, cookie=0))


@pytest.fixture(scope="module")
def filled() -> Iterator[FilledThin]:
    """Give a node that serves the small pool and trims its volumes every second."""
    before = Leftovers.now()
    with FilledThin() as running:
        yield running

    assert Leftovers.now().since(before) == []


def test_data_goes_through_all_levels_and_back_and_only_training_yields(filled: FilledThin) -> None:
    """The kernel's own count of chunks decides; what is refused says how full the pool is."""
    training = filled.up("training", tier="training", writeBPS=CEILING)
    inference = filled.up("inference", tier="inference")
    kept = line(inference)
    seen = walk(filled, filled.fill, RISE, training, inference)
    late = refusal(lambda: filled.create("late"))
    cut = refusal(lambda: filled.cut(training, "late"))
    told = training.condition_on_node()
    seen |= walk(filled, filled.fill, FALL, training, inference)

    assert seen == {kept}
    assert [code for code, _ in (late, cut)] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    assert all("emergency: its data is 9" in said and "sluice pool extend" in said for _, said in (late, cut))
    assert "its writes are held to its least rate: pool fast is nearly full" in told
    filled.take_down()


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
    """What a pod deleted is free for others soon after, and what it kept is the same."""
    volume = filled.up("trimmed", 400 * MIB)
    kept = volume.target / "kept"
    kept.write_bytes(os.urandom(4 * MIB))
    volume.fill(60 * MIB)
    os.sync()
    full, was = filled.used()[0], kept.read_bytes()
    volume.file.unlink()
    os.sync()
    wait_for("the chunks are free", lambda: filled.used()[0] < full - 50 * MIB, Deadline(SEEN_SECONDS))
    volume.down()
    volume.up()

    assert kept.read_bytes() == was
    filled.take_down()
