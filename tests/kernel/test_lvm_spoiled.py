"""Thin pools that ran full, and whose metadata broke: nothing that was synced is lost, and all serve again."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from tests.faults.rig import create, until_done
from tests.kernel.hindered import HinderedNode
from tests.kernel.node import MIB, refusal, run
from tests.kernel.slices import Slice, sliced
from tests.leftovers import Leftovers
from tests.thinpool import ThinPool, lvm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

SOON = 60.0
PATIENCE = 5.0
QUEUED_SECONDS = 60.0
"""How long the kernel lets writers of a full pool hang that was not told to refuse them."""


@pytest.fixture(scope="module")
def slices() -> Iterator[dict[str, Slice]]:
    """Give two disks: one for data, one for metadata."""
    before = Leftovers.now()
    with sliced(a=1500, b=300) as made:
        yield made

    assert Leftovers.now().since(before) == []


class Apart(ThinPool):
    """A pool whose metadata has a disk of its own."""

    metadata_disk = ""

    def make(self) -> None:
        """Make it."""
        disks = (self.disk, self.metadata_disk)
        lvm("vgcreate", "--setautoactivation", "n", self.vg, *disks)
        lvm("lvcreate", "-y", "-L", "32m", "-n", "meta", self.vg, self.metadata_disk)
        lvm("lvcreate", "-y", "-L", "800m", "-n", self.name, self.vg, self.disk)
        words = ("--type", "thin-pool", "-c", self.chunk, "-Zy", "--poolmetadata", f"{self.vg}/meta")
        lvm("lvconvert", "-y", *words, f"{self.vg}/{self.name}")

    def remove(self) -> None:
        """Remove it with all that is in it."""
        lvm("vgremove", "-ff", "-y", self.vg)
        lvm("pvremove", "-y", self.disk, self.metadata_disk)


def test_a_full_pool_refuses_at_once_and_serves_again_when_it_is_larger(slices: dict[str, Slice]) -> None:
    """Who writes hears it, what was synced is there, no stage is answered with OK by halves, others go on."""
    with HinderedNode(thin=ThinPool(disk=str(slices["a"].path), size=("-L", "160m"))) as thin:
        other, greedy = thin.up("other"), thin.up("greedy", 256 * MIB)
        other.fill(8 * MIB)
        kept = other.file.read_bytes()
        synced, waited = _fill_up(greedy.target / "more")
        late = refusal(partial(create, thin, "late", seconds=PATIENCE))
        snapshot = refusal(partial(thin.cut, other, "cut"))
        other.file.write_bytes(kept)  # in place: its blocks are its own
        greedy.down()
        by_halves = _is_by_halves(greedy)
        lvm("lvextend", "-L", "+300m", "fast/thin")
        until_done(greedy.up, SOON)
        wait_for("there is room for a new one", lambda: _takes(thin, "later"), Deadline(SOON))
        (greedy.target / "after").write_bytes(bytes(MIB))
        more = (greedy.target / "more").read_bytes()[: synced * MIB]
        found = (other.file.read_bytes() == kept, more == _numbered(synced), thin.listed())

    assert waited < QUEUED_SECONDS / 2
    assert synced > 0
    assert (late[0], snapshot[0]) == (grpc.StatusCode.RESOURCE_EXHAUSTED,) * 2
    assert "sluice pool extend" in late[1]
    assert not by_halves
    assert found[:2] == (True, True)
    assert set(found[2].values()) == {""}


def test_a_pool_that_must_be_repaired_says_so_and_serves_afterwards(slices: dict[str, Slice]) -> None:
    """Its metadata can't be written for a while: volumes say what to do; what was synced before is there."""
    pool = Apart(disk=str(slices["a"].path))
    pool.metadata_disk = str(slices["b"].path)
    with HinderedNode(thin=pool) as thin:
        volume = thin.up("a", 256 * MIB)
        synced = _numbered(8)
        _write(volume.file, synced)
        with slices["b"].failing():
            waited = _fill_up(volume.target / "more")[1]
            wait_for("its condition says so", lambda: "lvconvert --repair" in volume.condition(), Deadline(SOON))
            late = refusal(partial(create, thin, "late", seconds=PATIENCE))[0]
            volume.down()
            stage = refusal(volume.stage)[0]
        thin.stop()
        lvm("vgchange", "-an", "fast")
        lvm("lvconvert", "-y", "--repair", "fast/thin")
        thin.start()
        until_done(volume.up, SOON)
        found = (volume.file.read_bytes() == synced, thin.listed())
        thin.up("late").fill(4 * MIB)

    assert waited < QUEUED_SECONDS / 2
    assert (stage, late) == (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert found == (True, {volume.id: ""})


def _takes(thin: HinderedNode, name: str) -> bool:
    """Try to create a volume. Return False when the pool is full, by the last look at it."""
    try:
        thin.create(name)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


def _numbered(count: int) -> bytes:
    return b"".join(bytes([number % 255 + 1]) * MIB for number in range(count))


def _write(path: Path, data: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())


def _fill_up(path: Path) -> tuple[int, float]:
    """Write and sync one MiB after the other until the kernel refuses: how many were synced, how long the last took."""
    synced, began = 0, time.monotonic()
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                began = time.monotonic()
                file.write(bytes([synced % 255 + 1]) * MIB)
                os.fsync(file.fileno())
                synced += 1
    except OSError:
        return synced, time.monotonic() - began


def _is_by_halves(volume: Volume) -> bool:
    """Try to stage a volume. Return whether that was answered with OK though it can't be written."""
    try:
        volume.stage()
    except grpc.RpcError:
        return False
    return "ro" in run("findmnt", "--noheadings", "--output", "OPTIONS", volume.staging).strip().split(",")
