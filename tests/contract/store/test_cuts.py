"""What every Store keeps of its contract: writes that are cut, and its end."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from typing import Any

import pytest

from csi_driver.records import Volume
from csi_driver.store.base import Store, StoreUnready
from tests.contract.store.samples import OpenStore, a_volume, with_made


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
