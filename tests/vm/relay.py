"""Show the tests that run in the VM as what they are: tests, one by one, in the pytest that a person started.

A test marked `kernel` does not run here. Those that want the same boot share a machine, or several that run side by
side, each with another pytest; and each test is reported here when it is through there. What was skipped there has
failed, and so has what brought no report, with the reason: the machine crashed, hung, or did not come up.
"""

from __future__ import annotations

import os
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest

from tests.vm import lanes
from tests.vm.boot import Boot
from tests.vm.seconds import expected, file_of
from tests.vm.suite import Machines, Suite

if TYPE_CHECKING:
    from collections.abc import Iterator

QUIET = 2


def in_vm() -> bool:
    """Return whether this is the machine itself."""
    return "SLUICE_DISK" in os.environ


def boot_of(item: pytest.Item) -> Boot:
    """Return the boot that a test asks for.

    What runs beside others has one processor: of two, one would often wait for the other while neither runs.
    """
    marker = item.get_closest_marker("boot")
    words = marker.kwargs if marker else {}
    return Boot(**words) if item.get_closest_marker("quiet") else Boot(**{"processors": 1, **words})


def planned(there: list[pytest.Item], machines: int) -> list[Machines]:
    """Share tests out among as many machines that run side by side."""
    known = expected(item.nodeid for item in there)
    pairs = dict.fromkeys((boot_of(item), file_of(item.nodeid)) for item in there)
    loads = [lanes.Load(boot, file, known[file]) for boot, file in pairs]
    found = []
    for lane in lanes.pack(loads, machines):
        mine = {(load.boot, load.file) for load in lane.loads}
        items = [item for item in there if (boot_of(item), file_of(item.nodeid)) in mine]
        suites = [Suite(boot, [item for item in items if boot_of(item) == boot]) for boot in lane.boots()]
        found.append(Machines(suites))
    return found


class Relay:
    """The plugin on this side."""

    def __init__(self) -> None:
        self._phases: list[list[Machines]] = []
        self._told: SimpleQueue[tuple[Suite, bytes]] = SimpleQueue()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the tests of the VM behind those that can run beside it, and before those that can't.

        What measures has a machine of its own when everything else is through: a wrong figure costs a day.
        """
        here = sorted((item for item in items if not item.get_closest_marker("kernel")), key=_lateness)
        there = [item for item in items if item.get_closest_marker("kernel")]
        for item in there:
            # Its time is taken where it runs.
            item.add_marker(pytest.mark.timeout(0))
        beside = [item for item in here if _lateness(item) < QUIET]
        quiet = [item for item in there if _lateness(item) >= QUIET]
        noisy = [item for item in there if item not in quiet]
        self._phases = [planned(noisy, lanes.how_many(lanes.PROCESSORS)), planned(quiet, 1)]
        items[:] = [*beside, *(item for suite in self._all() for item in suite.items), *here[len(beside) :]]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Boot the first machines at once: their tests run beside those here."""
        if not session.config.option.collectonly:
            for machines in self._phases[0]:
                self._go_on(session.config, machines)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Report a test of the VM; leave all others to pytest."""
        while not self._told.empty():
            self._take(item.config)
        if not item.get_closest_marker("kernel"):
            return None
        phase, suite = self._place_of(item)
        for machines in phase:
            self._go_on(item.config, machines)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in suite.reports(item, partial(self._take, item.config)):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self) -> None:
        """Leave no machine behind, whatever ended the session."""
        for suite in self._all():
            suite.end()

    def _all(self) -> Iterator[Suite]:
        return (suite for phase in self._phases for machines in phase for suite in machines.suites)

    def _place_of(self, item: pytest.Item) -> tuple[list[Machines], Suite]:
        places = ((phase, suite) for phase in self._phases for machines in phase for suite in machines.suites)
        return next((phase, suite) for phase, suite in places if item in suite.items)

    def _take(self, config: pytest.Config) -> None:
        """Wait for a line of any machine, and take it in. Where a machine is through, the next one begins."""
        suite, line = self._told.get()
        suite.take(line)
        if suite.through:
            self._go_on(config, next(each for phase in self._phases for each in phase if suite in each.suites))

    def _go_on(self, config: pytest.Config, machines: Machines) -> None:
        """Boot the next machine, unless one runs."""
        suite = machines.next()
        if suite is None or suite.runs():
            return
        running = suite.start(lambda line: self._told.put((suite, line)))
        terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"in the VM ({suite.boot}): {len(suite.items)} tests, booting; log in {running.log}")


def _lateness(item: pytest.Item) -> int:
    """Return where a test stands: first what may run beside the VM, then what needs quiet, then what runs last."""
    for name, lateness in (("last", QUIET + 1), ("quiet", QUIET), ("boots", QUIET - 1)):
        if item.get_closest_marker(name):
            return lateness
    return 0
