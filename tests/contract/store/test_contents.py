"""What every Store keeps of its contract: whatever a record may hold comes back."""

from __future__ import annotations

import dataclasses
import types
import typing
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi_driver.kinds import KINDS
from csi_driver.records import (
    Node,
    NodeSpec,
    NodeStatus,
    Pool,
    PoolSpec,
    PoolStatus,
    Record,
    Seen,
    Status,
    Volume,
)
from csi_driver.store.base import LARGEST, Store, TooLarge
from qos.limits import Limits
from tests.contract.store.samples import a_volume

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
