"""A group snapshot is rebuilt from the passports of its members, when all of them are there."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from csi_driver import adopting
from csi_driver.adopting import Action, Rules
from csi_driver.backends.sim import SimBackend
from csi_driver.deadline import Deadline, wait_for
from csi_driver.groups import GroupSnapshot
from csi_driver.records import Snapshot
from csi_driver.shelves import Shelf
from csi_driver.store.base import StoreUnready
from csi_driver.store.hostile import HostileStore, Malice
from tests.contract.sides.asking import ask, soon
from tests.fakes.world import SCOPE, TIERS, World, agent_side, controller_side, pool_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.backends.base import Found
    from csi_driver.store.base import Store

RULES = Rules(SCOPE, TIERS)


@pytest.fixture
def lost() -> Iterator[World]:
    """Give a world with a group of two, whose records nobody will look at."""
    world = World(HostileStore(1, Malice()))
    ids = [world.controller.volumes.create(ask(name), soon()).id for name in ("a", "b")]
    world.controller.groups.create("g", ids, {"csi.storage.k8s.io/x": "y"}, soon())
    world.stop_agent("n1")
    yield world
    world.close()


def found(world: World) -> tuple[Found, ...]:
    """Return what stands in the pool: the members last."""
    backend = SimBackend(world.disks["n1"])
    backend.open("")
    return tuple(sorted(backend.list(), key=lambda one: one.kind, reverse=True))


def shelf(*bytes_found: Found, pool: str = "") -> Shelf:
    return Shelf(pool or pool_id("n1"), "fast", "n1", bytes_found)


def adopt(store: Store, *bytes_found: Found) -> list[adopting.Step]:
    """Plan and do it; return the plan."""
    steps = adopting.plan([shelf(*bytes_found)], adopting.known_records(store), RULES)
    list(adopting.carry_out(store, steps))
    return steps


def test_a_group_whose_records_are_lost_is_as_it_was(lost: World) -> None:
    """After an adoption and a start it answers as before, with the same members, and takes as much of the pool."""
    (group,) = lost.store.all(GroupSnapshot)
    ids = [member.id for member in group.spec.members]
    before = lost.controller.groups.get(group.id, ids)
    store = HostileStore(2, Malice())
    steps = adopt(store, *found(lost))
    side, controller = agent_side(store, "n1", machine=lost.machines["n1"]), controller_side(store)
    try:
        again, members = controller.groups.get(group.id, ids)
        asked, _ = controller.groups.create(
            "g", [one.volume for one in group.spec.members], {"csi.storage.k8s.io/x": "y"}, soon()
        )
        left = side.pool().ledger.left()
        controller.groups.delete(group.id, ids, soon())
    finally:
        controller.waiting.close()
        side.agent.stop()

    assert (again.spec, asked.id) == (group.spec, group.id)
    assert again.status.history == dataclasses.replace(group.status.history, held_ms=0)
    assert [(one.spec, one.status.history) for one in members] == [(one.spec, one.status.history) for one in before[1]]
    assert left == (1 << 40) - 4 * (1 << 30)
    assert {step.action for step in steps} == {Action.ADOPT}
    assert not store.all(Snapshot)


def test_members_that_are_not_all_there_stand_alone(lost: World) -> None:
    """It is said, and they can be deleted one by one."""
    *volumes, member, _ = found(lost)
    store = HostileStore(2, Malice())
    steps = adopt(store, *volumes, member)
    record = store.get(Snapshot, member.id)

    assert record is not None
    assert record.spec.group == ""
    assert "alone: not all of the 2 members of group g are here" in steps[-1].note
    assert not store.all(GroupSnapshot)


def test_members_of_two_instants_are_no_group(lost: World) -> None:
    """A cut that was done again in part says so by its time."""
    *volumes, first, second = found(lost)
    assert second.passport is not None
    later = dataclasses.replace(second.passport, made="2027-01-01T00:00:00+00:00")
    steps = adopt(HostileStore(2, Malice()), *volumes, first, dataclasses.replace(second, passport=later))

    assert [type(step.record) for step in steps[-2:]] == [Snapshot, Snapshot]


def test_members_of_a_group_that_has_a_record_are_left_to_it(lost: World) -> None:
    """Also when they have none yet: its agent gives it to them, or has begun to cut them anew."""
    *_, first, second = found(lost)
    (group,) = lost.store.all(GroupSnapshot)
    known = {(GroupSnapshot.KIND, group.id): group}
    whole = adopting.plan([shelf(first, second)], known, RULES)
    half = adopting.plan([shelf(first)], known, RULES)

    assert [step.action for step in whole + half] == [Action.KNOWN] * 3


def test_a_group_in_two_pools_is_nobodys(lost: World) -> None:
    """As any other bytes that two pools hold."""
    members = found(lost)[-2:]
    steps = adopting.plan([shelf(*members), shelf(*members, pool="id-of-another")], {}, RULES)

    assert [step.action for step in steps] == [Action.LEAVE] * 4


@pytest.mark.parametrize("seed", range(10))
def test_an_adoption_that_is_cut_anywhere_is_finished_by_the_next(lost: World, seed: int) -> None:
    """Whether a write landed may be unknown; in the end the agent has all members."""
    store = HostileStore(seed, Malice(unknown=0.3, delay=0.0))
    bytes_found = found(lost)

    def whole() -> bool:
        try:
            return {step.action for step in adopt(store, *bytes_found)} == {Action.KNOWN}
        except StoreUnready:
            return False

    wait_for("all is adopted", whole, Deadline(20.0))
    (group,) = store.all(GroupSnapshot)

    assert group.status.history.made
    assert group.spec.offer is not None
