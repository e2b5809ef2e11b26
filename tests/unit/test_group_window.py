"""What a group snapshot does while its volumes are held still, counted: nothing but what each member needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_driver.errors import Unsupported
from csi_driver.node.uses import Use
from csi_driver.store.hostile import HostileStore, Malice
from tests.contract.sides.asking import ask, soon
from tests.fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

CALM = Malice(delay=0.0, skip=0.0, silence=0.0)


def staged(world: World, count: int, use: Use) -> list[str]:
    """Make and stage volumes; return their ids."""
    ids = []
    for number in range(count):
        volume = world.controller.volumes.create(ask(f"v{number}", block=use.block), soon())
        staging = world.folder / f"staging-{number}"
        staging.mkdir()
        world.agents["n1"].staging.stage(volume.id, staging, use, soon())
        ids.append(volume.id)
    world.settle()
    return ids


def effects_of_a_group(count: int, *, mapper: bool) -> list[str]:
    """Return the node's effects, by their first word, in a group of so many volumes in use."""
    world = World(HostileStore(1, CALM), mapper=mapper)
    try:
        ids = staged(world, count, Use(fs_type="ext4"))
        life = world.agents["n1"].life
        before = len(life.effects)
        world.controller.groups.create("g", ids, {}, soon())
        return [effect.split(" ")[0] for effect in life.effects[before:]]
    finally:
        world.close()


@pytest.fixture(params=[(True, "DM_DEV_SUSPEND", "resume"), (False, "FIFREEZE", "FITHAW")], ids=["mapped", "bare"])
def way(request: pytest.FixtureRequest) -> Iterator[tuple[bool, str, str]]:
    """Say whether there is device-mapper, and by which effects volumes are held and let go."""
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_while_volumes_are_held_each_is_cut_and_nothing_else_is_done(way: tuple[bool, str, str], count: int) -> None:
    """Hold all, cut all, let all go: as many effects a member in a group of nine as in a group of one."""
    mapper, hold, let_go = way
    effects = effects_of_a_group(count, mapper=mapper)
    within = effects[effects.index(hold) : -(effects[::-1].index(let_go))]

    assert within == [hold] * count + ["name", "copy"] * count + [let_go] * count
    assert effects[: effects.index(hold)].count("syncfs") == (1 if count == 1 else 2 * count)
    assert "syncfs" not in effects[effects.index(hold) :]


def test_a_raw_volume_that_nothing_holds_still_is_not_cut_with_others() -> None:
    """Without device-mapper its users write on: refused, with what to do; alone it can be cut."""
    world = World(HostileStore(1, CALM), mapper=False)
    try:
        ids = staged(world, 2, Use(block=True))
        with pytest.raises(Unsupported, match=r"raw device, .* load dm_mod, or unstage it"):
            world.controller.groups.create("g", ids, {}, soon())
        _, members = world.controller.groups.create("alone", ids[:1], {}, soon())
        world.settle()
        images = len(world.disks["n1"].images)
    finally:
        world.close()

    assert (len(members), images) == (1, 3)
