"""An agent that is killed before and after each effect of its work on floors: never is more promised than there is."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import wait_for
from csi_driver.errors import NoSpace
from csi_driver.records import Volume
from csi_driver.store.sqlite import SqliteStore
from qos.iocost import PROMISABLE, Cost, Floor
from tests.contract.sides.asking import ask, images, soon
from tests.contract.sides.test_floors import DISK, KNOWN
from tests.fakes.life import Killed, Life
from tests.fakes.world import World

if TYPE_CHECKING:
    from pathlib import Path

COST = Cost.of(KNOWN["S1"], 256 << 10)


def calls(world: World) -> tuple[str, str, str]:
    """Create, lower, raise and delete; return the ids of the first and last volume, and how the refused one ended."""
    volumes = world.controller.volumes
    first = volumes.create(ask("a", parameters={"minIOPS": "450"}), soon())
    volumes.modify(first.id, {"minIOPS": "90"}, soon())
    second = volumes.create(ask("b", parameters={"minIOPS": "540"}), soon())
    refused = ""
    try:
        volumes.modify(first.id, {"minIOPS": "200"}, soon())
    except NoSpace as error:
        refused = str(error)
    volumes.delete(second.id, soon())
    third = volumes.create(ask("c", parameters={"minIOPS": "630"}), soon())
    return first.id, third.id, refused


def promised(world: World) -> int:
    """Return what the agent's ledger says, once it is what the records' histories say."""
    (pool,) = world.agents["n1"].pools

    def by_history() -> int:
        return sum(COST.share(record.status.history.floor) for record in world.store.all(Volume))

    wait_for("ledger and histories agree", lambda: pool.floors.disks(pool.id)[0].promised == by_history(), soon())
    assert by_history() <= PROMISABLE
    return by_history()


def cut(world: World, life: Life) -> bool:
    """Go through all calls while a life ends at its cut and the next one goes on; False when it had no such effect."""
    world.kill_agent("n1")
    try:
        world.start_agent("n1", life)
    except Killed:
        world.start_agent("n1")
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(calls, world)
        wait_for("the calls end, or the agent", lambda: asked.done() or life.dead, soon())
        spared = asked.done() and life.spare()
        if not spared and world.agents["n1"].life is life:
            world.kill_agent("n1")
            world.start_agent("n1")
            assert promised(world) <= PROMISABLE
        first, last, refused = asked.result()
    world.settle()

    assert "takes 22.2 % of disk S1, of which 60.0 % is promised and 20.0 % free" in refused
    floors = {record.id: record.status.history.floor for record in world.store.all(Volume)}
    assert floors == {first: Floor(iops=90), last: Floor(iops=630)}
    assert promised(world) == PROMISABLE
    assert images(world) == 2
    return not spared


@pytest.mark.parametrize("when", ["before", "after"])
def test_floors_are_promised_once_wherever_the_agent_dies(tmp_path: Path, when: str) -> None:
    """Create, modify down and up, delete, create again: each call ends as if nothing had happened."""
    done = 0
    for number in itertools.count():
        world = World(SqliteStore(tmp_path / f"{number}.db"), disk=DISK, known=KNOWN, away_after=5.0)
        try:
            if not cut(world, Life(cut=(number, when))):
                break
            assert world.faults() == []
        finally:
            world.close()
        done += 1

    assert done > 10
