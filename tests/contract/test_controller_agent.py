"""Controller and agent as two sets of objects that share nothing but a Store, on every Store and on a hostile one."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from csi_driver.backends.sim import SimBackend, SimPool
from csi_driver.controller.requests import SizeRange, VolumeRequest
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Busy, Conflict, Invalid, NoSpace, NotFound, OutOfRange, StorageError, Unready
from csi_driver.ids import new_id
from csi_driver.records import GIB, Node, NodeStatus, Offer, Pool, Snapshot, Source, Volume, VolumeSpec
from csi_driver.store.base import Stale
from csi_driver.store.hostile import HostileStore, Malice
from csi_driver.store.sqlite import SqliteStore
from tests.fakes.world import SCOPE, ControllerSide, World, agent_side, controller_side

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_driver.backends.base import Passport
    from csi_driver.store.base import Store

ROUGH = Malice(delay=0.003, skip=0.3, repeat=0.3, silence=0.05)


@pytest.fixture(params=["sqlite", "hostile", "rough"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "sluice.db")
    return HostileStore(7, ROUGH if request.param == "rough" else Malice())


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    made = World(store, ("n1", "n2"), total=100 * GIB)
    yield made
    made.close()


def soon() -> Deadline:
    return Deadline(10.0)


def ask(name: str, size: int = GIB, **more: object) -> VolumeRequest:
    return VolumeRequest(name=name, size=SizeRange(size), **more)  # type: ignore[arg-type]


def images(world: World) -> int:
    return sum(len(disk.images) for disk in world.disks.values())


def test_a_created_volume_has_its_bytes_and_a_history(world: World) -> None:
    """What CreateVolume returns stands in one pool, and its record says so."""
    volume = world.controller.volumes.create(ask("a", 3 * GIB), soon())

    history = volume.status.history
    assert history.made
    assert history.accepted is not None
    found = world.disks[history.accepted.node].images[volume.id]
    assert (found.size, found.passport.name) == (3 * GIB, "a")
    assert images(world) == 1


def test_a_repeated_create_finds_its_own(world: World) -> None:
    """The same name and wish give the same volume, by the same controller or by one that knows nothing."""
    first = world.controller.volumes.create(ask("a"), soon())
    world.restart_controller()
    second = world.controller.volumes.create(ask("a"), soon())

    assert second.id == first.id
    assert images(world) == 1


@pytest.mark.parametrize(
    "other",
    [
        ask("a", 2 * GIB),
        ask("a", parameters={"tier": "training"}),
        ask("a", fs_type="xfs"),
        dataclasses.replace(ask("a"), size=SizeRange(0, GIB // 2)),
    ],
    ids=["size", "parameters", "file system", "limit"],
)
def test_a_create_with_other_words_is_a_conflict(world: World, other: VolumeRequest) -> None:
    """A name that stands for something else is refused, and nothing changes."""
    world.controller.volumes.create(ask("a"), soon())

    with pytest.raises(Conflict, match="'a' exists"):
        world.controller.volumes.create(other, soon())
    assert images(world) == 1


def test_many_creates_of_one_name_make_one_volume(world: World) -> None:
    """Callers that race for a name get the same volume or are asked to come again."""

    def one(_: int) -> str:
        try:
            return world.controller.volumes.create(ask("a"), soon()).id
        except Busy:
            return ""

    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(one, range(16))) - {""}

    assert len(ids) == 1
    assert images(world) == 1


def test_a_deleted_volume_leaves_nothing(world: World) -> None:
    """After DeleteVolume there are no bytes, no record and no promise; a second one is fine."""
    volume = world.controller.volumes.create(ask("a"), soon())
    world.controller.volumes.delete(volume.id, soon())
    world.controller.volumes.delete(volume.id, soon())
    world.settle()

    assert images(world) == 0
    assert world.store.get(Volume, volume.id) is None
    assert all(side.pool().ledger.left() == 100 * GIB for side in world.agents.values())


def test_the_ledger_never_promises_more_than_the_pools_hold(world: World) -> None:
    """Sixty callers want 240 GiB of 200: fifty get theirs, ten hear NoSpace, and nothing is left of those."""

    def one(number: int) -> bool:
        while True:
            try:
                world.controller.volumes.create(ask(f"v{number}", 4 * GIB), Deadline(30.0))
            except NoSpace:
                return False
            except Busy:
                continue
            return True

    with ThreadPoolExecutor(20) as threads:
        got = sum(threads.map(one, range(60)))
    world.settle()

    assert got == 50
    assert images(world) == 50
    assert len(world.store.list(Volume)) >= 50
    assert all(side.pool().ledger.left() == 0 for side in world.agents.values())


def test_what_no_pool_can_hold_is_refused_for_good(world: World) -> None:
    """NoSpace is final: no record, no bytes, and no volume comes later."""
    with pytest.raises(NoSpace, match="can't take 200Gi"):
        world.controller.volumes.create(ask("big", 200 * GIB), soon())
    world.settle()

    assert world.store.get(Volume, new_id(SCOPE, "volume", "big")) is None
    assert images(world) == 0


def test_topology_decides_where_a_volume_goes(world: World) -> None:
    """Preferred nodes come first, and a node that was not asked for gets nothing."""
    volume = world.controller.volumes.create(ask("a", nodes=frozenset({"n2"}), preferred=("n2",)), soon())

    accepted = volume.status.history.accepted
    assert accepted is not None
    assert accepted.node == "n2"
    with pytest.raises(NoSpace, match="not in the topology"):
        world.controller.volumes.create(ask("b", nodes=frozenset({"n9"})), soon())


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
    made = World(store, ("n1",), total=100 * GIB)
    made.stop_agent("n1")
    made.agents["n1"] = agent_side(store, "n1", Stuck(made.disks["n1"]))
    yield made
    made.close()


def backend_of(world: World) -> Stuck:
    backend = world.agents["n1"].pool().backend
    assert isinstance(backend, Stuck)
    return backend


def test_a_call_says_what_it_waited_for_and_its_retry_goes_on(stuck: World) -> None:
    """A deadline that passes is ABORTED with the reason; the retry finds the work done."""
    with pytest.raises(Busy, match=r"node n1 to make .*the disk sleeps"):
        stuck.controller.volumes.create(ask("a"), Deadline(0.5))
    backend_of(stuck).error = None
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
    backend_of(stuck).error = NoSpace("the pool's disk is full")
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


def test_a_volume_grows_and_keeps_its_size_when_the_pool_refuses(world: World) -> None:
    """Expansion is all or nothing: what the pool can't promise is OUT_OF_RANGE to the user, and nothing grows later."""
    volume = world.controller.volumes.create(ask("a"), soon())
    grown = world.controller.volumes.expand(volume.id, SizeRange(5 * GIB), soon())

    assert grown.status.seen.size == 5 * GIB
    with pytest.raises(NoSpace):
        world.controller.volumes.expand(volume.id, SizeRange(500 * GIB), soon())
    world.settle()
    assert world.controller.volumes.get(volume.id).spec.size == 5 * GIB
    assert world.controller.volumes.expand(volume.id, SizeRange(2 * GIB), soon()).status.seen.size == 5 * GIB


