"""Controller and agent over a Store: what is said of volumes whose pool, or whose growth, is in trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_driver.backends.base import Fill
from csi_driver.deadline import wait_for
from csi_driver.errors import Busy, Unready
from csi_driver.guard import Level
from csi_driver.node.uses import Use
from csi_driver.records import GIB
from tests.contract.sides.asking import ask, soon

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.records import Volume
    from tests.fakes.world import World


def test_a_volume_says_what_is_wrong_with_its_pool(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as that is so."""
    volume = world.controller.volumes.create(ask("a"), soon())
    pool = world.agents[_node_of(volume)].pool()

    heard: list[str] = []

    def said() -> str:
        heard[:] = world.controller.volumes.conditions([volume])  # by a list that may be stale
        return heard[0]

    def gone() -> Fill:
        raise Unready("its disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(pool.backend, "fill", gone)
        wait_for("its pool's trouble is its own", lambda: "its disk is gone" in said(), soon())
        trouble = list(heard)
    wait_for("all is well again", lambda: not said(), soon())

    assert trouble == [f"pool {pool.spec.name}: Unready: its disk is gone"]


def test_a_volume_whose_growth_was_cut_is_not_shown_at_its_new_size(world: World, tmp_path: Path) -> None:
    """What it grew by may not be there, or not be zeroed."""
    volume = world.controller.volumes.create(ask("a", 2 * GIB), soon())
    world.settle()
    world.disks[_node_of(volume)].images[volume.id].size = GIB

    with pytest.raises(Busy, match="is being grown to"):
        world.agents[_node_of(volume)].staging.stage(volume.id, tmp_path, Use(fs_type="ext4"), soon())


@pytest.mark.parametrize(("thick", "level"), [(98 * GIB, Level.OK), (0, Level.EMERGENCY)])
def test_what_thick_volumes_have_beside_a_pool_does_not_fill_it(
    world: World, monkeypatch: pytest.MonkeyPatch, thick: int, level: Level
) -> None:
    """They have it from the start: only what the others share can run out."""
    pool = world.agents["n1"].pool()
    monkeypatch.setattr(pool.backend, "fill", lambda: Fill(100 * GIB, 99 * GIB, thick=thick))
    pool.look()

    assert pool.level is level


def _node_of(volume: Volume) -> str:
    offer = volume.status.history.accepted
    assert offer is not None
    return offer.node
