"""Volumes that are adopted while pods use them go on being used in the same form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_driver import adopting
from csi_driver.backends.sim import SimBackend
from csi_driver.node.uses import Use
from csi_driver.records import Volume
from csi_driver.shelves import Shelf
from csi_driver.store.hostile import HostileStore, Malice
from tests.contract.sides.asking import ask, soon
from tests.fakes.world import SCOPE, TIERS, World, agent_side, pool_id

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = adopting.Rules(SCOPE, TIERS)


@pytest.fixture
def world() -> Iterator[World]:
    """Give a world with one node."""
    made = World(HostileStore(1, Malice()))
    yield made
    made.close()


@pytest.mark.parametrize("use", [Use(block=True), Use(fs_type="ext4")], ids=["raw", "mounted"])
def test_an_adopted_volume_in_use_can_be_published_again(world: World, use: Use) -> None:
    """Its pod's neighbour gets it without another stage, which nobody would make: it is staged."""
    volume = world.controller.volumes.create(ask("v", block=use.block), soon())
    staging, target = world.folder / "staging", world.folder / "pod"
    staging.mkdir()
    world.agents["n1"].staging.stage(volume.id, staging, use, soon())
    world.stop_agent("n1")
    backend = SimBackend(world.disks["n1"])
    backend.open("")
    store = HostileStore(2, Malice())
    shelf = Shelf(pool_id("n1"), "fast", "n1", tuple(backend.list()))
    list(adopting.carry_out(store, adopting.plan([shelf], {}, RULES)))
    side = agent_side(store, "n1", machine=world.machines["n1"])
    try:
        side.publishing.publish(volume.id, staging, target, use)
        adopted = store.get(Volume, volume.id)
    finally:
        side.agent.stop()
        store.close()

    assert adopted is not None
    assert adopted.status.history.raw == use.block
    assert target.exists()
