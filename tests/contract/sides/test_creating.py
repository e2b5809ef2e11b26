"""Controller and agent over a Store: volumes are made once, where they fit, and deleted."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from csi_driver.controller.requests import SizeRange, VolumeRequest
from csi_driver.deadline import Deadline
from csi_driver.errors import Busy, Conflict, NoSpace
from csi_driver.ids import new_id
from csi_driver.records import GIB, Volume
from tests.contract.sides.asking import ask, images, soon
from tests.fakes.world import SCOPE, World


def test_a_created_volume_has_its_bytes_and_a_history(world: World) -> None:
    """What CreateVolume returns stands in one pool, and its record says so."""
    volume = world.controller.volumes.create(ask("a", 3 * GIB), soon())

    history = volume.status.history
    assert history.made
    assert history.accepted is not None
    found = world.disks[history.accepted.node].images[volume.id]
    assert (found.size, found.passport.name) == (3 * GIB, "a")
    assert images(world) == 1


def test_a_repeated_create_finds_its_own(world: World) -> None:
    """The same name and wish give the same volume, by the same controller or by one that knows nothing."""
    first = world.controller.volumes.create(ask("a"), soon())
    world.restart_controller()
    second = world.controller.volumes.create(ask("a"), soon())

    assert second.id == first.id
    assert images(world) == 1


@pytest.mark.parametrize(
    "other",
    [
        ask("a", 2 * GIB),
        ask("a", parameters={"tier": "training"}),
        ask("a", fs_type="xfs"),
        dataclasses.replace(ask("a"), size=SizeRange(0, GIB // 2)),
    ],
    ids=["size", "parameters", "file system", "limit"],
)
def test_a_create_with_other_words_is_a_conflict(world: World, other: VolumeRequest) -> None:
    """A name that stands for something else is refused, and nothing changes."""
    world.controller.volumes.create(ask("a"), soon())

    with pytest.raises(Conflict, match="'a' exists"):
        world.controller.volumes.create(other, soon())
    assert images(world) == 1


def test_many_creates_of_one_name_make_one_volume(world: World) -> None:
    """Callers that race for a name get the same volume or are asked to come again."""

    def one(_: int) -> str:
        try:
            return world.controller.volumes.create(ask("a"), soon()).id
        except Busy:
            return ""

    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(one, range(16))) - {""}

    assert len(ids) == 1
    assert images(world) == 1


def test_a_deleted_volume_leaves_nothing(world: World) -> None:
    """After DeleteVolume there are no bytes, no record and no promise; a second one is fine."""
    volume = world.controller.volumes.create(ask("a"), soon())
    world.controller.volumes.delete(volume.id, soon())
    world.controller.volumes.delete(volume.id, soon())
    world.settle()

    assert images(world) == 0
    assert world.store.get(Volume, volume.id) is None
    assert all(side.pool().ledger.left() == 100 * GIB for side in world.agents.values())


def test_the_ledger_never_promises_more_than_the_pools_hold(world: World) -> None:
    """Sixty callers want 240 GiB of 200: fifty get theirs, ten hear NoSpace, and nothing is left of those."""

    def one(number: int) -> bool:
        while True:
            try:
                world.controller.volumes.create(ask(f"v{number}", 4 * GIB), Deadline(30.0))
            except NoSpace:
                return False
            except Busy:
                continue
            return True

    with ThreadPoolExecutor(20) as threads:
        got = sum(threads.map(one, range(60)))
    world.settle()

    assert got == 50
    assert images(world) == 50
    assert len(world.store.list(Volume)) >= 50
    assert all(side.pool().ledger.left() == 0 for side in world.agents.values())


def test_what_no_pool_can_hold_is_refused_for_good(world: World) -> None:
    """NoSpace is final: no record, no bytes, and no volume comes later."""
    with pytest.raises(NoSpace, match="can't take 200Gi"):
        world.controller.volumes.create(ask("big", 200 * GIB), soon())
    world.settle()

    assert world.store.get(Volume, new_id(SCOPE, "volume", "big")) is None
    assert images(world) == 0


def test_topology_decides_where_a_volume_goes(world: World) -> None:
    """Preferred nodes come first, and a node that was not asked for gets nothing."""
    volume = world.controller.volumes.create(ask("a", nodes=frozenset({"n2"}), preferred=("n2",)), soon())

    accepted = volume.status.history.accepted
    assert accepted is not None
    assert accepted.node == "n2"
    with pytest.raises(NoSpace, match="not in the topology"):
        world.controller.volumes.create(ask("b", nodes=frozenset({"n9"})), soon())
