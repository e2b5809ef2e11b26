"""The same state machine on this machine: a real server, its socket, SQLite, loop devices, SIGKILL."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from tests.killpoints.killable import Killable
from tests.states.native import NativeDriver
from tests.states.rules import Machine
from tests.states.running import run_machine
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.states.driver import Driver

pytestmark = pytest.mark.native

WORLDS, STEPS = pick((12, 20), (150, 40))
POOL = "size=2Gi,ratio=4"


class NativeMachine(Machine):
    """Drive this machine's kernel. All volumes are XFS: to grow an ext4 takes a right that root may lack."""

    file_system: ClassVar[str] = "xfs"
    server: ClassVar[Killable]

    def open(self, seed: int) -> Driver:  # noqa: ARG002 - nothing is random here
        """Take the server, which the world before has left empty."""
        return NativeDriver(self.server)


@pytest.fixture
def server() -> Iterator[Killable]:
    """Give a server that can be killed at any effect."""
    with Killable(pool=POOL) as running:
        yield running


@pytest.mark.timeout(pick(120, 7200))
def test_this_machine_is_what_the_model_says(server: Killable, record_property: Callable[[str, object], None]) -> None:
    """Whatever is asked, whenever the server is killed: codes, records, kernel, lists and capacity are right."""
    NativeMachine.server = server
    figures = run_machine(NativeMachine, WORLDS, STEPS, record_property)

    assert sum(figures.values()) > 200
    assert figures["deaths in a call"] > 5
