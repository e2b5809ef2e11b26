"""Disks that are added to a thin pool, pulled out from under it, put back and lost, while a server serves it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from tests.faults.rig import create, until_done
from tests.kernel.node import MIB, number_of, refusal
from tests.kernel.parted import sluice, sluice_json
from tests.kernel.runbook import commands, typed
from tests.kernel.scsi import ScsiDisk, scsi_disks
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.thinpool import ThinPool, lvm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

SOON = 60.0
PATIENCE = 5.0
DISK_MIB = 150
HELPERS = Path("/sys/fs/cgroup/sluice-helpers/io.max")
REFUSED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


class OnTwo(ThinPool):
    """A pool whose data begin on one disk and end on another; its metadata are on the first."""

    second = ""

    def make(self) -> None:
        """Make it."""
        disks = (self.disk, self.second)
        lvm("pvcreate", "-ff", "-y", "--metadatasize", "4m", *disks)
        lvm("vgcreate", "--setautoactivation", "n", self.vg, *disks)
        lvm("lvcreate", "-y", "-L", "8m", "-n", "meta", self.vg, self.disk)
        lvm("lvcreate", "-y", "-L", "64m", "-n", self.name, self.vg, self.disk)
        lvm("lvextend", "-L", "+64m", f"{self.vg}/{self.name}", self.second)
        words = ("--type", "thin-pool", "-c", self.chunk, "-Zy", "--poolmetadata", f"{self.vg}/meta")
        lvm("lvconvert", "-y", *words, f"{self.vg}/{self.name}")
        lvm("lvchange", "--errorwhenfull", "y", f"{self.vg}/{self.name}")

    def remove(self) -> None:
        """Remove it with all that is in it, as far as it is there."""
        lvm("vgremove", "-ff", "-y", self.vg)
        lvm("pvremove", "-y", self.disk)


@pytest.fixture
def disks() -> Iterator[tuple[ScsiDisk, ...]]:
    """Give two disks, and see that nothing is left of what stood on them."""
    before = Leftovers.now()
    with scsi_disks(2, DISK_MIB) as made:
        yield made

    assert Leftovers.now().since(before) == []


@pytest.fixture
def thin(disks: tuple[ScsiDisk, ...]) -> Iterator[ThinNode]:
    """Give a node that serves a pool on both."""
    pool = OnTwo(disk=str(disks[0].path))
    pool.second = str(disks[1].path)
    with ThinNode(thin=pool) as running:
        yield running


def flags(node: ThinNode) -> tuple[str | Path, ...]:
    return ("--state", node.folder / "state", "--pool", f"name=fast,{node.thin.words}")


def says(volume: Volume, words: str) -> None:
    wait_for(f"its condition says {words!r}", lambda: words in volume.condition(), Deadline(SOON))


def doctor(node: ThinNode) -> str:
    """Return what doctor finds missing."""
    found = sluice_json("doctor", *flags(node), "--node-id", "node-a", status=1)["checks"]
    return " ".join(check["found"] for check in found if check["state"] == "missing")


def test_a_disk_that_is_added_is_known_and_limited_without_a_restart(disks: tuple[ScsiDisk, ...]) -> None:
    """The pool's record has both, and what the driver runs is held to its limits on both."""
    first, second = disks
    with ThinNode(thin=ThinPool(disk=str(first.path), size=("-L", "64m"), metadata="8m")) as node:

        def recorded() -> list[str]:
            (pool,) = sluice_json("pool", "list", *flags(node)[:2])
            return [disk["name"] for disk in pool["disks"]]

        alone = recorded()
        sluice("pool", "extend", "fast", "--device", second.path, "--metadatasize", "4Mi", *flags(node))
        names = sorted(disk.path.name for disk in disks)
        wait_for("the record has both disks", lambda: sorted(recorded()) == names, Deadline(SOON))
        limited = {line.split()[0] for line in HELPERS.read_text().splitlines()}
        node.up("a").fill(4 * MIB)
    lvm("pvremove", "-y", str(second.path))

    assert alone == [first.path.name]
    assert {str(number_of(disk.path)) for disk in disks} <= limited


@pytest.mark.torture
def test_a_disk_that_was_pulled_out_serves_again_after_what_the_runbook_says(
    thin: ThinNode, disks: tuple[ScsiDisk, ...]
) -> None:
    """Nobody hangs, writers hear it at once. Put back, it is another disk, and serves when all let go of the first."""
    volume, other, late = thin.up("a"), thin.up("b"), thin.create("c")
    volume.fill(48 * MIB)
    kept = volume.file.read_bytes()
    disks[1].pull()
    with pytest.raises(OSError, match=r"Input/output|Read-only"):
        other.fill(16 * MIB)
    says(volume, "lacks a disk")
    refused = {refusal(late.stage)[0], refusal(partial(create, thin, "late", seconds=PATIENCE))[0]}
    for each in (volume, other):
        each.down()
    found = [doctor(thin)]
    disks[1].plug()
    says(volume, "was pulled out")
    refused.add(refusal(late.stage)[0])
    found += [doctor(thin)]
    typed(commands("A disk is gone")[0])
    says(volume, "must be repaired")
    found += [doctor(thin)]
    thin.stop()
    *repair, remove = commands("The pool must be repaired")
    for line in repair:
        typed(line)
    thin.start()
    for each in thin.volumes:
        until_done(each.up, SOON)
    other.fill(4 * MIB)
    typed(remove)

    assert [
        words in said for words, said in zip(("lacks the disk", "was pulled out", "lvm says"), found, strict=True)
    ] == [True] * 3
    assert refused <= REFUSED
    assert volume.file.read_bytes() == kept
    assert set(thin.listed().values()) == {""}


@pytest.mark.torture
def test_a_group_without_its_lost_disk_can_be_removed(thin: ThinNode, disks: tuple[ScsiDisk, ...]) -> None:
    """The disk that is left is free for a new pool."""
    thin.up("a").fill(48 * MIB)
    for volume in thin.volumes:
        volume.down()
    disks[1].pull()
    thin.stop()
    for line in commands("A disk is gone")[1:]:
        typed(line)
    groups = lvm("vgs", "--noheadings").split()
    disks[1].plug()
    thin.thin.make()
    thin.volumes.clear()  # they are lost

    assert groups == []
