"""Controller and agent over a Store: nodes that are away or stuck, and callers that race."""

from __future__ import annotations

import dataclasses
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from csi_driver.backends.sim import SimBackend, SimPool
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Busy, NoSpace, NotFound, StorageError, Unready
from csi_driver.ids import new_id
from csi_driver.records import GIB, Node, NodeStatus, Offer, Pool, Snapshot, Volume, VolumeSpec
from csi_driver.store.base import Stale, StoreUnready
from tests.contract.sides.asking import ask, images, pool_of, soon, with_pool
from tests.fakes.world import SCOPE, ControllerSide, World, agent_side, controller_side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.backends.base import Passport
    from csi_driver.store.base import Store


def test_a_node_that_is_away_before_it_accepts_loses_the_offer(world: World) -> None:
    """The offer is withdrawn and goes to the next pool within the call; the old node never makes it."""
    world.stop_agent("n1")
    volume = world.controller.volumes.create(ask("a", preferred=("n1",)), soon())
    world.start_agent("n1")
    world.settle()

    accepted = volume.status.history.accepted
    assert accepted is not None
    assert accepted.node == "n2"
    assert not world.disks["n1"].images


def test_when_every_node_is_away_the_offer_is_withdrawn_for_good(world: World) -> None:
    """RESOURCE_EXHAUSTED goes out only when nothing is in progress: the nodes come back and make nothing."""
    for node in ("n1", "n2"):
        world.stop_agent(node)
    with pytest.raises(NoSpace, match="away"):
        world.controller.volumes.create(ask("a"), soon())
    for node in ("n1", "n2"):
        world.start_agent(node)
    world.settle()

    assert images(world) == 0
    assert world.store.get(Volume, new_id(SCOPE, "volume", "a")) is None


class Stuck(SimBackend):
    """A pool whose create fails, until it is let go."""

    error: StorageError | None = Unready("the disk sleeps")

    def create(self, passport: Passport, size: int) -> bool:
        if self.error:
            raise self.error
        return super().create(passport, size)


@pytest.fixture
def stuck(store: Store) -> Iterator[World]:
    with with_pool(store, Stuck) as made:
        yield made


def test_a_call_says_what_it_waited_for_and_its_retry_goes_on(stuck: World) -> None:
    """A deadline that passes is ABORTED with the reason; the retry finds the work done."""
    with pytest.raises(Busy, match=r"node n1 to make .*the disk sleeps"):
        stuck.controller.volumes.create(ask("a"), Deadline(0.5))
    pool_of(stuck, Stuck).error = None
    volume = stuck.controller.volumes.create(ask("a"), soon())

    assert volume.status.history.made


def test_a_node_that_accepted_and_is_away_is_waited_for(stuck: World) -> None:
    """Accepted bytes may exist: the answer is UNAVAILABLE, naming the node, and the volume comes with the node."""
    with pytest.raises(Busy):
        stuck.controller.volumes.create(ask("a"), Deadline(0.3))
    stuck.stop_agent("n1")
    with pytest.raises(Unready, match="node n1 accepted"):
        stuck.controller.volumes.create(ask("a"), soon())
    stuck.start_agent("n1")

    assert stuck.controller.volumes.create(ask("a"), soon()).status.history.made


def test_what_failed_for_good_is_undone_before_the_caller_hears(stuck: World) -> None:
    """A final error leaves no bytes, no record and no promise."""
    pool_of(stuck, Stuck).error = NoSpace("the pool's disk is full")
    with pytest.raises(NoSpace, match="disk is full"):
        stuck.controller.volumes.create(ask("a"), soon())
    stuck.settle()

    assert images(stuck) == 0
    assert stuck.store.get(Volume, new_id(SCOPE, "volume", "a")) is None
    assert stuck.agents["n1"].pool().ledger.left() == 100 * GIB


def test_accept_and_withdraw_have_one_winner(store: Store) -> None:
    """However often both race for a record, either the agent has accepted it or the controller has it back."""
    side = controller_side(store)
    agent = agent_side(store, "n1", SimBackend(SimPool()))
    try:
        for number in range(20):
            record_id = new_id(SCOPE, "volume", f"r{number}")
            made = store.create(Volume(record_id, VolumeSpec(f"r{number}", GIB, Offer(1, "n1", agent.pool().id))))
            try:
                store.remove(made)
                withdrawn = True
            except Stale:
                withdrawn = False
            wait_for("the agent is idle", agent.agent.idle, soon())
            now = store.get(Volume, record_id)

            assert (now is None) == withdrawn
            if now is not None:
                wait_for("it is made", partial(_made, store, record_id), soon())
    finally:
        side.waiting.close()
        agent.agent.stop()
        store.close()


def _made(store: Store, record_id: str) -> bool:
    record = store.get(Volume, record_id)
    return record is not None and bool(record.status.history.made)


def test_two_controllers_and_an_agent_agree(store: Store) -> None:
    """Controllers that share nothing but the Store create and delete the same names for a while; nothing leaks."""
    world = World(store, ("n1",), total=1000 * GIB)
    other = controller_side(store)
    errors: list[BaseException] = []

    def churn(side: ControllerSide, seed: int) -> None:
        for turn in range(15):
            name = f"v{(turn + seed) % 4}"
            try:
                volume = side.volumes.create(ask(name), soon())
                side.volumes.delete(volume.id, soon())
            except (Busy, NotFound):
                continue
            except BaseException as error:  # noqa: BLE001 - shown below
                errors.append(error)

    threads = [threading.Thread(target=churn, args=(side, n)) for n, side in enumerate((world.controller, other) * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for number in range(4):
        world.controller.volumes.delete(new_id(SCOPE, "volume", f"v{number}"), soon())
    world.settle()

    assert images(world) == 0
    assert world.agents["n1"].pool().ledger.left() == 1000 * GIB
    other.waiting.close()
    world.close()


def test_a_silent_node_is_away_whatever_the_clocks_say(store: Store) -> None:
    """Liveness is a beat that changes, timed by the watcher's own clock."""
    world = World(store, ("n1",))
    node_id = new_id(SCOPE, Node.KIND, "n1")
    world.agents["n1"].agent._stopped.set()
    world.agents["n1"].agent._ticker.join()
    liveness = world.controller.volumes._offers._liveness

    wait_for("the node counts as away", lambda: liveness.away("n1"), soon())
    record = store.get(Node, node_id)
    assert record is not None
    store.put_status(dataclasses.replace(record, status=NodeStatus(record.status.beat + 1)))
    assert not liveness.away("n1")
    assert store.get(Pool, world.agents["n1"].pool().id) is not None
    assert not store.list(Snapshot)
    world.close()


def test_a_busy_node_beats(world: World) -> None:
    """Steady work hides nobody: creates go on for longer than a silent node counts as alive."""
    until = Deadline(1.5)
    number = 0
    while not until.passed():
        volume = world.controller.volumes.create(ask(f"v{number}"), soon())
        world.controller.volumes.delete(volume.id, soon())
        number += 1

    assert number > 0


def test_a_sign_of_life_that_does_not_land_keeps_nobody_from_serving(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node starts, works and stops while its Store can't say what becomes of its beats."""
    put = world.store.put_status

    def unsure(record: Any, **how: bool) -> Any:  # noqa: ANN401 - any record
        if isinstance(record, Node):
            raise StoreUnready("can't tell whether this landed")
        return put(record, **how)

    world.stop_agent("n1")
    monkeypatch.setattr(world.store, "put_status", unsure)
    world.start_agent("n1")
    works = world.agents["n1"].pool().opened()
    world.stop_agent("n1")

    assert works
