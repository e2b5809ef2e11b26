"""The hostile Store does what it is for: each thing that the contract allows happens, and each law is asserted."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.records import History, Node, NodeSpec, NodeStatus, Seen, Status, Volume, VolumeSpec
from csi_driver.store.base import Key, Stale, StoreUnready
from csi_driver.store.hostile import HostileStore, Malice

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store() -> Iterator[HostileStore]:
    """Return a Store that is as hostile as it comes."""
    with contextlib.closing(HostileStore(7)) as made:
        yield made


def a_store(**malice: Any) -> contextlib.closing[HostileStore]:  # noqa: ANN401 - whatever Malice takes
    return contextlib.closing(HostileStore(7, Malice(**{"delay": 0.0, **malice})))


def a_node(store: HostileStore) -> Node:
    return store.create(Node("node-a", NodeSpec("node-a")))


def beat(store: HostileStore, record: Node, number: int, *, durable: bool = True) -> Node:
    return store.put_status(dataclasses.replace(record, status=NodeStatus(beat=number)), durable=durable)


def a_volume(store: HostileStore, **history: Any) -> Volume:  # noqa: ANN401 - whatever History takes
    made = store.create(Volume("id", VolumeSpec("pvc-1", 4096)))
    return store.put_status(dataclasses.replace(made, status=Status(History(**history))))


# -- malice


def test_a_list_lags_by_no_more_than_it_may() -> None:
    """Each of the newest states is listed at some time, and none that is older."""
    with a_store(stale=3, stale_seconds=60) as store:
        record = a_node(store)
        for number in range(1, 11):
            record = beat(store, record, number)
        seen = {store.list(Node)[0].status.beat for _ in range(200)}

        assert seen == {7, 8, 9, 10}


def test_a_list_lags_by_no_more_time_than_it_may() -> None:
    """A store that nobody writes becomes truthful by itself."""
    with a_store(stale_seconds=0.02) as store:
        record = beat(store, a_node(store), 1)
        wait_for(
            "twenty lists are fresh", lambda: [store.list(Node) for _ in range(20)] == [[record]] * 20, Deadline(5)
        )


def test_a_removed_record_may_still_be_listed() -> None:
    """As whole as it was, or marked, or gone."""
    with a_store(stale_seconds=60) as store:
        record = beat(store, a_node(store), 1)
        store.remove(record)
        seen = {tuple(one.deleting for one in store.list(Node)) for _ in range(200)}

        assert seen == {(False,), (True,), ()}
        assert store.get(Node, "node-a") is None


def test_a_removal_is_seen_as_a_mark_first() -> None:
    """Between its two steps others see `deleting`, and what they then write makes it Stale."""
    seen: list[Node | None] = []

    def hook(when: str, effect: str) -> None:
        if (when, effect) == ("before", "remove node node-a"):
            now = made_store.get(Node, "node-a")
            seen.append(now)
            if now is not None:
                beat(made_store, now, 99)

    made_store = HostileStore(7, hook=hook)
    with contextlib.closing(made_store) as store:
        made = a_node(store)
        with pytest.raises(Stale):
            store.remove(made)
        now = store.get(Node, "node-a")

        assert [one.deleting for one in seen if one] == [True]
        assert now is not None
        assert now.deleting


def wakes(store: HostileStore, changes: int) -> list[Key | None]:
    """Return the wakes that so many changes of two records cause, once a last one has come."""
    woken: list[Key | None] = []
    store.watch(woken.append)
    records = [a_node(store), store.create(Node("node-b", NodeSpec("node-b")))]
    for number in range(changes):
        records[number % 2] = beat(store, records[number % 2], number)
    wait_for("all is delivered", lambda: not store._post._due, Deadline(5))
    store.close()
    return woken


def test_a_watch_skips() -> None:
    """Some changes are never heard of."""
    with a_store(skip=0.5, repeat=0, silence=0) as store:
        assert 20 < len(wakes(store, 100)) < 80


def test_a_watch_repeats() -> None:
    """Some are heard of twice."""
    with a_store(skip=0, repeat=0.5, silence=0) as store:
        assert 120 < len(wakes(store, 100)) < 180


def test_a_watch_reorders() -> None:
    """Changes of two records, made in turn, are heard of in another order."""
    with a_store(skip=0, repeat=0, silence=0, delay=0.01) as store:
        heard = wakes(store, 30)

        assert any(one == other for one, other in itertools.pairwise(heard))


def test_a_watch_breaks() -> None:
    """After a silence comes None: look again."""
    with a_store(skip=0, repeat=0, silence=0.2, silent_seconds=0.01) as store:
        heard = wakes(store, 100)

        assert None in heard
        assert len(heard) < 100


def test_a_watch_wakes_from_another_thread() -> None:
    """A watcher can't count on being called before a write returns."""
    threads: set[str] = set()
    with a_store(skip=0, silence=0) as store:
        store.watch(lambda _: threads.add(threading.current_thread().name))
        a_node(store)
        wait_for("the watch wakes", lambda: bool(threads), Deadline(5))

        assert threads == {"hostile-store"}


