"""What every Store keeps of its contract (csi_driver/store/base.py)."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import types
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi_driver.deadline import Deadline, wait_for
from csi_driver.ids import new_id
from csi_driver.records import (
    KINDS,
    History,
    Node,
    NodeSpec,
    NodeStatus,
    Offer,
    Pool,
    PoolSpec,
    PoolStatus,
    Record,
    Seen,
    Snapshot,
    SnapshotSpec,
    Status,
    Volume,
    VolumeSpec,
)
from csi_driver.store.base import LARGEST, Key, Stale, Store, StoreUnready, TooLarge, change_status
from csi_driver.store.hostile import HostileStore
from csi_driver.store.sqlite import SqliteStore
from qos.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

OpenStore = Callable[..., Store]
THREADS = 8


@pytest.fixture(params=["sqlite", "hostile"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Return a function that makes a Store of each sort, empty. Stores are closed at the end."""
    opened: list[Store] = []

    def make(**options: Any) -> Store:  # noqa: ANN401 - each Store has its own
        made: Store
        if request.param == "sqlite":
            made = SqliteStore(tmp_path / f"{len(opened)}" / "sluice.db", **options)
        else:
            made = HostileStore(seed=len(opened), **options)
        opened.append(made)
        return made

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    """Return an empty Store."""
    return open_store()


def settle(store: Store) -> None:
    """Let lists show what was written so far."""
    if isinstance(store, HostileStore):
        store.settle()


def a_volume(name: str = "pvc-1", **spec: Any) -> Volume:  # noqa: ANN401 - whatever VolumeSpec takes
    return Volume(new_id("cluster/driver", "volume", name), VolumeSpec(name, 4096, **spec))


def a_snapshot(name: str, volume: str) -> Snapshot:
    return Snapshot(new_id("cluster/driver", "snapshot", name), SnapshotSpec(name, 4096, volume))


def volumes(count: int) -> list[Volume]:
    return sorted((a_volume(f"pvc-{number}") for number in range(count)), key=lambda one: one.id)


def with_made(record: Volume, made: str = "2026-01-01T00:00:00Z") -> Volume:
    return dataclasses.replace(record, status=Status(History(made=made)))


# -- create, get


def test_a_created_record_is_there(store: Store) -> None:
    """What create returns is what get finds: generation 1, with a version, not marked."""
    made = store.create(a_volume())

    assert store.get(Volume, made.id) == made
    assert made == dataclasses.replace(a_volume(), version=made.version, generation=1)
    assert made.version


def test_an_id_is_taken_once(store: Store) -> None:
    """A second create is Stale and leaves the first record alone."""
    made = store.create(a_volume())

    with pytest.raises(Stale):
        store.create(a_volume(claim="another"))
    assert store.get(Volume, made.id) == made


def test_one_of_many_creates_wins(store: Store) -> None:
    """Eight threads create one id: one record comes of it, that of the thread that was told so."""
    won = race(lambda number: store.create(a_volume(claim=str(number))))

    assert len(won) == 1
    assert store.get(Volume, won[0].id) == won[0]


def test_an_unknown_id_is_none(store: Store) -> None:
    """A record that isn't there is no error."""
    assert store.get(Volume, a_volume().id) is None


def test_kinds_do_not_share_ids(store: Store) -> None:
    """A volume and a node may have the same id."""
    volume, node = store.create(Volume("same", VolumeSpec("a", 1))), store.create(Node("same", NodeSpec("b")))

    assert store.get(Volume, "same") == volume
    assert store.get(Node, "same") == node
    assert store.get(Snapshot, "same") is None


# -- swaps


def race(swap: Callable[[int], Volume]) -> list[Volume]:
    """Run a swap in eight threads at once and return what came of those that weren't Stale."""
    ready = threading.Barrier(THREADS)

    def run(number: int) -> Volume | None:
        ready.wait()
        try:
            return swap(number)
        except Stale:
            return None

    with ThreadPoolExecutor(THREADS) as threads:
        return [one for one in threads.map(run, range(THREADS)) if one is not None]


@pytest.mark.parametrize("verb", ["put_spec", "put_status", "mixed"])
def test_one_of_many_swaps_wins(store: Store, verb: str) -> None:
    """Eight threads swap the version that they all read: one wins, and its wish is what is kept."""
    read = store.create(a_volume())

    def swap(number: int) -> Volume:
        if verb == "put_spec" or (verb == "mixed" and number % 2):
            return store.put_spec(read.with_spec(claim=str(number)))
        return store.put_status(with_made(read, str(number)))

    won = race(swap)

    assert len(won) == 1
    assert store.get(Volume, read.id) == won[0]


