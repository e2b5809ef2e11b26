"""Ids, and the law that history never falls back."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.ids import is_id, new_id
from csi_driver.kinds import KINDS
from csi_driver.records import Failure, History, Node, NodeSpec, Offer, Volume, VolumeSpec

KEPT: dict[str, Any] = {
    "accepted": Offer(1, "node-a", "pool-a"),
    "made": "2026-01-01T00:00:00Z",
    "gone": Failure(1, "NoSpace", "the pool is full"),
    "condemned": True,
    "format_begun": "ext4",
    "format_done": "ext4",
}
EMPTY = History()

histories = st.builds(
    History,
    size=st.integers(0, 3),
    refused=st.sampled_from([None, KEPT["gone"]]),
    **{name: st.sampled_from([getattr(EMPTY, name), value]) for name, value in KEPT.items()},
)


def test_the_same_name_gets_the_same_id() -> None:
    """A retry after a crash finds its own object."""
    first, again = new_id("c/d", "volume", "pvc-1"), new_id("c/d", "volume", "pvc-1")

    assert first == again
    assert is_id(first)


@given(st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="/"))] * 3), st.data())
def test_another_scope_kind_or_name_gets_another_id(parts: tuple[str, str, str], data: st.DataObject) -> None:
    """Ids of different objects differ, whatever characters their names hold."""
    place = data.draw(st.integers(0, 2))
    other = tuple(f"{part}x" if at == place else part for at, part in enumerate(parts))

    assert new_id(*parts) != new_id(*other)


def test_an_id_is_what_uuid_prints() -> None:
    """Ids as we write them are ids."""
    assert is_id(str(uuid.uuid4()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "/",
        "pvc-1",
        "6BA7B811-9DAD-11D1-80B4-00C04FD430C8",
        "6ba7b8119dad11d180b400c04fd430c8",
        "{6ba7b811-9dad-11d1-80b4-00c04fd430c8}",
        "urn:uuid:6ba7b811-9dad-11d1-80b4-00c04fd430c8",
        "6ba7b811-9dad-11d1-80b4-00c04fd430c8\n",
        " 6ba7b811-9dad-11d1-80b4-00c04fd430c8",
        "6ba7b811-9dad-11d1-80b4-00c04fd430c8/../..",
        "../6ba7b811-9dad-11d1-80b4-00c04fd430c8",
        "6ba7b811-9dad-11d1-80b4-00c04fd430c8\0",
        "6ba7b811-9dad-11d1-80b4-00c04fd430c",
        "6ba7b811-9dad-11d1-80b4-00c04fd430c8a",
        "6ba7-b8119dad-11d1-80b4-00c04fd430c8",
        "٦ba7b811-9dad-11d1-80b4-00c04fd430c8",
        "gba7b811-9dad-11d1-80b4-00c04fd430c8",
    ],
)
def test_nothing_else_is_an_id(text: str) -> None:
    """Text in any other form could lead out of a folder, or name one object in two ways."""
    assert not is_id(text)


@given(st.text())
def test_what_is_an_id_is_safe_in_a_path(text: str) -> None:
    """An id has 36 characters, all of them hexadecimal digits or hyphens."""
    safe = len(text) == 36 and set(text) <= set("0123456789abcdef-")

    assert safe or not is_id(text)


@given(histories)
def test_history_does_not_fall_back_from_itself(history: History) -> None:
    """Writing the same history again is lawful."""
    assert not history.falls_back_from(history)


@given(histories, st.sampled_from(sorted(KEPT)))
def test_an_entry_more_is_no_fall(history: History, name: str) -> None:
    """History grows entry by entry, in any order."""
    grown = dataclasses.replace(history, **{name: KEPT[name]})

    assert not grown.falls_back_from(history)


@given(histories, st.sampled_from(sorted(KEPT)))
def test_an_entry_less_is_a_fall(history: History, name: str) -> None:
    """No entry can be taken back, whatever else is there."""
    full = dataclasses.replace(history, **{name: KEPT[name]})
    lost = dataclasses.replace(full, **{name: getattr(EMPTY, name)})

    assert lost.falls_back_from(full)


@given(histories, st.integers(1, 9))
def test_the_admitted_size_never_shrinks(history: History, more: int) -> None:
    """The pool's ledger forgets no bytes."""
    larger = dataclasses.replace(history, size=history.size + more)

    assert history.falls_back_from(larger)
    assert not larger.falls_back_from(history)


def test_bytes_are_made_once() -> None:
    """Another date would mean that bytes were made again over those that were there."""
    assert History(made="2026-01-02T00:00:00Z").falls_back_from(History(made="2026-01-01T00:00:00Z"))


@given(histories)
def test_a_refusal_may_be_forgotten(history: History) -> None:
    """A refused offer left no bytes, so the next offer may write over it."""
    assert not dataclasses.replace(history, refused=None).falls_back_from(history)


@given(histories, histories, histories)
def test_two_lawful_steps_are_a_lawful_step(first: History, second: History, third: History) -> None:
    """Who missed the middle of three histories still sees no fall."""
    lawful = not second.falls_back_from(first) and not third.falls_back_from(second)

    assert not (lawful and third.falls_back_from(first))


def test_with_spec_changes_only_the_spec() -> None:
    """The rest of a record stays, its version above all."""
    record = Volume("id", VolumeSpec("pvc-1", 4096), version="7", generation=3, deleting=True)

    changed = record.with_spec(absent=True)

    assert changed == dataclasses.replace(record, spec=VolumeSpec("pvc-1", 4096, absent=True))
    assert not record.spec.absent


def test_kinds_have_the_names_that_stores_keep() -> None:
    """The names stand in databases and in custom resources: they never change."""
    assert list(KINDS) == ["volume", "snapshot", "groupsnapshot", "pool", "node"]


def test_a_record_cannot_be_changed_in_place() -> None:
    """Records are values: threads may share them."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Node("id", NodeSpec("node-a")).id = "other"  # type: ignore[misc]
