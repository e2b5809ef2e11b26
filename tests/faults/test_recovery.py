"""What is in force before a server serves anything, in process: the limits of volumes in use, however it knows them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from csi_driver.agent.queue import Queue
from csi_driver.controller.requests import SizeRange, VolumeRequest
from csi_driver.deadline import Deadline
from csi_driver.node.uses import Use
from csi_driver.records import GIB, Seen, Volume
from csi_driver.store.sqlite import SqliteStore
from tests.fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a world with one node."""
    made = World(SqliteStore(tmp_path / "sluice.db"))
    yield made
    made.close()


@pytest.mark.parametrize("adopted", [False, True])
def test_limits_are_in_force_before_the_agent_begins_its_work(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adopted: bool
) -> None:
    """Also those of a record that was adopted, and that says nothing of where its volume is staged."""
    request = VolumeRequest(name="a", size=SizeRange(GIB), parameters={"readIOPS": "300"})
    volume = world.controller.volumes.create(request, Deadline(10.0))
    world.agents["n1"].staging.stage(volume.id, tmp_path, Use(fs_type="ext4"), Deadline(10.0))
    world.stop_agent("n1")
    machine = world.machines["n1"]
    ((device, before),) = machine.limits.items()
    machine.limits.clear()
    if adopted:
        record = world.store.get(Volume, volume.id)
        assert record is not None
        world.store.put_status(dataclasses.replace(record, status=dataclasses.replace(record.status, seen=Seen())))
    with monkeypatch.context() as idle:
        idle.setattr(Queue, "start", lambda _: None)
        world.start_agent("n1")

    assert before.riops == 300
    assert machine.limits == {device: before}
