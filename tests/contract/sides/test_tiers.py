"""Controller and agent over a Store: what a thick volume takes of its pool and gives to nobody, and copies of btrfs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from csi_driver.controller.requests import SizeRange
from csi_driver.deadline import wait_for
from csi_driver.errors import NoSpace, StorageError, Unsupported
from csi_driver.node.uses import Use
from csi_driver.records import GIB, SIZE_STEP, Source, Volume
from tests.contract.sides.asking import ask, images, soon
from tests.fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from csi_driver.store.base import Store

TOTAL, RATIO = 100 * GIB, 4.0
SCRATCH = {"tier": "scratch"}


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    made = World(store, total=TOTAL, ratio=RATIO)
    yield made
    made.close()


def left(world: World) -> int:
    return world.agents["n1"].pool().ledger.left()


def capacity(world: World, **parameters: str) -> int:
    return world.controller.volumes.capacity(parameters, None, "", block=False)[0]


def test_a_volume_of_a_thick_tier_has_all_its_bytes_for_as_long_as_it_lives(world: World) -> None:
    """Its passport says so, its growth too; the class of another tier changes its rates, not what it is."""
    volume = world.controller.volumes.create(ask("a", 2 * GIB, parameters=SCRATCH), soon())
    world.controller.volumes.modify(volume.id, {"tier": "training"}, soon())
    world.controller.volumes.expand(volume.id, SizeRange(3 * GIB), soon())
    image = world.disks["n1"].images[volume.id]
    record = world.store.get(Volume, volume.id)

    assert (image.passport.thick, image.passport.tier, image.size) == (True, "training", 3 * GIB)
    assert record is not None
    assert (record.spec.thick, record.spec.qos.tier) == (True, "training")
    assert world.controller.volumes.create(ask("b"), soon()).spec.thick is False


def test_a_thick_volume_for_whose_growth_there_are_no_bytes_goes_on_as_it_was(world: World, tmp_path: Path) -> None:
    """The ledger admits it, the disk is full of what others wrote: it is refused, and staged at its old size."""
    volume = world.controller.volumes.create(ask("a", 2 * GIB, parameters=SCRATCH), soon())
    world.disks["n1"].others = TOTAL * 8 // 10
    with pytest.raises(NoSpace):
        world.controller.volumes.expand(volume.id, SizeRange(TOTAL // 2), soon())
    world.agents["n1"].staging.stage(volume.id, tmp_path, Use(fs_type="ext4"), soon())

    assert world.controller.volumes.get(volume.id).status.history.size == 2 * GIB


def test_the_ratio_promises_no_byte_of_a_thick_volume_to_others(world: World) -> None:
    """Of 100 GiB that are promised fourfold, 60 thick ones leave 160 to thin volumes: fourfold of the 40 that are left.

    So it is after a restart and after growth, and it ends with the volume.
    """
    volume = world.controller.volumes.create(ask("a", 50 * GIB, parameters=SCRATCH), soon())
    made = left(world)
    world.controller.volumes.expand(volume.id, SizeRange(60 * GIB), soon())
    grown = left(world)
    world.stop_agent("n1")
    world.start_agent("n1")
    restarted = left(world)
    with pytest.raises(NoSpace, match="of a thick volume each byte counts 4 times"):
        world.controller.volumes.create(ask("b", 41 * GIB, parameters=SCRATCH), soon())
    world.controller.volumes.create(ask("c", 160 * GIB), soon())
    none = left(world)
    world.controller.volumes.delete(volume.id, soon())
    world.settle()

    assert (made, grown, restarted, none) == (200 * GIB, 160 * GIB, 160 * GIB, 0)
    assert left(world) == 240 * GIB


def test_capacity_for_a_thick_tier_is_what_can_be_had(world: World) -> None:
    """A scheduler that heard of the fourfold would send pods to where their volume doesn't fit."""

    def told() -> bool:  # by a list that may be stale
        return (capacity(world), capacity(world, tier="scratch")) == (400 * GIB, 100 * GIB)

    wait_for("the capacity is told, all and for thick volumes", told, soon())
    volume = world.controller.volumes.create(ask("a", 100 * GIB, parameters=SCRATCH), soon())
    assert volume.status.seen.size == 100 * GIB
    with pytest.raises(NoSpace):
        world.controller.volumes.create(ask("b", SIZE_STEP), soon())


def test_capacity_for_a_thick_tier_is_no_more_than_is_free(world: World) -> None:
    """What others have written can be promised once more, but not be had; and what is told can be had."""
    world.disks["n1"].others = TOTAL * 7 // 10

    def told() -> bool:
        world.agents["n1"].agent._published.set()
        return (capacity(world), capacity(world, tier="scratch")) == (400 * GIB, 30 * GIB)

    wait_for("the capacity is told, all and for thick volumes", told, soon())
    with pytest.raises(NoSpace):
        world.controller.volumes.create(ask("a", 30 * GIB + SIZE_STEP, parameters=SCRATCH), soon())
    assert world.controller.volumes.create(ask("b", 30 * GIB, parameters=SCRATCH), soon()).spec.thick


@pytest.mark.parametrize(
    "copy",
    [
        lambda world, volume: world.controller.snapshots.create("s", volume.id, {}, soon()),
        lambda world, volume: world.controller.groups.create("g", [volume.id], {}, soon()),
        lambda world, volume: world.controller.volumes.create(ask("b", source=Source("volume", volume.id)), soon()),
    ],
    ids=["snapshot", "group", "clone"],
)
def test_a_thick_volume_has_no_copies(world: World, copy: Callable[[World, Volume], object]) -> None:
    """Its bytes are its own. The refusal says what to do, and nothing is left of it."""
    volume = world.controller.volumes.create(ask("a", parameters=SCRATCH), soon())

    with pytest.raises(Unsupported, match="is thick, as its tier scratch made it"):
        copy(world, volume)
    assert images(world) == 1


def test_a_thick_volume_is_made_from_nothing(world: World) -> None:
    """A copy by reference would be thin."""
    volume = world.controller.volumes.create(ask("a"), soon())
    request = ask("b", source=Source("volume", volume.id), parameters=SCRATCH)

    with pytest.raises(Unsupported, match="scratch makes thick volumes"):
        world.controller.volumes.create(request, soon())
    assert images(world) == 1


@pytest.mark.parametrize("fs_type", ["btrfs", "xfs"])
def test_a_copy_that_the_kernel_could_not_mount_is_not_made(world: World, tmp_path: Path, fs_type: str) -> None:
    """On a kernel without temp_fsid, clones and restores of a btrfs are refused; snapshots of it are fine."""
    world.machines["n1"].no_copies_of.add("btrfs")
    volume = world.controller.volumes.create(ask("a", fs_type=fs_type), soon())
    (tmp_path / "a").mkdir()
    world.agents["n1"].staging.stage(volume.id, tmp_path / "a", Use(fs_type=fs_type), soon())
    snapshot = world.controller.snapshots.create("s", volume.id, {}, soon())
    refused = []
    for name, source in {"b": Source("volume", volume.id), "c": Source("snapshot", snapshot.id)}.items():
        try:
            world.controller.volumes.create(dataclasses.replace(ask(name), source=source), soon())
        except StorageError as error:
            refused.append(type(error).__name__)
    world.settle()

    assert refused == (["Unsupported"] * 2 if fs_type == "btrfs" else [])
    assert images(world) == (2 if fs_type == "btrfs" else 4)
