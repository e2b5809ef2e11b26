"""What every Store keeps of its contract: lists and their pages."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING

from csi_driver.records import Node, NodeSpec, Pool, PoolSpec, Snapshot, Volume
from tests.contract.store.samples import a_snapshot, a_volume, settle, volumes

if TYPE_CHECKING:
    from csi_driver.store.base import Store


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


def test_all_is_never_stale(store: Store) -> None:
    """What was written a moment ago is in `all`, whatever `list` shows."""
    made = [store.create(Pool(str(uuid.uuid4()), PoolSpec(f"p{n}", "n1", "sim", "/p"))) for n in range(5)]
    store.remove(made.pop())

    assert [record.id for record in store.all(Pool)] == sorted(record.id for record in made)