def test_a_write_with_an_unknown_outcome_landed_or_did_not() -> None:
    """StoreUnready says neither; both happen."""
    landed: set[bool] = set()
    with a_store(unknown=0.5) as store:
        for number in range(100):
            name = f"node-{number}"
            try:
                store.create(Node(name, NodeSpec(name)))
            except StoreUnready:
                landed.add(store.get(Node, name) is not None)

    assert landed == {True, False}


def test_without_malice_no_outcome_is_unknown(store: HostileStore) -> None:
    """Who doesn't ask for it isn't told so."""
    record = a_node(store)
    for number in range(1, 50):
        record = beat(store, record, number)

    assert store.get(Node, "node-a") == record


def test_versions_have_no_order(store: HostileStore) -> None:
    """Who compares versions for more than equality is found out."""
    record = a_node(store)
    versions = [int(record.version)]
    for number in range(1, 10):
        record = beat(store, record, number)
        versions.append(int(record.version))

    assert versions != sorted(versions)
    assert len(set(versions)) == len(versions)


def test_the_same_seed_gives_the_same_malice() -> None:
    """A failure can be had again."""

    def run(seed: int) -> list[int]:
        with contextlib.closing(HostileStore(seed, Malice(delay=0, stale_seconds=60))) as store:
            record, seen = a_node(store), []
            for number in range(1, 20):
                record = beat(store, record, number)
                seen += [one.status.beat for one in store.list(Node)]
            return seen

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_a_writes_malice_is_its_own() -> None:
    """What happens to a write is the same whoever writes before it: threads need not run alike for that."""

    def landed(*prefixes: str) -> list[bool]:
        with a_store(unknown=0.5) as store:
            for number in range(20):
                for prefix in prefixes:
                    with contextlib.suppress(StoreUnready):
                        store.create(Node(f"{prefix}-{number}", NodeSpec(prefix)))
            return [store.get(Node, f"a-{number}") is not None for number in range(20)]

    assert landed("a") == landed("b", "a") == landed("a", "c", "b")
    assert {*landed("a")} == {True, False}


def test_a_power_cut_loses_what_is_not_flushed(store: HostileStore) -> None:
    """What was written since the last durable write is lost, and nothing before it."""
    record = beat(store, a_node(store), 1, durable=False)
    record = beat(store, record, 2)
    beat(store, beat(store, record, 3, durable=False), 4, durable=False)
    store.lose_power()

    assert store.get(Node, "node-a") == record


# -- laws


@pytest.mark.parametrize("fallen", [History(), History(size=4096), History(made="2026", size=1)])
def test_history_that_falls_back_is_a_bug(store: HostileStore, fallen: History) -> None:
    """It is asserted, and what was there stays."""
    volume = a_volume(store, made="2026", size=4096)

    with pytest.raises(AssertionError, match="falls back"):
        store.put_status(dataclasses.replace(volume, status=Status(fallen)))
    assert store.get(Volume, "id") == volume


def test_history_that_is_not_durable_is_a_bug(store: HostileStore) -> None:
    """`durable=False` is for what can be seen again."""
    volume = a_volume(store, made="2026")
    condemned = Status(dataclasses.replace(volume.status.history, condemned=True))

    with pytest.raises(AssertionError, match="durable"):
        store.put_status(dataclasses.replace(volume, status=condemned), durable=False)
    seen = Status(volume.status.history, Seen(size=1))
    assert store.put_status(dataclasses.replace(volume, status=seen), durable=False).status == seen


def test_a_status_at_birth_is_a_bug(store: HostileStore) -> None:
    """An API server drops it without a word."""
    with pytest.raises(AssertionError, match="put_status"):
        store.create(Node("node-a", NodeSpec("node-a"), NodeStatus(beat=1)))


def test_nobody_shares_a_record(store: HostileStore) -> None:
    """Each read gives an object of its own, down to its dictionaries."""
    store.create(Volume("id", VolumeSpec("pvc-1", 4096, parameters={"a": "b"})))
    store.settle()
    read = [store.get(Volume, "id"), store.get(Volume, "id"), *store.list(Volume), *store.list(Volume)]
    parameters = [one.spec.parameters for one in read if one is not None]

    assert parameters == [{"a": "b"}] * 4
    assert len({id(one) for one in parameters}) == 4
