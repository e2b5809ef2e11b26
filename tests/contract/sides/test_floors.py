"""Controller and agent over a Store: floors, which the agent of a pool's node admits by disk."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from csi_driver.agent.agent import settle
from csi_driver.controller.requests import SizeRange
from csi_driver.deadline import wait_for
from csi_driver.errors import Invalid, NoSpace, Unready
from csi_driver.host.block import Disk
from csi_driver.node.uses import Use
from csi_driver.records import GIB, Source, Volume
from qos.iocost import NO_FLOOR, PROMISABLE, Floor, Measured, Speed
from qos.limits import DevNo
from tests.contract.sides.asking import ask, images, soon
from tests.fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_driver.store.base import Store

speed = Speed.rated(1000, 50 << 20)
KNOWN = {"S1": Measured(speed, speed)}
DISK = Disk(DevNo(8, 0), "sda", "S1", "", 1 << 40, rotational=False)


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    made = World(store, ("n1", "n2"), total=100 * GIB, disk=DISK, known=KNOWN)
    yield made
    made.close()


def promised(world: World, node: str) -> int:
    (pool,) = world.agents[node].pools
    (disk,) = pool.floors.disks(pool.id)
    return disk.promised


def kept(world: World, volume_id: str) -> Volume:
    record = world.store.get(Volume, volume_id)
    assert record is not None
    return record


def test_a_floor_is_promised_and_given_back(world: World) -> None:
    """By create and delete; what it takes is in the agent's own history."""
    volume = world.controller.volumes.create(ask("a", parameters={"minIOPS": "450"}, nodes=frozenset({"n1"})), soon())

    assert kept(world, volume.id).status.history.floor == Floor(iops=450)
    assert promised(world, "n1") == 500_000
    world.controller.volumes.delete(volume.id, soon())
    assert promised(world, "n1") == 0


def test_a_floor_that_doesnt_fit_goes_to_another_node_and_then_nowhere(world: World) -> None:
    """Refused with the arithmetic of each disk, and nothing of it is left behind."""
    floor = {"minIOPS": "450"}
    made = [world.controller.volumes.create(ask(name, parameters=floor), soon()) for name in "ab"]
    with pytest.raises(NoSpace, match=r"takes 50\.0 % of disk S1, of which 50\.0 % is promised and 30\.0 % free"):
        world.controller.volumes.create(ask("c", parameters=floor), soon())

    nodes = {volume.status.history.accepted.node for volume in made if volume.status.history.accepted}
    assert nodes == {"n1", "n2"}
    assert images(world) == 2
    assert len(world.store.all(Volume)) == 2
    assert [promised(world, node) for node in ("n1", "n2")] == [500_000, 500_000]


def test_a_class_whose_floor_fits_nowhere_has_no_capacity(world: World) -> None:
    """So the scheduler looks elsewhere; a class without one has all that is left."""
    parameters = {"minIOPS": "400"}
    world.controller.volumes.create(ask("a", parameters=parameters, nodes=frozenset({"n1"})), soon())
    wanted = {("n1", "400"): 0, ("n2", "400"): 100 * GIB, ("n1", "max"): 99 * GIB}

    def capacities() -> dict[tuple[str, str], int]:
        return {
            (node, floor): world.controller.volumes.capacity({"minIOPS": floor}, node, "", block=False)[1]
            for node, floor in wanted
        }

    # What is published is a hint, and comes when it comes.
    wait_for("the pools are published", lambda: capacities() == wanted, soon())


def test_a_modification_is_promised_or_changes_nothing(world: World) -> None:
    """Up and down; what is refused leaves the limits that came with it out too."""
    ids = frozenset({"n1"})
    volume = world.controller.volumes.create(ask("a", parameters={"minIOPS": "90"}, nodes=ids), soon())
    world.controller.volumes.create(ask("b", parameters={"minIOPS": "450"}, nodes=ids), soon())
    world.controller.volumes.modify(volume.id, {"minIOPS": "270"}, soon())
    assert promised(world, "n1") == PROMISABLE
    with pytest.raises(NoSpace, match="ask for at most 270 IOPS"):
        world.controller.volumes.modify(volume.id, {"minIOPS": "271", "readIOPS": "5k"}, soon())
    world.settle()

    record = kept(world, volume.id)
    assert record.spec.qos.overrides == {"minIOPS": "270"}
    assert (record.spec.qos.limits.riops, record.status.history.floor) == (None, Floor(iops=270))
    world.controller.volumes.modify(volume.id, {"minIOPS": "none"}, soon())
    assert promised(world, "n1") == 500_000
    assert kept(world, volume.id).status.history.floor == NO_FLOOR


def test_a_floor_that_grows_with_its_volume_is_promised_with_the_bytes(world: World) -> None:
    """An expansion for which the disk has no share is refused, and is not done later either."""
    volume = world.controller.volumes.create(ask("a", parameters={"minIOPS": "100/Gi"}), soon())
    world.controller.volumes.expand(volume.id, SizeRange(7 * GIB), soon())
    with pytest.raises(NoSpace, match=r"takes 88\.9 %"):
        world.controller.volumes.expand(volume.id, SizeRange(8 * GIB), soon())
    world.settle()

    history = kept(world, volume.id).status.history
    assert (history.size, history.floor) == (7 * GIB, Floor(iops=700))


