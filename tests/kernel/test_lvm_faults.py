"""What happens to a thin pool's volumes behind our back: nothing is guessed, and the words say what to do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.assemble import Machine
from csi_driver.backends.lvm import LvmBackend
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Foreign
from tests.faults.rig import create, until_done
from tests.kernel.hindered import KILLED, HinderedNode
from tests.kernel.node import MIB, refusal, run
from tests.kernel.slices import Slice, sliced
from tests.leftovers import Leftovers
from tests.storm.plan import volume_id
from tests.thinpool import ThinPool, lvm
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

SOON = 60.0
PATIENCE = 5.0


@pytest.fixture(scope="module")
def slices() -> Iterator[dict[str, Slice]]:
    """Give two disks: the pool's, and another."""
    before = Leftovers.now()
    with sliced(a=1500, b=500) as made:
        yield made

    assert Leftovers.now().since(before) == []


@pytest.fixture(scope="module")
def thin_machine(slices: dict[str, Slice]) -> Iterator[HinderedNode]:
    """Give a node that serves a thin pool on the first disk."""
    with HinderedNode(thin=ThinPool(disk=str(slices["a"].path))) as running:
        yield running


@pytest.mark.parametrize("moment", pick(["half"], ["before", "after", "half"]))
def test_a_command_that_was_killed_is_looked_up(thin: HinderedNode, moment: str) -> None:
    """Whatever it did: there is one logical volume afterwards, it is a device, and it serves."""
    thin.once("lvcreate", KILLED[moment])
    volume = thin.create("a")
    images = thin.images()
    volume.up().fill(4 * MIB)
    volume.down()

    assert images == [f"sluice-{volume.id}"]
    assert "lvm failed with status -9" in thin.log.read_text()


@pytest.mark.parametrize("moment", pick(["after"], ["before", "after"]))
def test_growth_and_deletion_outlive_a_killed_command(thin: HinderedNode, moment: str) -> None:
    """The caller comes again, and the volume is larger, and then gone."""
    volume = thin.up("a")
    thin.once("lvextend", KILLED[moment])
    until_done(partial(volume.expand, 128 * MIB), SOON)
    volume.expand_on_node(128 * MIB)
    volume.down()
    thin.once("lvremove", KILLED[moment])
    until_done(volume.delete, SOON)

    assert thin.images() == []


@pytest.mark.parametrize("command", pick(["lvchange"], ["lvchange", "dmsetup"]))
def test_a_volume_that_lost_its_device_gets_it_back_when_it_is_staged(thin: HinderedNode, command: str) -> None:
    """Somebody deactivated it, or took its device from the kernel alone."""
    volume = thin.up("a")
    volume.file.write_text("kept")
    volume.down()
    if command == "lvchange":
        lvm("lvchange", "-an", f"fast/sluice-{volume.id}")
    else:
        run("dmsetup", "remove", "--retry", f"fast-sluice--{volume.id.replace('-', '--')}")

    assert volume.up().file.read_text() == "kept"
    assert thin.listed() == {volume.id: ""}


def test_a_volume_that_was_removed_is_lost_and_not_made_anew(thin: HinderedNode) -> None:
    """Its condition says so; a repeated call makes nothing; it can be deleted."""
    volume = thin.create("a")
    lvm("lvremove", "-f", f"fast/sluice-{volume.id}")
    code, said = refusal(volume.stage)
    again = create(thin, "a", 64 * MIB)
    condition, images = volume.condition(), thin.images()

    assert (code, "LOST" in said, "LOST" in condition) == (grpc.StatusCode.UNAVAILABLE, True, True)
    assert (again.id, images) == (volume.id, [])


def test_what_has_our_name_and_no_passport_is_neither_used_nor_removed(thin: HinderedNode) -> None:
    """A call whose volume would have that name is refused with words, and served when it has gone."""
    name = f"fast/sluice-{volume_id('a')}"
    lvm("lvcreate", "-y", "-V", "64m", "-T", "fast/thin", "-n", name.removeprefix("fast/"))
    code, said = refusal(partial(create, thin, "a", 64 * MIB, seconds=PATIENCE))
    listed, there = thin.listed(), thin.images()
    lvm("lvrename", name, "fast/mine")
    until_done(partial(thin.create, "a"), SOON)
    others = lvm("lvs", "--noheadings", "-o", "lv_name", "fast").split()
    lvm("lvremove", "-f", "fast/mine")

    assert code in {grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE}
    assert "has no passport of this driver's" in said
    assert (listed, there) == ({}, [name.removeprefix("fast/")])
    assert "mine" in others


def test_of_two_groups_of_one_name_the_right_one_is_served(thin: HinderedNode, slices: dict[str, Slice]) -> None:
    """With a record by its UUID; without one none is, and the words name both."""
    volume, disk, machine = thin.up("a"), str(slices["b"].path), Machine()
    volume.file.write_text("kept")
    volume.down()
    uuid = lvm("vgs", "--noheadings", "-o", "vg_uuid", "fast").strip()
    thin.stop()
    lvm("vgchange", "-an", "fast")  # lvm wants the name in /dev
    lvm("pvcreate", "-ff", "-y", "--devices", disk, disk)
    lvm("vgcreate", "--devices", disk, "fast", disk)
    try:
        other = lvm("vgs", "--noheadings", "-o", "vg_uuid", "--devices", disk, "fast").strip()
        with pytest.raises(Foreign) as refused:
            LvmBackend("fast", "thin", machine.lvm, machine.mapper, machine.kernel).open("")
        thin.start()
        kept = volume.up().file.read_text()
        made = thin.create("b").up()
        made.fill(4 * MIB)
        listed = set(thin.listed().values())
        for each in (volume, made):
            each.down()
    finally:
        lvm("vgremove", "-ff", "-y", "--devices", disk, "fast")
        lvm("pvremove", "-y", "--devices", disk, disk)

    assert (uuid in str(refused.value), other in str(refused.value)) == (True, True)
    assert (kept, listed) == ("kept", {""})


@pytest.mark.torture
def test_a_group_that_lacks_a_disk_is_left_alone_until_it_has_it(thin: HinderedNode, slices: dict[str, Slice]) -> None:
    """While it serves and from the start: nothing is made there, and its volumes' condition says so."""
    volume, disk = thin.up("a"), slices["b"]
    volume.file.write_text("kept")
    volume.down()
    lvm("vgextend", "fast", str(disk.path))
    try:
        refused = []
        for gone in slices.values():
            with gone.without_node():
                wait_for("its condition says so", lambda: "lacks a disk" in volume.condition(), Deadline(SOON))
                refused += [_refused(thin, volume)]
            until_done(volume.up, SOON)
            volume.down()
        thin.stop()
        lvm("vgchange", "-an", "fast")
        disk.remove()
        try:
            thin.start()
            refused += [_refused(thin, volume)]
            listed = thin.listed()
        finally:
            disk.make()
        until_done(volume.up, SOON)
        kept = volume.file.read_text()
        volume.down()
    finally:
        lvm("vgreduce", "fast", str(disk.path))
        lvm("pvremove", "-y", str(disk.path))

    assert "lacks a disk" in listed[volume.id]
    assert refused == [{grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}] * 3
    assert (kept, thin.listed()) == ("kept", {volume.id: ""})


def _refused(thin: HinderedNode, volume: Volume) -> set[grpc.StatusCode]:
    """Return by which codes a stage and a new volume are refused."""
    calls = (volume.stage, partial(create, thin, "late", seconds=PATIENCE))
    return {refusal(call)[0] for call in calls}