def test_modify_touches_only_the_keys_it_was_given(world: World) -> None:
    """A wrong key changes nothing; a right one changes that one limit."""
    volume = world.controller.volumes.create(ask("a", parameters={"tier": "training", "readIOPS": "700"}), soon())
    with pytest.raises(Invalid, match="writeBPS"):
        world.controller.volumes.modify(volume.id, {"writeIOPS": "100", "writeBPS": "fast"}, soon())
    with pytest.raises(Invalid, match="minIOPS: not supported yet"):
        world.controller.volumes.modify(volume.id, {"minIOPS": "100"}, soon())
    changed = world.controller.volumes.modify(volume.id, {"writeIOPS": "100"}, soon())

    before, after = volume.spec.qos.limits, changed.spec.qos.limits
    assert after == dataclasses.replace(before, wiops=100)
    assert after.riops == 700


def test_a_snapshot_lives_on_without_its_volume(world: World) -> None:
    """A cut keeps what was written; a volume made from it has the same bytes, also when the source is gone."""
    volume = world.controller.volumes.create(ask("a"), soon())
    node = volume.status.history.accepted
    assert node is not None
    backend = SimBackend(world.disks[node.node])
    backend.open("")
    backend.write(volume.id, 0, b"before")
    snapshot = world.controller.snapshots.create("s", volume.id, {}, soon())
    backend.write(volume.id, 0, b"after!")
    world.controller.volumes.delete(volume.id, soon())
    restored = world.controller.volumes.create(
        dataclasses.replace(ask("b", 2 * GIB), source=Source("snapshot", snapshot.id)), soon()
    )

    assert backend.read(restored.id) == {0: b"before"}
    assert restored.status.seen.size == 2 * GIB
    assert world.controller.snapshots.create("s", volume.id, {}, soon()).id == snapshot.id
    world.controller.snapshots.delete(snapshot.id, soon())
    again = dataclasses.replace(ask("b", 2 * GIB), source=Source("snapshot", snapshot.id))
    assert world.controller.volumes.create(again, soon()).id == restored.id, "a retry needs no source"


