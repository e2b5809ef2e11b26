"""What a call that waits for an agent is told of what went wrong: its own wish's failures, and nobody else's."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from csi_driver.controller.offers import Offers
from csi_driver.controller.waiting import Liveness, Waiting
from csi_driver.deadline import Deadline
from csi_driver.errors import Busy, InUse, NoSpace
from csi_driver.ids import new_id
from csi_driver.records import GIB, Failure, Offer, Volume, VolumeSpec
from csi_driver.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_driver.store.base import Store

SOON = 0.2


class Present(Liveness):
    """Say that every node is there."""

    def __init__(self) -> None:
        pass

    def away(self, node: str) -> bool:  # noqa: ARG002 - the name is the parent's
        return False


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give a store."""
    made = SqliteStore(tmp_path / "sluice.db")
    yield made
    made.close()


def failed(store: Store, error: str, *, later: int) -> Volume:
    """Return a record as its caller knows it, of which the agent has said what failed, of so many wishes later."""
    wished = store.create(Volume(new_id("test", Volume.KIND, "a"), VolumeSpec("a", GIB, Offer(1, "n1", "p"))))
    newest = wished
    for number in range(later):
        newest = store.put_spec(newest.with_spec(size=GIB + number + 1))
    failure = Failure(newest.generation, error, "no")
    store.put_status(dataclasses.replace(newest, status=newest.status.with_seen(error=failure)))
    return wished


def follow(store: Store, record: Volume) -> Volume:
    """Wait until the agent follows."""
    waiting = Waiting(store)
    try:
        return Offers(Volume, store, waiting, Present()).follow(record, Deadline(SOON))
    finally:
        waiting.close()


def test_who_waits_is_told_what_failed_of_the_own_wish(store: Store) -> None:
    """At once, and as the error that it was."""
    with pytest.raises(NoSpace, match="no"):
        follow(store, failed(store, "NoSpace", later=0))


def test_who_waits_is_not_told_what_failed_of_a_later_wish(store: Store) -> None:
    """That caller hears it, and may take the wish back; until then this one waits, and is told to come again."""
    with pytest.raises(Busy, match="ask again"):
        follow(store, failed(store, "NoSpace", later=1))


def test_who_waits_is_told_how_far_the_work_is_when_its_time_is_over(store: Store) -> None:
    """What is done in pieces goes on by itself: that it isn't done yet is no failure."""
    with pytest.raises(Busy, match=r"still waiting for .* \(no\); the work goes on"):
        follow(store, failed(store, Busy.__name__, later=0))


def test_who_waits_is_not_told_of_a_deletion_that_was_refused(store: Store) -> None:
    """InUse is the answer to a deletion, never to a growth or to new limits."""
    with pytest.raises(Busy):
        follow(store, failed(store, InUse.__name__, later=0))
