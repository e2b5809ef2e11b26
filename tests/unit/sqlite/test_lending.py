"""A writer that would only wait lends its thread: the agent works in it, where that is soon done."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from csi_driver.records import GIB, Snapshot, Source, Volume
from tests.contract.sides.asking import ask, soon
from tests.fakes.world import World
from tests.unit.sqlite.databases import a_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.pools import ServedPool
    from csi_driver.store.base import Key
    from csi_driver.store.sqlite import SqliteStore


@pytest.fixture
def world(store: SqliteStore) -> Iterator[World]:
    """Give a controller and an agent."""
    made = World(store, total=100 * GIB)
    yield made
    made.close()


@pytest.fixture
def makers(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note in which threads the agent works."""
    found: list[int] = []
    maker = world.agents["n1"].agent._maker
    advance = maker.advance

    def noted(record: Volume | Snapshot, pool: ServedPool) -> None:
        found.append(threading.get_ident())
        advance(record, pool)

    monkeypatch.setattr(maker, "advance", noted)
    return found


def test_only_who_lends_his_thread_is_worked_in(store: SqliteStore) -> None:
    """Others wake as ever, and so is woken who takes no threads."""
    woken: list[Key | None] = []
    worked: list[Key | None] = []
    others: list[Key | None] = []
    store.watch(woken.append, worked.append)
    store.watch(others.append)
    first = a_volume(store, 1)
    second = store.put_spec(first.with_spec(size=2 * GIB), lend=True)

    key = ("volume", second.id)
    assert ([each for each in woken if each], worked) == ([key], [key])
    assert [each for each in others if each] == [key, key]


def test_a_volume_is_made_and_deleted_in_the_callers_thread(world: World, makers: list[int]) -> None:
    """No thread waits for another."""
    made = world.controller.volumes.create(ask("a"), soon())
    creating = set(makers)
    makers.clear()
    world.controller.volumes.delete(made.id, soon())

    assert (creating, set(makers)) == ({threading.get_ident()}, {threading.get_ident()})
    assert world.store.get(Volume, made.id) is None


def test_a_copy_is_made_by_the_agents_own_threads(world: World, makers: list[int]) -> None:
    """It may take long, and its caller is to be told in time."""
    source = world.controller.volumes.create(ask("a"), soon())
    makers.clear()
    world.controller.volumes.create(ask("b", source=Source("volume", source.id)), soon())

    assert makers
    assert threading.get_ident() not in makers