def test_no_swap_is_lost(store: Store) -> None:
    """Eight threads that each read, add one and retry when Stale add eight."""
    made = store.create(a_volume())
    deadline = Deadline(10)

    def add(record: Volume) -> Status:
        assert not deadline.passed()
        return Status(seen=Seen(size=record.status.seen.size + 1))

    ready = threading.Barrier(THREADS)

    def run(_: int) -> None:
        ready.wait()
        change_status(store, Volume, made.id, add, durable=False)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(run, range(THREADS)))
    now = store.get(Volume, made.id)

    assert now is not None
    assert now.status.seen.size == THREADS


def test_a_status_change_makes_a_spec_swap_stale(store: Store) -> None:
    """Who withdraws an offer must have seen that it is not accepted."""
    read = store.create(a_volume(offer=Offer(1, "node-a", "pool-a")))
    accepted = store.put_status(dataclasses.replace(read, status=Status(History(accepted=read.spec.offer))))

    with pytest.raises(Stale):
        store.put_spec(read.with_spec(offer=None))
    assert store.get(Volume, read.id) == accepted


def test_a_spec_change_makes_a_status_swap_stale(store: Store) -> None:
    """Who accepts an offer must have seen that it is not withdrawn."""
    read = store.create(a_volume(offer=Offer(1, "node-a", "pool-a")))
    withdrawn = store.put_spec(read.with_spec(offer=None))

    with pytest.raises(Stale):
        store.put_status(dataclasses.replace(read, status=Status(History(accepted=read.spec.offer))))
    assert store.get(Volume, read.id) == withdrawn


def test_a_spec_write_keeps_the_status(store: Store) -> None:
    """Whatever status the caller holds, put_spec writes the spec alone."""
    written = store.put_status(with_made(store.create(a_volume())))

    new = store.put_spec(dataclasses.replace(written, status=Status()).with_spec(claim="ns/data"))

    assert new.status == written.status
    assert new.spec.claim == "ns/data"
    assert store.get(Volume, new.id) == new


@pytest.mark.parametrize("durable", [True, False])
def test_a_status_write_keeps_the_spec(store: Store, durable: bool) -> None:
    """Whatever spec the caller holds, put_status writes the status alone."""
    made = store.create(a_volume(claim="ns/data"))
    wrong = dataclasses.replace(made, status=Status(seen=Seen(size=9))).with_spec(claim="")

    new = store.put_status(wrong, durable=durable)

    assert new.spec == made.spec
    assert new.status.seen.size == 9
    assert store.get(Volume, new.id) == new


def test_every_write_gives_a_new_version(store: Store) -> None:
    """No two contents of a record have the same version."""
    first = store.create(a_volume())
    second = store.put_spec(first.with_spec(claim="a"))
    third = store.put_status(with_made(second))
    fourth = store.put_spec(third.with_spec(claim=""))
    fifth = store.mark(fourth)

    assert len({one.version for one in (first, second, third, fourth, fifth)}) == 5


def test_the_generation_rises_with_the_spec(store: Store) -> None:
    """An agent that met generation 2 knows which wishes it met."""
    made = store.create(a_volume())

    assert store.put_spec(made.with_spec(size=8192)).generation == made.generation + 1


def test_the_generation_stays_with_the_status(store: Store) -> None:
    """A status write must not look like a new wish."""
    made = store.create(a_volume())

    assert store.put_status(with_made(made)).generation == made.generation


def test_an_equal_spec_changes_nothing(store: Store) -> None:
    """The same wish again is no new wish: neither version nor generation move."""
    made = store.create(a_volume(parameters={"a": "1", "b": "2"}))

    again = store.put_spec(made.with_spec(parameters={"b": "2", "a": "1"}))

    assert again == made
    assert store.get(Volume, made.id) == made


def test_an_equal_spec_at_an_old_version_is_stale(store: Store) -> None:
    """That nothing would change doesn't excuse a decision on what was."""
    read = store.create(a_volume())
    store.put_status(with_made(read))

    with pytest.raises(Stale):
        store.put_spec(read)


