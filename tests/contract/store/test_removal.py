"""What every Store keeps of its contract: marks and removals."""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.records import Volume
from csi_driver.store.base import Stale, Store
from tests.contract.store.samples import a_volume, settle, with_made


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
