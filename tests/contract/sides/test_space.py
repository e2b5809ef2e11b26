"""Controller and agent over a Store, while their pool fills: what is refused when, who yields, and how it all ends."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import pytest

from csi_driver.backends.sim import SimBackend
from csi_driver.controller.requests import SizeRange
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import NoSpace
from csi_driver.guard import Level
from csi_driver.node.uses import Use
from csi_driver.records import GIB, Pool, Source, Volume
from tests.contract.sides.asking import ask, images, soon
from tests.fakes.world import World, pool_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from csi_driver.records import PoolStatus
    from csi_driver.store.base import Store
    from qos.limits import Limits

TOTAL = 100 * GIB
CLASS = {"tier": "training", "writeBPS": "1Gi"}
FULL_RATE, LEAST_RATE = 1 << 30, (1 << 30) // 10


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    made = World(store, total=TOTAL)
    yield made
    made.close()


def fill(world: World, percent: int) -> None:
    """Have somebody else fill the pool, and wait until its record says so. What mkfs writes here are a few bytes."""
    world.disks["n1"].others = TOTAL * percent // 100
    published(world, lambda status: status.used // GIB == percent)


def published(world: World, holds: Callable[[PoolStatus], bool]) -> PoolStatus:
    """Wait until the pool's record is so."""

    def status() -> PoolStatus:
        record = world.store.get(Pool, pool_id("n1"))
        assert record is not None
        return record.status

    wait_for(f"the pool is published; now {status()}", lambda: holds(status()), Deadline(10.0))
    return status()


def told(world: World, room: int) -> None:
    """Wait until the controller, whose list may be stale, tells of so much room."""
    said = world.controller.volumes.capacity
    wait_for(f"{room} bytes are told", lambda: said({}, "n1", "", block=False)[:2] == (room, room), soon())


def taken(world: World, name: str) -> str:
    """Return the id of a volume that is taken, "" when the pool has no room."""
    with contextlib.suppress(NoSpace):
        return world.controller.volumes.create(ask(name), soon()).id
    return ""


def stage(world: World, folder: Path, name: str, **parameters: str) -> Volume:
    """Create and stage a volume."""
    volume = world.controller.volumes.create(ask(name, parameters=parameters), soon())
    (folder / name).mkdir()
    world.agents["n1"].staging.stage(volume.id, folder / name, Use(fs_type="ext4"), soon())
    return volume


def limits(world: World) -> list[Limits]:
    """Return the limits in force."""
    return list(world.machines["n1"].limits.values())


def condition(world: World, volume: Volume) -> str:
    """Return what is wrong with a volume."""
    return world.controller.volumes.get(volume.id).status.seen.abnormal


def until_written_at(world: World, rate: int) -> None:
    """Wait until one volume is limited so."""
    wait_for(f"wbps={rate}; it is {limits(world)}", lambda: [one.wbps for one in limits(world)] == [rate], soon())


def test_a_pool_publishes_what_it_promised_and_how_full_it_is(world: World) -> None:
    """Also its metadata, where it has any. A warning is words: volumes are made all the same."""
    world.disks["n1"].metadata_total = GIB
    world.controller.volumes.create(ask("a", 3 * GIB), soon())
    well = published(world, lambda status: bool(status.metadata_total and status.promised))
    fill(world, 82)
    warned = published(world, lambda status: status.guard == "warning")
    volume = world.controller.volumes.create(ask("b"), soon())

    assert (well.promised, well.left, well.guard, well.abnormal) == (3 * GIB, TOTAL - 3 * GIB, "ok", "")
    assert "its data is 82.0% full (82Gi of 100Gi)" in warned.abnormal
    assert warned.left == TOTAL - 3 * GIB
    assert volume.status.history.made