@pytest.mark.parametrize("verb", ["put_spec", "put_status", "mark", "remove"])
def test_a_record_that_never_was_is_stale(store: Store, verb: str) -> None:
    """A swap needs something to swap with."""
    with pytest.raises(Stale):
        getattr(store, verb)(a_volume().with_spec(claim="new"))


def test_change_status_survives_a_spec_that_comes_between(store: Store) -> None:
    """It reads again and changes what it then finds."""
    made = store.create(a_volume())
    claims = iter(["first", "second"])

    def change(record: Volume) -> Status:
        claim = next(claims, None)
        if claim is not None:
            store.put_spec(record.with_spec(claim=claim))
        return Status(History(made=f"while {record.spec.claim}"))

    new = change_status(store, Volume, made.id, change, durable=True)

    assert new.status.history.made == "while second"
    assert new.spec.claim == "second"


# -- removal


def test_a_mark_stays(store: Store) -> None:
    """No write takes `deleting` back."""
    marked = store.mark(store.create(a_volume()))
    assert marked.deleting

    other = dataclasses.replace(marked, deleting=False)
    after_spec = store.put_spec(other.with_spec(claim="new"))
    after_status = store.put_status(with_made(dataclasses.replace(after_spec, deleting=False)))

    assert after_spec.deleting
    assert after_status.deleting
    assert store.get(Volume, marked.id) == after_status


def test_a_mark_on_a_mark_changes_nothing(store: Store) -> None:
    """A retry of a deletion finds its own mark."""
    marked = store.mark(store.create(a_volume()))

    assert store.mark(marked) == marked


def test_a_marked_record_is_seen(store: Store) -> None:
    """It is there for all who still need it."""
    marked = store.mark(store.create(a_volume()))
    settle(store)

    assert store.get(Volume, marked.id) == marked
    assert store.list(Volume) == [marked]


@pytest.mark.parametrize("marked", [True, False])
def test_a_removed_record_is_gone(store: Store, marked: bool) -> None:
    """Marked before or not, it is neither got nor listed."""
    made = store.create(a_volume())
    store.remove(store.mark(made) if marked else made)
    settle(store)

    assert store.get(Volume, made.id) is None
    assert store.list(Volume) == []


def test_a_changed_record_is_not_removed(store: Store) -> None:
    """Who removes must have seen what is removed."""
    read = store.create(a_volume())
    changed = store.put_status(with_made(read))

    with pytest.raises(Stale):
        store.remove(read)
    assert store.get(Volume, read.id) == changed


def test_a_removed_record_is_removed_once(store: Store) -> None:
    """The second removal is Stale."""
    made = store.create(a_volume())
    store.remove(made)

    with pytest.raises(Stale):
        store.remove(made)


@pytest.mark.parametrize("verb", ["put_spec", "put_status", "mark", "remove"])
def test_a_version_is_never_used_again(store: Store, verb: str) -> None:
    """A record that was removed and made anew refuses what was read before."""
    read = store.create(a_volume())
    store.remove(read)
    anew = store.create(a_volume())

    with pytest.raises(Stale):
        getattr(store, verb)(with_made(read).with_spec(claim="late"))
    assert store.get(Volume, read.id) == anew


# -- lists


def test_a_list_is_sorted_by_id(store: Store) -> None:
    """Records come in the order of ids, not of creation, and of one kind."""
    made = [store.create(one) for one in reversed(volumes(20))]
    store.create(Node("node-a", NodeSpec("node-a")))
    settle(store)

    assert store.list(Volume) == made[::-1]


def test_a_list_begins_behind_after(store: Store) -> None:
    """`after` need not be there itself."""
    made = [store.create(one) for one in volumes(5)]
    store.remove(made[1])
    settle(store)

    assert store.list(Volume, after=made[0].id) == made[2:]
    assert store.list(Volume, after=made[1].id) == made[2:]
    assert store.list(Volume, after=made[4].id) == []


def test_a_list_ends_at_its_limit(store: Store) -> None:
    """A limit beyond the end is no error, and none is all."""
    made = [store.create(one) for one in volumes(5)]
    settle(store)

    assert store.list(Volume, limit=2) == made[:2]
    assert store.list(Volume, after=made[1].id, limit=2) == made[2:4]
    assert store.list(Volume, limit=99) == made
    assert store.list(Volume, limit=0) == []


