"""Thick volumes beside a thin pool: what was in their place is never seen, whatever was cut."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.rpc import csi_pb2 as csi
from tests.faults.rig import until_done
from tests.kernel.hindered import KILLED, HinderedNode
from tests.kernel.node import MIB, refusal
from tests.kernel.slices import Slice, sliced
from tests.leftovers import Leftovers
from tests.thinpool import ThinPool, lvm, rows
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

SIZE, GROWN = 32 * MIB, 96 * MIB
DIRT_MIB = 160
SOON = 60.0


@pytest.fixture(scope="module")
def slices() -> Iterator[dict[str, Slice]]:
    """Give two disks: the pool's, and another."""
    before = Leftovers.now()
    with sliced(a=700, b=120) as made:
        yield made

    assert Leftovers.now().since(before) == []


@pytest.fixture(scope="module")
def thin_machine(slices: dict[str, Slice]) -> Iterator[HinderedNode]:
    """Give a node that serves a thin pool with room beside it."""
    thin = ThinPool(disk=str(slices["a"].path), size=("-L", "256m"))
    with HinderedNode(thin=thin) as running:
        yield running


@pytest.fixture
def dirty(thin: HinderedNode) -> HinderedNode:
    """Give the node, with somebody's secret in the room that the next volume gets."""
    lvm("lvcreate", "-y", "-W", "n", "-L", f"{DIRT_MIB}m", "-n", "dirt", "fast")
    with open("/dev/fast/dirt", "r+b", buffering=0) as file:  # noqa: PTH123 - unbuffered
        file.writelines(b"a secret" * (MIB // 8) for _ in range(DIRT_MIB))
        os.fsync(file.fileno())
    lvm("lvremove", "-f", "fast/dirt")
    return thin


def all_zeros(volume: Volume) -> bool:
    """Return whether a volume shows nothing else."""
    return not volume.file.read_bytes().strip(b"\0")


def test_a_thick_volume_shows_only_zeros_new_and_grown(dirty: HinderedNode) -> None:
    """And its room is not the thin pool's."""
    volume = dirty.create("a", SIZE, block=True, tier="scratch").up()
    new = all_zeros(volume)
    volume.expand(GROWN)
    layout = lvm("lvs", "--noheadings", "-o", "lv_layout", f"fast/sluice-{volume.id}").strip()

    assert (new, all_zeros(volume), layout) == (True, True, "linear")
    assert dirty.listed() == {volume.id: ""}


def test_a_thick_volume_has_a_file_system_that_stays(thin: HinderedNode) -> None:
    """It is formatted once, and what its pod wrote is there when it is staged again."""
    volume = thin.create("a", 64 * MIB, tier="scratch").up()
    volume.file.write_text("kept")
    volume.down()

    assert volume.up().file.read_text() == "kept"


@pytest.mark.parametrize("command", pick(["lvchange"], ["lvcreate", "lvchange"]))
def test_a_volume_whose_making_was_cut_is_zeroed_before_it_is_offered(dirty: HinderedNode, command: str) -> None:
    """The server dies when the room is allocated, or just before it says that all is zero."""
    dirty.once(command, 'kill -9 "$PPID"; ' + KILLED["before"] if command == "lvchange" else 'kill -9 "$PPID"')
    with pytest.raises(grpc.RpcError):
        dirty.create("a", SIZE, block=True, tier="scratch")
    dirty.stop(signal.SIGKILL)
    dirty.start()
    volume = dirty.create("a", SIZE, block=True, tier="scratch").up()

    assert all_zeros(volume)
    assert dirty.images() == [f"sluice-{volume.id}"]


def test_growth_that_was_cut_shows_nothing_until_it_is_zeroed(dirty: HinderedNode) -> None:
    """What was written stays, no stage shows the unzeroed part, and the growth is ended later."""
    volume = dirty.create("a", SIZE, block=True, tier="scratch").up()
    volume.file.write_bytes(b"mine")
    dirty.once("lvchange", KILLED["before"])
    refused = refusal(partial(volume.expand, GROWN))[0]
    until_done(partial(volume.expand, GROWN), SOON)
    found = volume.file.read_bytes()

    assert refused in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED}
    assert (len(found), found[:4], found[4:].strip(b"\0")) == (GROWN, b"mine", b"")


def test_capacity_for_thick_volumes_is_what_the_group_can_give(thin: HinderedNode) -> None:
    """The thin pool could promise more; a volume of that size is made, and nothing is left then."""
    request = csi.GetCapacityRequest(parameters={"tier": "scratch"})

    def told() -> int:
        return int(thin.client.controller.GetCapacity(request, timeout=SOON).available_capacity)

    lvm("lvcreate", "-y", "-W", "n", "-L", "300m", "-n", "others", "fast")
    try:
        free = int(rows("vgs", "-o", "vg_free", "fast")[0]["vg_free"])
        wait_for("what others took is known", lambda: told() == free, Deadline(SOON))
        thin.create("a", free, block=True, tier="scratch")
        wait_for("all is taken", lambda: told() == 0, Deadline(SOON))
        more = refusal(partial(thin.create, "b", MIB, block=True, tier="scratch"))[0]
    finally:
        lvm("lvremove", "-f", "fast/others")

    assert 0 < free < 256 * MIB
    assert more is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.torture
def test_of_two_disks_both_carry_a_thick_volume(thin: HinderedNode, slices: dict[str, Slice]) -> None:
    """It is striped where all have room, and linear where they haven't."""
    disk = str(slices["b"].path)
    lvm("vgextend", "fast", disk)
    try:
        made = [thin.create(name, size * MIB, block=True, tier="scratch") for name, size in (("a", 64), ("b", 200))]
        made[0].up()
        zeros = all_zeros(made[0])
        stripes = [lvm("lvs", "--noheadings", "-o", "stripes", f"fast/sluice-{each.id}").strip() for each in made]
        made[0].down()
        for each in made:
            each.delete()
    finally:
        lvm("vgreduce", "fast", disk)
        lvm("pvremove", "-y", disk)

    assert (zeros, stripes) == (True, ["2", "1"])
