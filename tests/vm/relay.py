"""Show the tests that run in the VM as what they are: tests, one by one, in the pytest that a person started.

A test marked `kernel` does not run here. The first one boots the machine, where another pytest runs all that want the
same boot, and each is reported here as soon as it is through there. What was skipped there has failed, and so has what
brought no report, with the reason: the machine crashed, hung, or did not come up.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.vm import guest
from tests.vm.boot import Boot, Running

if TYPE_CHECKING:
    from collections.abc import Iterator

QUIET = 2
OK = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


def in_vm() -> bool:
    """Return whether this is the machine itself."""
    return "SLUICE_DISK" in os.environ


def boot_of(item: pytest.Item) -> Boot:
    """Return the boot that a test asks for."""
    marker = item.get_closest_marker("boot")
    return Boot(**marker.kwargs) if marker else Boot()


class Suite:
    """All tests of one boot, and their reports."""

    def __init__(self, boot: Boot) -> None:
        self.boot = boot
        self.items: list[pytest.Item] = []
        self._running: Running | None = None
        self._lines: Iterator[bytes] = iter(())
        self._early: dict[str, list[pytest.TestReport]] = {}
        self._collecting = ""

    def runs(self) -> bool:
        """Return whether the machine was booted."""
        return self._running is not None

    def start(self) -> Running:
        """Boot the machine, unless it runs."""
        if self._running is None:
            pytest_there = ["python", "-m", "pytest", "-p", "tests.vm.guest", "-p", "no:cacheprovider", "--tb=short"]
            command = [*guest.COMMAND, *pytest_there, *(item.nodeid for item in self.items)]
            self._running = Running(self.boot, command)
            self._lines = self._running.lines()
        return self._running

    def reports(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """Yield a test's reports as they come, the last one a teardown's."""
        running = self.start()
        early = iter(self._early.pop(item.nodeid, ()))
        while True:
            report = next(early, None) or self._next(item)
            if report is None:
                yield self._missing(item, running)
                return
            if report.when == "teardown":
                yield self._ended(item, running) or report
                return
            yield _strict(report)

    def end(self) -> None:
        """End the machine if it is still there."""
        if self._running is not None:
            self._running.end()

    def _next(self, item: pytest.Item) -> pytest.TestReport | None:
        """Return the next report of a test, None when there will be none. Those of others are kept."""
        for line in self._lines:
            report = item.config.hook.pytest_report_from_serializable(config=item.config, data=json.loads(line))
            if isinstance(report, pytest.CollectReport):
                self._collecting += f"{report.longreprtext}\n"
            elif report.nodeid == item.nodeid:
                return _of(report)
            else:
                self._early.setdefault(report.nodeid, []).append(_of(report))
        return None

    def _ended(self, item: pytest.Item, running: Running) -> pytest.TestReport | None:
        """Return what to report in place of the last test's teardown when the machine did not end as it should."""
        if item is not self.items[-1] or (status := running.wait()) in OK:
            return None
        return _failed(item, "teardown", f"the VM ended with status {status}\n{running.last_words()}")

    def _missing(self, item: pytest.Item, running: Running) -> pytest.TestReport:
        reason = f"the VM ended with status {running.wait()}, and this test was not run or not finished"
        return _failed(item, "call", f"{reason}\n{self._collecting}{running.last_words()}")


class Relay:
    """The plugin on this side."""

    def __init__(self) -> None:
        self._suites: dict[tuple[Boot, bool], Suite] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the tests of the VM behind those that can run beside it, and before those that can't.

        Those of one boot stand together; what measures has boots of its own, when everything else is through.
        """
        for item in (item for item in items if item.get_closest_marker("kernel")):
            # Its time is taken where it runs.
            item.add_marker(pytest.mark.timeout(0))
            self._suite_of(item).items.append(item)
        self._suites = dict(sorted(self._suites.items(), key=lambda entry: entry[0][1]))
        there = [item for suite in self._suites.values() for item in suite.items]
        here = [item for item in items if not item.get_closest_marker("kernel")]
        here.sort(key=_lateness)
        beside = [item for item in here if _lateness(item) < QUIET]
        items[:] = [*beside, *there, *here[len(beside) :]]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Boot the first machine at once: its tests run beside those here."""
        first = next(((quiet, suite) for (_, quiet), suite in self._suites.items()), None)
        if first is not None and not first[0] and not session.config.option.collectonly:
            self._announce(session.config, first[1])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Report a test of the VM; leave all others to pytest."""
        if not item.get_closest_marker("kernel"):
            return None
        suite = self._suite_of(item)
        self._announce(item.config, suite)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in suite.reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self) -> None:
        """Leave no machine behind, whatever ended the session."""
        for suite in self._suites.values():
            suite.end()

    def _suite_of(self, item: pytest.Item) -> Suite:
        boot = boot_of(item)
        return self._suites.setdefault((boot, item.get_closest_marker("quiet") is not None), Suite(boot))

    def _announce(self, config: pytest.Config, suite: Suite) -> None:
        if suite.runs():
            return
        running = suite.start()
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


def _of(report: pytest.TestReport) -> pytest.TestReport:
    """Take off what is the machine's own business: user_properties come back as lists, and nobody here reads them."""
    report.user_properties = [(str(name), value) for name, value in report.user_properties]
    return report


def _strict(report: pytest.TestReport) -> pytest.TestReport:
    """Turn a skip into a failure: the VM has all that a test may need."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, (tuple, list)) else report.longrepr
        report.outcome, report.longrepr = "failed", f"skipped in the VM, which admits no skips: {reason}"
    return report


def _failed(item: pytest.Item, when: Literal["call", "teardown"], text: str) -> pytest.TestReport:
    data: dict[str, Any] = {"nodeid": item.nodeid, "location": item.location, "keywords": {}, "outcome": "failed"}
    return pytest.TestReport(**data, longrepr=text, when=when)
