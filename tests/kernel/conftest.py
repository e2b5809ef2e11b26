"""What kernel tests share: a node for the tests of a module, and the proof that each test leaves nothing on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.node import Node
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def machine() -> Iterator[Node]:
    """Give a node that serves, and see that nothing of it is left."""
    before = Leftovers.now()
    with Node() as running:
        yield running

    assert Leftovers.now().since(before) == []


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    """Give the module's node, and take down all that the test made there."""
    before = Leftovers.now()
    yield machine
    machine.take_down()

    left = Leftovers.now().since(before)
    assert [thing for thing in left if str(machine.socket) not in thing] == []
    assert machine.images() == []


@pytest.fixture(scope="module")
def thin_machine() -> Iterator[ThinNode]:
    """Give a node that serves a thin pool, and see that nothing of it is left."""
    before = Leftovers.now()
    with ThinNode() as running:
        yield running

    assert Leftovers.now().since(before) == []


@pytest.fixture
def thin(thin_machine: ThinNode) -> Iterator[ThinNode]:
    """Give the module's `thin_machine`, and take down all that the test made there. The pool's devices stay."""
    yield thin_machine
    thin_machine.take_down()

    assert thin_machine.images() == []