def test_a_list_of_a_source_holds_its_snapshots(store: Store) -> None:
    """Only snapshots of that volume, sorted, behind `after` and up to the limit."""
    made = [store.create(a_snapshot(f"snap-{number}", f"volume-{number % 2}")) for number in range(10)]
    settle(store)
    wanted = sorted((one for one in made if one.spec.volume == "volume-1"), key=lambda one: one.id)

    assert store.list(Snapshot, source="volume-1") == wanted
    assert store.list(Snapshot, source="volume-1", after=wanted[1].id, limit=2) == wanted[2:4]
    assert store.list(Snapshot, source="volume-2") == []


def test_a_list_sorts_by_code_point(store: Store) -> None:
    """Names beyond ASCII have one order, in every Store the same."""
    names = ["a", "b", "Z", "é", "e", "\U0001f600", "\uffee", "a\u0301", "aa"]
    for name in names:
        store.create(Node(name, NodeSpec(name)))
    settle(store)

    assert [one.id for one in store.list(Node)] == sorted(names)


def test_paging_neither_repeats_nor_skips_what_stays(store: Store) -> None:
    """While others delete and create, each record that stays is on one page."""
    made = [store.create(one) for one in volumes(60)]
    settle(store)
    stays = {one.id for one in made[::2]}
    leaves = iter(made[1::2])
    paged: list[str] = []
    for number in itertools.count():
        page = store.list(Volume, after=paged[-1] if paged else "", limit=7)
        if not page:
            break
        paged += [one.id for one in page]
        for one in itertools.islice(leaves, 4):
            store.remove(one)
        store.create(a_volume(f"late-{number}"))

    assert len(paged) == len(set(paged))
    assert stays <= set(paged)


# -- watches


def test_a_watch_wakes(store: Store) -> None:
    """Who watches is woken by changes, though not by each."""
    record = store.create(a_volume())
    woken: list[Key | None] = []
    watch = store.watch(woken.append)

    def look() -> bool:
        nonlocal record
        record = store.put_status(dataclasses.replace(record, status=Status(seen=Seen(size=len(woken)))), durable=False)
        return ("volume", record.id) in woken

    wait_for("the watch wakes", look, Deadline(5))
    watch.close()


def test_who_looks_from_time_to_time_misses_nothing(store: Store) -> None:
    """Woken or not, who waits for a change sees it in the end."""
    record = store.create(a_volume())
    bell = threading.Event()
    watch = store.watch(lambda _: bell.set())
    seen: list[int] = []

    def wait() -> None:
        deadline = Deadline(5)
        while (not seen or seen[-1] < 20) and not deadline.passed():
            bell.wait(0.02)
            bell.clear()
            now = store.get(Volume, record.id)
            seen.append(now.status.seen.size if now else -1)

    waiter = threading.Thread(target=wait)
    waiter.start()
    for size in range(1, 21):
        record = store.put_status(dataclasses.replace(record, status=Status(seen=Seen(size=size))))
    waiter.join()
    watch.close()

    assert seen[-1] == 20
    assert seen == sorted(seen)


def test_a_closed_watch_is_silent(store: Store) -> None:
    """No call comes once close has returned, though writes go on in other threads."""
    records = [store.create(one) for one in volumes(THREADS)]
    closed = threading.Event()
    late: list[Key | None] = []

    def wake(key: Key | None) -> None:
        if closed.is_set():
            late.append(key)

    watch = store.watch(wake)

    def write(record: Volume) -> None:
        for size in range(20):
            record = store.put_status(dataclasses.replace(record, status=Status(seen=Seen(size=size))), durable=False)

    with ThreadPoolExecutor(THREADS) as threads:
        done = threads.map(write, records)
        watch.close()
        closed.set()
        list(done)

    assert late == []


def test_closing_a_watch_waits_for_the_call_under_way(store: Store) -> None:
    """Who has closed may take apart what `wake` uses."""
    record = store.create(a_volume())
    inside, release = threading.Event(), threading.Event()
    calls: list[str] = []

    def wake(_: Key | None) -> None:
        inside.set()
        release.wait(10)
        calls.append("ended")

    watch = store.watch(wake)

    def write() -> None:
        latest = record
        while not inside.is_set():
            latest = store.put_status(with_made(latest))

    writer = threading.Thread(target=write)
    writer.start()
    inside.wait(10)
    threading.Timer(0.05, release.set).start()
    watch.close()
    ended = list(calls)
    writer.join()

    assert "ended" in ended


