"""The state machine on a thin pool: a real server, its socket, SQLite, device-mapper, limits in force, SIGKILL."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from tests.kernel.thin_node import ThinNode
from tests.killpoints.killable import Killable
from tests.leftovers import Leftovers
from tests.states.rules import Machine
from tests.states.running import run_machine
from tests.states.thin import ThinDriver
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.states.driver import Driver

pytestmark = pytest.mark.kernel

WORLDS, STEPS = pick((2, 8), (60, 30))


class KillableThinNode(Killable, ThinNode):
    """A server of a thin pool that can be killed at any effect."""


class ThinMachine(Machine):
    """Drive the kernel of the test machine."""

    server: ClassVar[KillableThinNode]

    def open(self, seed: int) -> Driver:  # noqa: ARG002 - nothing is random here
        """Take the server, which the world before has left empty."""
        return ThinDriver(self.server, self.server.thin)


@pytest.fixture
def server() -> Iterator[KillableThinNode]:
    """Give a server that can be killed at any effect, and see that its pool is sound in the end."""
    before = Leftovers.now()
    with KillableThinNode() as running:
        yield running
        running.stop()
        running.thin.check()

    assert Leftovers.now().since(before) == []


@pytest.mark.timeout(pick(300, 7200))
def test_a_thin_pool_is_what_the_model_says(
    server: KillableThinNode, record_property: Callable[[str, object], None]
) -> None:
    """Whatever is asked, whenever the server is killed: codes, records, kernel, lists and capacity are right."""
    ThinMachine.server = server
    figures = run_machine(ThinMachine, WORLDS, STEPS, record_property)

    assert sum(figures.values()) > WORLDS * STEPS
