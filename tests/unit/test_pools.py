"""A served pool by itself: what it judges, and who hears of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from csi_driver.backends.sim import SimBackend, SimPool
from csi_driver.guard import Level
from csi_driver.host.block import Disk
from csi_driver.pools import ServedPool
from csi_driver.records import Pool, PoolSpec
from csi_driver.store.sqlite import SqliteStore
from qos.limits import DevNo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from csi_driver.backends.base import Backend
    from csi_driver.store.base import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = SqliteStore(tmp_path / "sluice.db")
    yield made
    made.close()


def served(disk: SimPool, store: Store, opened: Callable[[Backend], None] = lambda _: None) -> ServedPool:
    """Return an open pool that was looked at once."""
    pool = ServedPool("pool", PoolSpec("fast", "n1", "sim", "/p"), SimBackend(disk), opened)
    pool.open(store)
    pool.watch()
    return pool


def test_what_another_look_saw_first_is_news_to_who_watches(store: Store) -> None:
    """A scrape or an admission must not keep a level from being published; told once, it is no news."""
    disk = SimPool(1000)
    pool = served(disk, store)
    calm = pool.watch()
    disk.others = 985
    pool.look()

    assert pool.level is Level.EMERGENCY
    assert [calm, pool.watch(), pool.watch()] == [False, True, False]


def test_a_pool_that_can_not_be_looked_at_keeps_its_level_and_says_why(store: Store) -> None:
    """A disk that went away in an emergency doesn't end it."""
    disk = SimPool(1000, others=985)
    pool = served(disk, store)
    pool.backend._open = False  # type: ignore[attr-defined]

    assert pool.watch()
    assert (pool.level, pool.opened()) == (Level.EMERGENCY, False)
    assert "98.5% full" in pool.emergency


def test_a_disk_that_is_added_while_the_pool_is_served_is_published_and_limited(store: Store) -> None:
    """Whoever limits the disks hears of it, once, and so does the record."""
    first = Disk(DevNo(8, 0), "sda", "one", "", 1000, rotational=False)
    second = replace(first, dev=DevNo(8, 16), name="sdb", serial="two")
    disk, limited = SimPool(1000, disks=(first,)), list[tuple[Disk, ...]]()
    pool = served(disk, store, lambda backend: limited.append(backend.disks()))
    disk.disks = (first, second)
    news = [pool.watch(), pool.watch()]
    pool.publish(store)
    record = store.get(Pool, pool.id)

    assert news == [True, False]
    assert limited == [(first,), (first, second)]
    assert record is not None
    assert [(one.name, one.serial) for one in record.status.disks] == [("sda", "one"), ("sdb", "two")]