def test_a_wake_may_close_its_watch(store: Store) -> None:
    """Who has heard enough can say so at once."""
    record = store.create(a_volume())
    heard = threading.Event()
    holder: list[Any] = []

    def wake(_: Key | None) -> None:
        holder[0].close()
        heard.set()

    holder.append(store.watch(wake))

    def look() -> bool:
        nonlocal record
        record = store.put_status(with_made(record), durable=True)
        return heard.is_set()

    wait_for("the watch has closed itself", look, Deadline(5))


def test_a_wake_may_take_a_lock_that_a_writer_holds(store: Store) -> None:
    """A writer's own lock and a watcher's are often the same: neither waits for the other for ever."""
    records = [store.create(one) for one in volumes(2)]
    lock = threading.RLock()

    def wake(_: Key | None) -> None:
        with lock:
            pass

    watch = store.watch(wake)

    def write(record: Volume) -> None:
        for size in range(20):
            with lock:
                record = store.put_status(dataclasses.replace(record, status=Status(seen=Seen(size=size))))

    threads = [threading.Thread(target=write, args=[record], daemon=True) for record in records]
    for thread in threads:
        thread.start()
    wait_for("both writers are done", lambda: not any(thread.is_alive() for thread in threads), Deadline(10))
    watch.close()


# -- contents

ODD = "\0 ' \" \\ \n\r\t \x7f %s ; -- é \u2028 \ufeff \U0001f600 a\u0301 </script> ../.."


def test_odd_characters_are_kept(store: Store) -> None:
    """Whatever text a caller sends comes back unchanged."""
    made = store.create(a_volume(claim=ODD, parameters={ODD: ODD}))

    assert store.get(Volume, made.id) == made
    assert made.spec.parameters == {ODD: ODD}


def test_names_may_be_in_any_script(store: Store) -> None:
    """Two names that look alike are two names."""
    names = ["größe", "gro\u0308ße", "объём", "卷", "\U0001f4be"]
    made = [store.create(a_volume(name)) for name in names]
    found = [store.get(Volume, a_volume(name).id) for name in names]

    assert found == made


def test_a_large_record_is_kept(store: Store) -> None:
    """Just below the limit there is no surprise."""
    made = store.create(a_volume(claim="x" * (LARGEST - 4096)))

    assert store.get(Volume, made.id) == made


@pytest.mark.parametrize("letter", ["x", "é", "\0"])
def test_a_record_that_is_too_large_is_refused(store: Store, letter: str) -> None:
    """It is bytes that count, and nothing is left of the attempt."""
    with pytest.raises(TooLarge, match="bytes"):
        store.create(a_volume(claim=letter * LARGEST))
    assert store.get(Volume, a_volume().id) is None


def test_spec_and_status_share_the_limit(store: Store) -> None:
    """Each half may fit where both don't: the second is refused, and the first stays."""
    half = "x" * (LARGEST // 2)
    made = store.create(a_volume(claim=half))

    with pytest.raises(TooLarge):
        store.put_status(dataclasses.replace(made, status=Status(seen=Seen(device=half))))
    assert store.get(Volume, made.id) == made


def test_a_record_is_not_shared_with_its_writer(store: Store) -> None:
    """What a caller does to its own dictionary afterwards is its own affair."""
    parameters = {"tier": "inference"}
    made = store.create(a_volume(parameters=parameters))
    parameters["tier"] = "training"
    now = store.get(Volume, made.id)

    assert now is not None
    assert now.spec.parameters == {"tier": "inference"}


def test_every_kind_is_kept(store: Store) -> None:
    """Pools and nodes are records like the others."""
    pool = store.create(Pool("pool-a", PoolSpec("pool-a", "node-a", "loop", "/var/lib/sluice")))
    node = store.create(Node("node-a", NodeSpec("node-a")))
    pool = store.put_status(dataclasses.replace(pool, status=PoolStatus(identity="uuid", left=4096)))
    node = store.put_status(dataclasses.replace(node, status=NodeStatus(beat=1)), durable=False)

    assert store.get(Pool, "pool-a") == pool
    assert store.get(Node, "node-a") == node


def anything(hint: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401 - a type hint is anything
    """Return a strategy for values of a record's field, or of a whole dataclass."""
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(0, 2**63 - 1),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(st.characters(codec="utf-8"), max_size=20),
    }
    if hint in plain:
        return plain[hint]
    if hint is Limits:
        return st.builds(Limits, *[st.none() | st.integers(2, 2**32 - 2)] * 4)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{one.name: anything(hints[one.name]) for one in dataclasses.fields(hint)})
    outer, inner = typing.get_origin(hint), typing.get_args(hint)
    if outer is tuple:
        return st.lists(anything(inner[0]), max_size=3).map(lambda some: (*some,))
    if outer is Mapping:
        return st.dictionaries(anything(inner[0]), anything(inner[1]), max_size=3)
    assert outer in (types.UnionType, typing.Union), hint
    return st.one_of([st.none() if one is types.NoneType else anything(one) for one in inner])