def test_a_fuller_pool_takes_less_and_says_why(world: World) -> None:
    """First no new volumes, also no copies; then no cuts and no growth; deletes always go."""
    volume = world.controller.volumes.create(ask("a"), soon())
    kept = world.controller.snapshots.create("s", volume.id, {}, soon())
    copy = dataclasses.replace(ask("copy"), source=Source("snapshot", kept.id))
    fill(world, 91)
    for request in (ask("late"), copy):
        with pytest.raises(NoSpace, match=r"no-new-volumes: its data is 91\.0% full \(91Gi of 100Gi\), .*make"):
            world.controller.volumes.create(request, soon())
    told(world, 0)
    cut = world.controller.snapshots.create("t", volume.id, {}, soon())
    grown = world.controller.volumes.expand(volume.id, SizeRange(2 * GIB), soon())
    fill(world, 96)
    with pytest.raises(NoSpace, match=r"no-new-snapshots: its data is 96\.0% full"):
        world.controller.snapshots.create("u", volume.id, {}, soon())
    with pytest.raises(NoSpace, match=r"no-new-snapshots: its data is 96\.0% full"):
        world.controller.groups.create("g", [volume.id], {}, soon())
    with pytest.raises(NoSpace, match=r"no-new-snapshots: its data is 96\.0% full"):
        world.controller.volumes.expand(volume.id, SizeRange(3 * GIB), soon())
    fill(world, 99)
    world.controller.volumes.delete(volume.id, soon())
    for snapshot in (cut, kept):
        world.controller.snapshots.delete(snapshot.id, soon())

    assert grown.status.seen.size == 2 * GIB
    assert images(world) == 0


