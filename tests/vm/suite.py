"""All tests of one machine, and their reports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.vm import guest
from tests.vm.boot import Boot, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


class Suite:
    """Tests that share a boot, in the order in which they run there."""

    def __init__(self, boot: Boot, items: list[pytest.Item]) -> None:
        self.boot = boot
        self.items = items
        self.through = False
        self._running: Running | None = None
        self._reports: dict[str, list[pytest.TestReport]] = {item.nodeid: [] for item in items}
        self._collecting = ""

    def runs(self) -> bool:
        """Return whether the machine was booted."""
        return self._running is not None

    def start(self, tell: Callable[[bytes], None]) -> Running:
        """Boot the machine. Its lines are told on a thread of its own, and to be given to `take`."""
        pytest_there = ["python", "-m", "pytest", "-p", "tests.vm.guest", "-p", "no:cacheprovider", "--tb=short"]
        command = [*guest.COMMAND, *pytest_there, *(item.nodeid for item in self.items)]
        self._running = Running(self.boot, command, tell)
        return self._running

    def take(self, line: bytes) -> None:
        """Take in a report; b"" says that there will be none any more."""
        if not line:
            self.through = True
            return
        config = self.items[0].config
        report = config.hook.pytest_report_from_serializable(config=config, data=json.loads(line))
        if isinstance(report, pytest.CollectReport):
            self._collecting += f"{report.longreprtext}\n"
        else:
            self._reports[report.nodeid].append(_of(report))

    def reports(self, item: pytest.Item, wait: Callable[[], None]) -> Iterator[pytest.TestReport]:
        """Yield a test's reports, the last one a teardown's. `wait` returns when something was taken in."""
        reports = self._reports[item.nodeid]
        while True:
            while not (reports or self.through):
                wait()
            if not reports:
                yield self._missing(item)
                return
            report = reports.pop(0)
            if report.when == "teardown":
                yield self._ended(item) or report
                return
            yield _strict(report)

    def end(self) -> None:
        """End the machine if it is still there."""
        if self._running is not None:
            self._running.end()

    def _ended(self, item: pytest.Item) -> pytest.TestReport | None:
        """Return what to report in place of the last test's teardown when the machine did not end as it should."""
        if item is not self.items[-1]:
            return None
        status, words = self._status()
        return None if status in OK else _failed(item, "teardown", f"the VM ended with status {status}\n{words}")

    def _missing(self, item: pytest.Item) -> pytest.TestReport:
        status, words = self._status()
        reason = f"the VM ended with status {status}, and this test was not run or not finished"
        return _failed(item, "call", f"{reason}\n{self._collecting}{words}")

    def _status(self) -> tuple[int, str]:
        assert self._running is not None
        return self._running.wait(), self._running.last_words()


@dataclass(frozen=True, slots=True)
class Machines:
    """Hold suites whose machines run one after another."""

    suites: list[Suite]

    def next(self) -> Suite | None:
        """Return the first that is not through, None when all are."""
        return next((suite for suite in self.suites if not suite.through), None)


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
