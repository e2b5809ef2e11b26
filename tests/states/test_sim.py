"""The state machine on fake machines and a hostile Store, in process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.states.asking import GIB
from tests.states.rules import Machine, nodes
from tests.states.running import run_machine
from tests.states.sim import SimDriver
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.states.driver import Driver

WORLDS, STEPS = pick((90, 40), (1500, 60))


class SimMachine(Machine):
    """Drive the world in memory, which can also lose its power."""

    def open(self, seed: int) -> Driver:
        """Open a world with device-mapper, and every third without; in every second, writes may have landed or not."""
        unknown = 0.0 if seed % 2 else 0.1
        return SimDriver(("n1", "n2"), 6 * GIB, seed=seed, mapper=seed % 3 > 0, unknown=unknown)

    @rule(node=nodes)
    def reboot(self, node: int) -> None:
        """Take the power from a node: what is up and mounted goes, records and bytes stay."""
        name = self.driver.nodes[node]
        if self.driver.up(name):
            self.trail.append(f"{name} loses its power and starts")
            self.driver.reboot(name)
            self._went_down(name)

    @rule(seldom=st.sampled_from((False, False, False, True)))
    def power_cut(self, seldom: bool) -> None:
        """Take the power from everything: of the records, what was not flushed is lost with it."""
        if not seldom:
            return
        assert isinstance(self.driver, SimDriver)
        self.trail.append("all lose their power, and start")
        self.driver.power_cut()
        self.count("power cuts")
        self._went_down(*self.driver.nodes)

    def _went_down(self, *names: str) -> None:
        for key, thing in self.model.things.items():
            if thing.node in names:
                self.model.things[key] = replace(thing, up=None)
        self.check()


@pytest.mark.timeout(pick(120, 7200))
def test_the_world_in_memory_is_what_the_model_says(
    quick: None, record_property: Callable[[str, object], None]
) -> None:
    """Whatever is asked, whoever dies, in whatever order: codes, records, kernel, lists and capacity are right."""
    figures = run_machine(SimMachine, WORLDS, STEPS, record_property)

    assert sum(figures.values()) > 2000
    assert figures["deaths in a call"] > 50
    assert figures["calls with a write that may have landed"] > 50
