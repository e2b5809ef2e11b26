"""Controller and agent over a Store: growing, modifying, cutting, copying, losing and listing."""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.backends.sim import SimBackend, SimPool
from csi_driver.controller.requests import SizeRange
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Conflict, Invalid, NoSpace, NotFound, OutOfRange, StorageError
from csi_driver.ids import new_id
from csi_driver.records import GIB, Source, Volume
from tests.contract.sides.asking import ask, images, soon
from tests.fakes.world import SCOPE, World


def test_a_volume_grows_and_keeps_its_size_when_the_pool_refuses(world: World) -> None:
    """Expansion is all or nothing: what the pool can't promise is OUT_OF_RANGE to the user, and nothing grows later."""
    volume = world.controller.volumes.create(ask("a"), soon())
    grown = world.controller.volumes.expand(volume.id, SizeRange(5 * GIB), soon())

    assert grown.status.seen.size == 5 * GIB
    with pytest.raises(NoSpace):
        world.controller.volumes.expand(volume.id, SizeRange(500 * GIB), soon())
    world.settle()
    assert world.controller.volumes.get(volume.id).spec.size == 5 * GIB
    assert world.controller.volumes.expand(volume.id, SizeRange(2 * GIB), soon()).status.seen.size == 5 * GIB


def test_modify_touches_only_the_keys_it_was_given(world: World) -> None:
    """A wrong key changes nothing; a right one changes that one limit."""
    volume = world.controller.volumes.create(ask("a", parameters={"tier": "training", "readIOPS": "700"}), soon())
    with pytest.raises(Invalid, match="writeBPS"):
        world.controller.volumes.modify(volume.id, {"writeIOPS": "100", "writeBPS": "fast"}, soon())
    with pytest.raises(Invalid, match="burstBPS: not supported yet"):
        world.controller.volumes.modify(volume.id, {"burstBPS": "100"}, soon())
    changed = world.controller.volumes.modify(volume.id, {"writeIOPS": "100"}, soon())

    before, after = volume.spec.qos.limits, changed.spec.qos.limits
    assert after == dataclasses.replace(before, wiops=100)
    assert after.riops == 700


def test_a_snapshot_lives_on_without_its_volume(world: World) -> None:
    """A cut keeps what was written; a volume made from it has the same bytes, also when the source is gone."""
    volume = world.controller.volumes.create(ask("a"), soon())
    node = volume.status.history.accepted
    assert node is not None
    backend = SimBackend(world.disks[node.node])
    backend.open("")
    backend.write(volume.id, 0, b"before")
    snapshot = world.controller.snapshots.create("s", volume.id, {}, soon())
    backend.write(volume.id, 0, b"after!")
    world.controller.volumes.delete(volume.id, soon())
    restored = world.controller.volumes.create(
        dataclasses.replace(ask("b", 2 * GIB), source=Source("snapshot", snapshot.id)), soon()
    )

    assert backend.read(restored.id) == {0: b"before"}
    assert restored.status.seen.size == 2 * GIB
    assert world.controller.snapshots.create("s", volume.id, {}, soon()).id == snapshot.id
    world.controller.snapshots.delete(snapshot.id, soon())
    again = dataclasses.replace(ask("b", 2 * GIB), source=Source("snapshot", snapshot.id))
    assert world.controller.volumes.create(again, soon()).id == restored.id, "a retry needs no source"


def test_a_copy_smaller_than_its_source_is_out_of_range(world: World) -> None:
    """A volume that can't hold what it is made from is refused."""
    volume = world.controller.volumes.create(ask("a", 4 * GIB), soon())

    with pytest.raises(OutOfRange, match="can't hold the source"):
        world.controller.volumes.create(dataclasses.replace(ask("b", GIB), source=Source("volume", volume.id)), soon())


def test_a_clone_of_nothing_is_not_found(world: World) -> None:
    """A source that isn't there is NOT_FOUND, and nothing is left."""
    with pytest.raises(NotFound, match="snapshot_id"):
        world.controller.volumes.create(
            dataclasses.replace(ask("b"), source=Source("snapshot", new_id(SCOPE, "snapshot", "no"))), soon()
        )
    assert not world.store.list(Volume)


def test_a_snapshot_name_belongs_to_one_volume(world: World) -> None:
    """The same name for another volume is a conflict."""
    first = world.controller.volumes.create(ask("a"), soon())
    second = world.controller.volumes.create(ask("b"), soon())
    world.controller.snapshots.create("s", first.id, {}, soon())

    with pytest.raises(Conflict, match="of volume"):
        world.controller.snapshots.create("s", second.id, {}, soon())


def test_lost_bytes_are_reported_and_never_made_anew(world: World) -> None:
    """Once made, absence is the condition LOST."""
    volume = world.controller.volumes.create(ask("a"), soon())
    node = volume.status.history.accepted
    assert node is not None
    del world.disks[node.node].images[volume.id]
    wait_for(
        "the volume is known to be lost",
        lambda: "LOST" in world.controller.volumes.get(volume.id).status.seen.abnormal,
        soon(),
    )
    world.settle()

    assert images(world) == 0
    world.controller.volumes.delete(volume.id, soon())
    assert world.store.get(Volume, volume.id) is None


def test_a_pool_that_is_not_the_one_of_its_record_does_nothing(world: World) -> None:
    """Another disk under the pool's path: every volume waits, nothing is made or deleted there."""
    volume = world.controller.volumes.create(ask("a", nodes=frozenset({"n1"})), soon())
    world.stop_agent("n1")
    ours, world.disks["n1"] = world.disks["n1"], SimPool(marker="another")
    world.start_agent("n1")
    with pytest.raises(StorageError, match="another"):
        world.controller.volumes.delete(volume.id, Deadline(2.0))
    world.stop_agent("n1")
    world.disks["n1"] = ours
    world.start_agent("n1")
    wait_for("it is deleted", lambda: world.store.get(Volume, volume.id) is None, soon())

    assert not ours.images


def test_pages_stay_right_while_volumes_come_and_go(world: World) -> None:
    """Every volume that stays is listed once, whatever is made or deleted between the pages."""
    made = [world.controller.volumes.create(ask(f"v{n}"), soon()).id for n in range(12)]
    seen: list[str] = []
    token = ""
    gone: set[str] = set()
    number = 0
    while True:
        page, token = world.controller.volumes.page(token, 3)
        seen += [volume.id for volume in page]
        if not token:
            break
        gone.add(token)
        world.controller.volumes.delete(token, soon())
        world.controller.volumes.create(ask(f"new{number}"), soon())
        number += 1
        wait_for("lists are fresh", lambda: len(world.store.list(Volume)) == 12, soon())

    assert len(seen) == len(set(seen))
    assert set(made) - gone <= set(seen)
    with pytest.raises(Invalid, match="starting_token"):
        world.controller.volumes.page("no-such-token", 3)


def test_the_passport_follows_a_modification(world: World) -> None:
    """The bytes say which tier and limits a volume has now, so that adopt gives it those back."""
    volume = world.controller.volumes.create(ask("a", parameters={"tier": "training"}), soon())
    world.controller.volumes.modify(volume.id, {"tier": "inference", "readIOPS": "800"}, soon())

    image = next(disk.images[volume.id] for disk in world.disks.values() if volume.id in disk.images)
    assert (image.passport.tier, image.passport.overrides) == ("inference", {"readIOPS": "800"})
    assert image.passport.parameters == {"tier": "training"}
