"""Copies that stand in a pool before their records have them as made: what a try that was cut has left."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from csi_driver.backends.base import Passport
from csi_driver.ids import new_id
from csi_driver.records import GIB, Snapshot, Source, Volume
from tests.contract.sides.asking import ask, opened, soon, volumes
from tests.fakes.world import SCOPE

if TYPE_CHECKING:
    from tests.fakes.world import World


def test_a_cut_of_which_nobody_knows_whether_its_volume_stood_still_is_made_again(world: World) -> None:
    """What is offered as a snapshot is of the moment of a cut that ended well."""
    (volume_id,), snapshot_id, pool = volumes(world, "a"), new_id(SCOPE, Snapshot.KIND, "s"), opened(world)
    pool.cut(volume_id, Passport(snapshot_id, "snapshot", "s"), GIB, nullcontext())
    pool.write(volume_id, 0, b"later")
    world.controller.snapshots.create("s", volume_id, {}, soon())

    assert pool.read(snapshot_id) == {0: b"later"}


def test_a_clone_that_was_cut_before_it_had_grown_has_its_size(world: World) -> None:
    """It was copied, and then its server died."""
    (volume_id,), clone_id, pool = volumes(world, "a"), new_id(SCOPE, Volume.KIND, "c"), opened(world)
    pool.cut(volume_id, Passport(clone_id, "volume", "c"), GIB, nullcontext())
    world.controller.volumes.create(ask("c", 3 * GIB, source=Source(Volume.KIND, volume_id)), soon())
    found = pool.find(clone_id)

    assert found is not None
    assert found.size == 3 * GIB