def test_a_refusal_does_not_need_the_record_of_the_pool(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint may be old: the agent looks for itself, and then nothing is left of what it refused."""
    pool = world.agents["n1"].pool()
    monkeypatch.setattr(pool, "publish", lambda _: None)
    world.disks["n1"].others = TOTAL * 92 // 100
    with pytest.raises(NoSpace, match="fast: no-new-volumes"):
        world.controller.volumes.create(ask("late"), soon())

    assert images(world) == 0
    assert pool.ledger.promised() == 0


def test_in_an_emergency_training_is_held_to_its_least_and_inference_is_not(world: World, tmp_path: Path) -> None:
    """What is wanted doesn't change; the condition says it; a drift repair doesn't undo it; it ends with hysteresis."""
    other = stage(world, tmp_path, "b", tier="inference")
    ((device, kept),) = world.machines["n1"].limits.items()
    volume = stage(world, tmp_path, "a", **CLASS)

    def others() -> list[Limits]:
        return [line for dev, line in world.machines["n1"].limits.items() if dev != device]

    def held(rate: int) -> None:
        wait_for(f"wbps={rate}", lambda: [line.wbps for line in others()] == [rate], soon())
        assert world.machines["n1"].limits[device] == kept

    held(FULL_RATE)
    fill(world, 98)
    held(LEAST_RATE)
    assert world.agents["n1"].enforcer.reconcile() == 0
    wait_for("the condition says it", lambda: "its least rate" in condition(world, volume), soon())
    assert "pool fast is nearly full: its data is 98.0% full" in condition(world, volume)
    assert condition(world, other) == ""
    assert world.controller.volumes.get(volume.id).spec.qos.limits.wbps == FULL_RATE
    fill(world, 94)
    held(LEAST_RATE)
    fill(world, 92)
    held(FULL_RATE)
    wait_for("the condition is well", lambda: condition(world, volume) == "", soon())
    assert world.agents["n1"].pool().entered == {Level.EMERGENCY: 1, Level.NO_NEW_SNAPSHOTS: 1}


def test_a_volume_without_a_write_ceiling_gets_one_in_an_emergency(world: World, tmp_path: Path) -> None:
    """A class can take training's ceilings away, but not its turn."""
    stage(world, tmp_path, "a", tier="training", writeBPS="max", writeIOPS="max")
    fill(world, 98)
    until_written_at(world, 64 << 20)

    assert limits(world)[0].wiops == 4096


def test_what_is_staged_or_modified_in_an_emergency_yields_at_once(world: World, tmp_path: Path) -> None:
    """NodeStageVolume answers with the least in force, and a change of class doesn't lift it."""
    volume = world.controller.volumes.create(ask("a", parameters=CLASS), soon())
    fill(world, 98)
    (tmp_path / "a").mkdir()
    world.agents["n1"].staging.stage(volume.id, tmp_path / "a", Use(fs_type="ext4"), soon())
    staged = limits(world)
    world.controller.volumes.modify(volume.id, {"writeBPS": "2Gi"}, soon())

    assert [one.wbps for one in staged] == [LEAST_RATE]
    until_written_at(world, 2 * LEAST_RATE)
    fill(world, 10)
    until_written_at(world, 2 * FULL_RATE)


def test_the_turn_itself_is_reason_to_look_also_at_what_a_call_holds(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the look from time to time; a volume that is being staged is limited anew right after."""
    volume = stage(world, tmp_path, "a", **CLASS)
    world.settle()
    side = world.agents["n1"]
    monkeypatch.setattr(side.agent, "_look_at_all", lambda: None)
    with side.locks.hold(volume.id, "NodeStageVolume of"):
        fill(world, 98)
        wait_for("the agent knows", lambda: pool_id("n1") in side.agent._pressed, soon())
        meanwhile = [one.wbps for one in limits(world)]

    assert meanwhile == [FULL_RATE]
    until_written_at(world, LEAST_RATE)


def test_an_emergency_outlives_the_agent(world: World, tmp_path: Path) -> None:
    """A restart between the two edges doesn't let anybody go."""
    stage(world, tmp_path, "a", **CLASS)
    fill(world, 98)
    until_written_at(world, LEAST_RATE)
    fill(world, 94)
    world.kill_agent("n1")
    world.start_agent("n1")

    until_written_at(world, LEAST_RATE)
    assert published(world, lambda status: status.used // GIB == 94).guard == "emergency"
    world.settle()
    until_written_at(world, LEAST_RATE)


def test_metadata_alone_is_reason_enough(world: World, tmp_path: Path) -> None:
    """A thin pool without room for mappings is worse than one without room for data."""
    stage(world, tmp_path, "a", **CLASS)
    world.disks["n1"].metadata_total, world.disks["n1"].metadata_used = 100, 91
    until_written_at(world, LEAST_RATE)
    said = published(world, lambda status: status.guard == "emergency").abnormal

    assert said.startswith("emergency: its metadata is 91.0% full (91 of 100), so it takes nothing new")


def test_what_is_told_of_the_room_is_what_can_be_made(world: World) -> None:
    """The largest volume is one of whole steps, and it fits exactly, whatever else the pool has written."""
    world.disks["n1"].total = TOTAL + 777
    world.disks["n1"].others = TOTAL // 2
    published(world, lambda status: status.total == TOTAL + 777)
    world.controller.volumes.create(ask("a", 5 * GIB), soon())
    largest = TOTAL - 5 * GIB
    told(world, largest)
    volume = world.controller.volumes.create(ask("b", largest), soon())

    assert volume.status.seen.size == largest
    told(world, 0)


def test_a_pool_is_well_by_itself_when_room_was_made(world: World) -> None:
    """What was refused is taken as soon as there is room; nobody has to tell the server."""
    volume = world.controller.volumes.create(ask("a", 2 * GIB), soon())
    backend = SimBackend(world.disks["n1"])
    backend.open("")
    fill(world, 99)
    with pytest.raises(NoSpace):
        world.controller.volumes.create(ask("b"), soon())
    fill(world, 10)
    wait_for("it is taken", lambda: bool(taken(world, "b")), soon())  # again: lists may be stale

    assert sorted(each.id for each in backend.list()) == sorted([volume.id, taken(world, "b")])