@pytest.mark.parametrize("kind", KINDS.values())
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_whatever_is_written_is_read(store: Store, kind: type[Record], data: st.DataObject) -> None:
    """All values that the types allow survive the Store, in spec and status."""
    hints = typing.get_type_hints(kind)
    name = str(uuid.uuid4())  # not drawn: an example that is tried again needs a new one
    made = store.create(kind(name, data.draw(anything(hints["spec"])), kind("", None).status))  # type: ignore[call-arg]
    status = data.draw(anything(hints["status"]))
    new = store.put_status(dataclasses.replace(made, status=status))
    wanted = kind(name, made.spec, status, new.version, 1)

    assert store.get(kind, name) == new == wanted
    store.remove(new)


# -- cuts


class Cut(BaseException):
    """Stand for the end of a process."""


def test_hooks_number_every_write(open_store: OpenStore) -> None:
    """Each write is told before and after, so that a test can cut at each."""
    told: list[tuple[str, str]] = []
    store = open_store(hook=lambda when, effect: told.append((when, effect)))
    made = store.create(a_volume())
    store.put_spec(made.with_spec(claim="a"))
    name = f"volume {made.id}"

    assert told == [(when, f"{verb} {name}") for verb in ("create", "put spec of") for when in ("before", "after")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cut_write_landed_or_did_not(open_store: OpenStore, when: str) -> None:
    """A cut before a write leaves nothing of it, a cut after it all; the Store goes on."""
    cut_at: list[str] = []

    def hook(now: str, _: str) -> None:
        if now in cut_at:
            raise Cut

    store = open_store(hook=hook)
    made = store.create(a_volume())
    cut_at.append(when)
    with pytest.raises(Cut):
        store.put_spec(made.with_spec(claim="new"))
    cut_at.clear()
    now = store.get(Volume, made.id)

    assert now is not None
    assert now.spec.claim == ("new" if when == "after" else "")
    assert store.put_spec(now.with_spec(claim="next")).spec.claim == "next"


def test_a_cut_removal_can_be_done_again(open_store: OpenStore) -> None:
    """Cut anywhere, a record is as it was, marked, or gone; a removal of what is then read ends it."""
    for cut_at in range(6):
        steps = itertools.count()
        going = threading.Event()

        def hook(_: str, __: str, cut_at: int = cut_at, steps: Any = steps, going: Any = going) -> None:  # noqa: ANN401
            if going.is_set() and next(steps) == cut_at:
                raise Cut

        store = open_store(hook=hook)
        made = store.create(a_volume())
        going.set()
        try:
            store.remove(made)
        except Cut:
            now = store.get(Volume, made.id)
            if now is not None:
                assert dataclasses.replace(now, deleting=False, version=made.version) == made
                store.remove(now)

        assert store.get(Volume, made.id) is None


# -- the end


def test_a_closed_store_says_so(store: Store) -> None:
    """Who comes late learns why, and closing twice is no error."""
    made = store.create(a_volume())
    store.close()
    store.close()

    with pytest.raises(StoreUnready, match="closed"):
        store.get(Volume, made.id)
    with pytest.raises(StoreUnready, match="closed"):
        store.put_status(with_made(made))
    with pytest.raises(StoreUnready, match="closed"):
        store.list(Volume)


def test_a_store_leaves_no_thread(store: Store) -> None:
    """Closing ends the threads that watches began."""
    before = set(threading.enumerate())
    store.watch(lambda _: None)
    store.create(a_volume())
    store.close()

    assert set(threading.enumerate()) <= before


def test_all_is_never_stale(store: Store) -> None:
    """What was written a moment ago is in `all`, whatever `list` shows."""
    made = [store.create(Pool(str(uuid.uuid4()), PoolSpec(f"p{n}", "n1", "sim", "/p"))) for n in range(5)]
    store.remove(made.pop())

    assert [record.id for record in store.all(Pool)] == sorted(record.id for record in made)