def test_a_copy_smaller_than_its_source_is_out_of_range(world: World) -> None:
    """A volume that can't hold what it is made from is refused."""
    volume = world.controller.volumes.create(ask("a", 4 * GIB), soon())

    with pytest.raises(OutOfRange, match="can't hold the source"):
        world.controller.volumes.create(dataclasses.replace(ask("b", GIB), source=Source("volume", volume.id)), soon())


def test_a_clone_of_nothing_is_not_found(world: World) -> None:
    """A source that isn't there is NOT_FOUND, and nothing is left."""
    with pytest.raises(NotFound, match="snapshot_id"):
        world.controller.volumes.create(
            dataclasses.replace(ask("b"), source=Source("snapshot", new_id(SCOPE, "snapshot", "no"))), soon()
        )
    assert not world.store.list(Volume)


def test_a_snapshot_name_belongs_to_one_volume(world: World) -> None:
    """The same name for another volume is a conflict."""
    first = world.controller.volumes.create(ask("a"), soon())
    second = world.controller.volumes.create(ask("b"), soon())
    world.controller.snapshots.create("s", first.id, {}, soon())

    with pytest.raises(Conflict, match="of volume"):
        world.controller.snapshots.create("s", second.id, {}, soon())


def test_lost_bytes_are_reported_and_never_made_anew(world: World) -> None:
    """Once made, absence is the condition LOST."""
    volume = world.controller.volumes.create(ask("a"), soon())
    node = volume.status.history.accepted
    assert node is not None
    del world.disks[node.node].images[volume.id]
    wait_for(
        "the volume is known to be lost",
        lambda: "LOST" in world.controller.volumes.get(volume.id).status.seen.abnormal,
        soon(),
    )
    world.settle()

    assert images(world) == 0
    world.controller.volumes.delete(volume.id, soon())
    assert world.store.get(Volume, volume.id) is None


def test_a_pool_that_is_not_the_one_of_its_record_does_nothing(world: World) -> None:
    """Another disk under the pool's path: every volume waits, nothing is made or deleted there."""
    volume = world.controller.volumes.create(ask("a", nodes=frozenset({"n1"})), soon())
    world.stop_agent("n1")
    ours, world.disks["n1"] = world.disks["n1"], SimPool(marker="another")
    world.start_agent("n1")
    with pytest.raises(StorageError, match="another"):
        world.controller.volumes.delete(volume.id, Deadline(2.0))
    world.stop_agent("n1")
    world.disks["n1"] = ours
    world.start_agent("n1")
    wait_for("it is deleted", lambda: world.store.get(Volume, volume.id) is None, soon())

    assert not ours.images


def test_pages_stay_right_while_volumes_come_and_go(world: World) -> None:
    """Every volume that stays is listed once, whatever is made or deleted between the pages."""
    made = [world.controller.volumes.create(ask(f"v{n}"), soon()).id for n in range(12)]
    seen: list[str] = []
    token = ""
    gone: set[str] = set()
    number = 0
    while True:
        page, token = world.controller.volumes.page(token, 3)
        seen += [volume.id for volume in page]
        if not token:
            break
        gone.add(token)
        world.controller.volumes.delete(token, soon())
        world.controller.volumes.create(ask(f"new{number}"), soon())
        number += 1
        wait_for("lists are fresh", lambda: len(world.store.list(Volume)) == 12, soon())

    assert len(seen) == len(set(seen))
    assert set(made) - gone <= set(seen)
    with pytest.raises(Invalid, match="starting_token"):
        world.controller.volumes.page("no-such-token", 3)


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


def test_the_passport_follows_a_modification(world: World) -> None:
    """The bytes say which tier and limits a volume has now, so that adopt gives it those back."""
    volume = world.controller.volumes.create(ask("a", parameters={"tier": "training"}), soon())
    world.controller.volumes.modify(volume.id, {"tier": "inference", "readIOPS": "800"}, soon())

    image = next(disk.images[volume.id] for disk in world.disks.values() if volume.id in disk.images)
    assert (image.passport.tier, image.passport.overrides) == ("inference", {"readIOPS": "800"})
    assert image.passport.parameters == {"tier": "training"}