def test_a_clone_has_a_floor_of_its_own(world: World) -> None:
    """And is made where its source is, or nowhere."""
    floor = {"minIOPS": "300"}
    source = world.controller.volumes.create(ask("a", parameters=floor), soon())
    clone = world.controller.volumes.create(ask("b", parameters=floor, source=Source("volume", source.id)), soon())
    with pytest.raises(NoSpace, match=r"takes 33\.3 %"):
        world.controller.volumes.create(ask("c", parameters=floor, source=Source("volume", source.id)), soon())

    assert kept(world, clone.id).status.history.floor == Floor(iops=300)


def test_an_agent_that_starts_again_has_promised_what_it_had(world: World) -> None:
    """It folds its records before the first offer; nobody gets by a crash what he was refused."""
    ids = frozenset({"n1"})
    world.controller.volumes.create(ask("a", parameters={"minIOPS": "450"}, nodes=ids), soon())
    world.kill_agent("n1")
    world.start_agent("n1")

    assert promised(world, "n1") == 500_000
    with pytest.raises(NoSpace):
        world.controller.volumes.create(ask("b", parameters={"minIOPS": "300"}, nodes=ids), soon())


def test_a_record_stands_in_the_ledger_with_its_floor_before_anybody_works_on_it(world: World) -> None:
    """By its history alone, as at a start; what it merely wants does not count."""
    volume = world.controller.volumes.create(ask("a", parameters={"minIOPS": "450"}, nodes=frozenset({"n1"})), soon())
    world.settle()
    record = kept(world, volume.id)
    wanting = record.with_spec(qos=dataclasses.replace(record.spec.qos, floor=Floor(iops=9)))
    (pool,) = world.agents["n1"].pools
    pool.settle(record.id, 0)
    nothing = promised(world, "n1")
    settle(wanting, pool)

    assert (nothing, promised(world, "n1")) == (0, 500_000)


def test_no_limit_of_a_wish_is_set_whose_floor_is_refused(world: World, tmp_path: Path) -> None:
    """Even where no controller takes the wish back."""
    volume = world.controller.volumes.create(ask("a", parameters={"readIOPS": "700"}, nodes=frozenset({"n1"})), soon())
    side, machine = world.agents["n1"], world.machines["n1"]
    side.staging.stage(volume.id, tmp_path, Use(fs_type="ext4"), soon())
    before = dict(machine.limits)
    record = kept(world, volume.id)
    limits = dataclasses.replace(record.spec.qos.limits, riops=5000)
    wish = record.with_spec(qos=dataclasses.replace(record.spec.qos, limits=limits, floor=Floor(iops=2000)))
    world.store.put_spec(wish)
    wait_for("it is refused", lambda: kept(world, volume.id).status.seen.error is not None, soon())

    assert [one.riops for one in before.values()] == [700]
    assert machine.limits == before


def test_a_volume_whose_floor_cant_be_kept_is_not_staged_and_nothing_is_left(world: World, tmp_path: Path) -> None:
    """The kernel here has no io.cost. Without its floor it is staged, and is not given one while it is in use."""
    ids = frozenset({"n1"})
    volume = world.controller.volumes.create(ask("a", parameters={"minIOPS": "450"}, nodes=ids), soon())
    side = world.agents["n1"]
    with pytest.raises(Unready, match=r"must not run without its floor: read .*io\.cost\.model.*use another one"):
        side.staging.stage(volume.id, tmp_path, Use(fs_type="ext4"), soon())
    machine = world.machines["n1"]
    left = (dict(machine.mapped), list(machine.mounts), side.enforcer.wanted())
    world.controller.volumes.modify(volume.id, {"minIOPS": "none"}, soon())
    side.staging.stage(volume.id, tmp_path, Use(fs_type="ext4"), soon())
    with pytest.raises(Unready, match="must not run without its floor"):
        world.controller.volumes.modify(volume.id, {"minIOPS": "90"}, soon())

    assert left == ({}, [], {})
    assert promised(world, "n1") == 100_000


def test_thirty_two_callers_are_never_promised_more_than_a_disk_can_give(world: World) -> None:
    """64 of 45 IOPS on a disk that has room for sixteen."""

    def one(number: int) -> bool:
        try:
            world.controller.volumes.create(
                ask(f"v{number}", parameters={"minIOPS": "45"}, nodes=frozenset({"n1"})), soon()
            )
        except NoSpace:
            return False
        return True

    with ThreadPoolExecutor(32) as threads:
        assert sum(threads.map(one, range(64))) == 16
    assert promised(world, "n1") == PROMISABLE
    assert images(world) == 16


def test_a_ceiling_near_the_floor_is_refused_before_anything_is_made(world: World) -> None:
    """With the reason, by create and by modify."""
    with pytest.raises(Invalid, match="readIOPS: a ceiling of 800 is below 900"):
        world.controller.volumes.create(ask("a", parameters={"minIOPS": "450", "readIOPS": "800"}), soon())
    volume = world.controller.volumes.create(ask("a", parameters={"minIOPS": "450"}), soon())
    with pytest.raises(Invalid, match="readIOPS: a ceiling of 800 is below 900"):
        world.controller.volumes.modify(volume.id, {"readIOPS": "800"}, soon())

    assert images(world) == 1
