"""Group snapshots at random: overlapping ones, under writes that go on, while anybody dies or the power goes."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Busy, Conflict, NoSpace, Unready
from csi_driver.groups import GroupSnapshot
from csi_driver.ids import new_id
from csi_driver.node.uses import Use
from csi_driver.records import GIB, Snapshot
from csi_driver.store.hostile import HostileStore, Malice
from tests.contract.sides.asking import ask, soon
from tests.fakes.life import Killed
from tests.fakes.world import SCOPE, World
from tests.torture import TORTURE, pick

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_driver.backends.sim import SimImage
    from tests.fakes.life import Life

T = TypeVar("T")
MALICE = Malice(delay=0.0, skip=0.0, silence=0.0)
VOLUMES = ("v0", "v1", "v2", "v3")
NODE = "n1"
names = st.sampled_from(("g0", "g1", "g2"))
choices = st.lists(st.sampled_from(range(len(VOLUMES))), min_size=1, max_size=4, unique=True)
deaths = st.one_of(
    st.none(),
    st.none(),
    st.tuples(st.just("agent"), st.integers(0, 79)),
    st.tuples(st.just("controller"), st.integers(0, 3)),
)
"""Who dies in a call, and at which of his effects: before it when the number is even, else after it."""


class Groups(RuleBasedStateMachine):
    """Hold four volumes in use, and which groups there must be: name and volumes."""

    @initialize(seed=st.integers(0, (1 << 16) - 1))
    def begin(self, seed: int) -> None:
        """Open a world; in every second one, writes may have landed or not."""
        malice = replace(MALICE, unknown=0.0 if seed % 2 else 0.05)
        self.world = World(HostileStore(seed, malice), (NODE,), away=lambda _: self.agent.dead)
        volumes = self.world.controller.volumes
        self.ids = [until_done(partial(volumes.create, ask(name), soon())).id for name in VOLUMES]
        self.groups: dict[str, tuple[str, ...]] = {}
        self.written = 0
        self.stage()

    @property
    def agent(self) -> Life:
        """Return the agent's life."""
        return self.world.agents[NODE].life

    def stage(self) -> None:
        """Bring all volumes up."""
        for name, volume_id in zip(VOLUMES, self.ids, strict=True):
            place = self.world.folder / name
            place.mkdir(exist_ok=True)
            until_done(partial(self.world.agents[NODE].staging.stage, volume_id, place, Use(fs_type="ext4"), soon()))

    def write(self, steps: int) -> None:
        """Write numbers to one volume after the other, wherever the last call left off."""
        for _ in range(steps):
            name, number = VOLUMES[self.written % len(VOLUMES)], self.written // len(VOLUMES) + 1
            self.world.machines[NODE].write(self.world.folder / name, 0, str(number).encode())
            self.written += 1

    def during(self, death: tuple[str, int] | None, call: Callable[[], object]) -> bool:
        """Call, and have somebody die at one of his effects; return whether the call was answered with OK."""
        who = self.agent if death and death[0] == "agent" else self.world.controller.life
        if death:
            who.cut = (len(who.effects) + death[1] // 2, ("before", "after")[death[1] % 2])
        lives, answered = (self.agent, self.world.controller.life), False
        for life in lives:
            life.unsure = False
        try:
            with contextlib.suppress(Killed):
                call()
                answered = True
        except (Busy, NoSpace, Unready):
            assert who.dead or any(life.unsure for life in lives)
        if not who.spare() and death:
            self.write(2 * len(VOLUMES) + 1)
            if death[0] == "agent":
                self.world.kill_agent(NODE)
                self.world.start_agent(NODE)
            else:
                self.world.restart_controller()
        return answered

    @rule(name=names, chosen=choices, death=deaths, steps=st.integers(0, 7))
    def group(self, name: str, chosen: list[int], death: tuple[str, int] | None, steps: int) -> None:
        """Make a group, or ask again for one that is there, with the same volumes or others."""
        self.write(steps)
        volumes = tuple(sorted(self.ids[number] for number in chosen))
        there = self.groups.get(name)
        if there not in (None, volumes):
            with pytest.raises(Conflict):
                self.world.controller.groups.create(name, volumes, {}, soon())
            return
        if self.during(death, lambda: self.world.controller.groups.create(name, volumes[::-1], {}, soon())):
            self.groups[name] = volumes
            self.check()
        else:
            self.check(name, volumes)

    @rule(name=names, death=deaths, steps=st.integers(0, 7))
    def delete(self, name: str, death: tuple[str, int] | None, steps: int) -> None:
        """Delete a group, or one that isn't there."""
        self.write(steps)
        group_id = new_id(SCOPE, GroupSnapshot.KIND, name)
        record = self.world.store.get(GroupSnapshot, group_id)
        members = [member.id for member in record.spec.members] if record else []
        if self.during(death, lambda: self.world.controller.groups.delete(group_id, members, soon())):
            self.groups.pop(name, None)
            self.check()
        else:
            self.check(name, self.groups.get(name, ()))

    @rule(steps=st.integers(0, 7))
    def lose_power(self, steps: int) -> None:
        """Lose what no store has flushed, and all that is not on the disk."""
        self.write(steps)
        self.world.controller.kill()
        self.world.kill_agent(NODE)
        assert isinstance(self.world.store, HostileStore)
        self.world.store.lose_power()
        self.world.machines[NODE].reboot()
        self.world.start_agent(NODE)
        self.world.restart_controller()
        self.stage()
        self.check()

    def check(self, name: str = "", volumes: tuple[str, ...] = ()) -> None:
        """See that all groups are whole or not at all; whether that of a name is there, a death has left open."""
        wait_for("all is done", self.done, Deadline(20.0))
        store, machine = self.world.store, self.world.machines[NODE]
        records = {record.spec.name: record for record in store.all(GroupSnapshot)}
        found = {key: tuple(one.volume for one in record.spec.members) for key, record in records.items()}
        if name:
            self.groups.pop(name, None)
            self.groups |= {name: volumes} if name in found else {}
        assert found == self.groups
        members = {one.id: record for record in records.values() for one in record.spec.members}
        assert {one.id: one.spec.group for one in store.all(Snapshot)} == {k: v.id for k, v in members.items()}
        assert machine.pool.images.keys() == members.keys() | set(self.ids)
        for record in records.values():
            held = {self.ids.index(one.volume): number_in(machine.pool.images[one.id]) for one in record.spec.members}
            numbers = [held[place] for place in sorted(held)]
            assert numbers == sorted(numbers, reverse=True), numbers
            assert numbers[0] - numbers[-1] <= 1, numbers
        assert [thing for thing in machine.things() if "suspended" in thing or "frozen" in thing] == []

    def done(self) -> bool:
        """Return whether the agent has nothing left to do, and what it has promised is right."""
        records: list[Any] = self.world.store.all(GroupSnapshot)
        followed = all(one.status.seen.generation and not one.spec.absent and not one.deleting for one in records)
        promised = len(VOLUMES) * GIB + sum(record.spec.size for record in records)
        side = self.world.agents[NODE]
        return followed and side.agent.idle() and side.pool().ledger.left() == (1 << 40) - promised

    def teardown(self) -> None:
        """See that nothing was done that no driver may do."""
        if not hasattr(self, "world"):
            return  # Hypothesis has drawn enough before the world was opened
        faults = self.world.faults()
        self.world.close()
        assert faults == []


def until_done(call: Callable[[], T]) -> T:
    """Make a call again for as long as it is told to come again."""
    while True:
        with contextlib.suppress(Busy, NoSpace, Unready):
            return call()


def number_in(image: SimImage) -> int:
    """Return the number that was written to a volume when it was cut."""
    return int(image.data.get(4096, b"0"))


@pytest.mark.timeout(pick(120, 3600))
def test_groups_are_whole_and_of_one_instant_whoever_dies() -> None:
    """Numbers that were written to one volume after the other are in order in every group, and nothing is left."""
    run_state_machine_as_test(
        Groups,
        settings=settings(
            max_examples=pick(25, 600),
            stateful_step_count=20,
            deadline=None,
            derandomize=not TORTURE,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink] if TORTURE else [Phase.generate],
        ),
    )
