"""A pool that fills and empties again, on a real kernel: what is refused, who yields, and what the kernel is told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from tests.kernel.filling import CEILING, FALL, LEAST_RATE, MIB, RISE, SEEN_SECONDS, is_limited, line, walk
from tests.kernel.node import Node, refusal
from tests.kernel.pod import SLICE
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


def test_a_pool_goes_through_all_levels_and_back_and_only_training_yields(filled: Filled) -> None:
    """In an emergency the line of training is its least, also after somebody has changed it; inference has its own."""
    training = filled.up("training", tier="training", writeBPS=CEILING)
    inference = filled.up("inference", tier="inference")
    kept = line(inference)
    seen = walk(filled, filled.fill, RISE, training, inference)
    late = refusal(lambda: filled.create("late"))
    cut = refusal(lambda: filled.cut(training, "late"))
    (SLICE / "io.max").write_text(f"{training.number} wbps=max\n")
    is_limited(training, LEAST_RATE)
    told = training.condition_on_node()
    seen |= walk(filled, filled.fill, FALL, training, inference)
    filled.ballast.unlink()
    wait_for("the volume is well", lambda: not training.condition_on_node(), Deadline(SEEN_SECONDS))

    assert seen == {kept}
    assert [code for code, _ in (late, cut)] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    assert all("emergency: its data is 98.0% full" in said for _, said in (late, cut))
    assert "its writes are held to its least rate: pool fast is nearly full" in told
    filled.take_down()


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_a_trim_reaches_the_pool_through_the_mapped_device(filled: Filled, fs_type: str) -> None:
    """What a pod deleted is a hole in the image soon after, and what it kept is the same."""
    volume = filled.up(f"trimmed-{fs_type}", 400 * MIB, fs_type=fs_type)
    kept, image = volume.target / "kept", filled.image(volume.id)
    kept.write_bytes(os.urandom(4 * MIB))
    volume.fill(60 * MIB)
    os.sync()
    full, was = image.stat().st_blocks * 512, kept.read_bytes()
    volume.file.unlink()
    os.sync()

    def given_back() -> bool:
        return image.stat().st_blocks * 512 < full - 50 * MIB

    wait_for("the blocks are given back", given_back, Deadline(SEEN_SECONDS))
    volume.down()
    volume.up()

    assert kept.read_bytes() == was
    assert filled.metric('sluice_trimmed_bytes_total{pool="fast"}') > 50 * MIB
    filled.take_down()
