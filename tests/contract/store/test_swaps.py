"""What every Store keeps of its contract (csi_driver/store/base.py): creating, and swaps of one record."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from csi_driver.deadline import Deadline
from csi_driver.records import History, Node, NodeSpec, Offer, Seen, Snapshot, Status, Volume, VolumeSpec
from csi_driver.store.base import Stale, Store, change_status
from tests.contract.store.samples import THREADS, a_volume, race, with_made


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
