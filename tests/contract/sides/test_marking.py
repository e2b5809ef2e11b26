"""A pool whose passports cost a program: what a stage made of a volume is written there when the call is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline, wait_for
from csi_driver.node.uses import Use
from csi_driver.records import Volume
from tests.contract.sides.asking import ask, opened, soon
from tests.fakes.pool import FakeBackend
from tests.fakes.world import World

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from csi_driver.store.base import Store


def test_a_passport_gets_its_mark_right_after_the_stage(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting for the next look at all records, which is minutes away."""
    monkeypatch.setattr(FakeBackend, "amends_at_once", False)
    world = World(store)
    try:
        volume = world.controller.volumes.create(ask("a", nodes=frozenset({"n1"})), soon())
        side = world.agents["n1"]
        monkeypatch.setattr(side.agent, "_look_at_all", lambda: None)
        world.settle()
        target = tmp_path / "staging"
        target.mkdir()
        side.staging.stage(volume.id, target, Use(fs_type="ext4"), soon())

        def marked() -> bool:
            found = opened(world).find(volume.id)
            assert found is not None
            assert found.passport is not None
            return found.passport.format_done == "ext4"

        wait_for("the passport has the mark", marked, Deadline(5.0))
        record = world.store.get(Volume, volume.id)
    finally:
        world.close()

    assert record is not None
    assert record.status.history.format_done == "ext4"
