"""A time budget for each suite: a suite is a folder of tests, its budget stands in the Makefile."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


def suite_of(nodeid: str) -> str:
    """Return the suite that a test is in: `unit` for tests/unit/test_a.py::test_b."""
    return nodeid.split("::", maxsplit=1)[0].split("/")[1]


def parse(budgets: Iterable[str]) -> dict[str, float]:
    """Return seconds by suite from words such as `unit=60`. Raises UsageError, naming the word."""
    found = {}
    for word in budgets:
        suite, equals, seconds = word.partition("=")
        if not (suite and equals and seconds.isdecimal()):
            raise pytest.UsageError(f"--budget {word!r}: give SUITE=SECONDS, such as unit=60")
        found[suite] = float(seconds)
    return found


class Budgets:
    """Time every suite by the clock on the wall, boots and fixtures included, and fail the session for one too long."""

    def __init__(self, allowed: dict[str, float]) -> None:
        """Take seconds by suite. With any given, every suite that runs must have some."""
        self._allowed = allowed
        self._started = 0.0
        self.taken: Counter[str] = Counter()

    def exceeded(self) -> list[str]:
        """Return a line for each suite that took longer than it may, or that has no budget."""
        if not self._allowed:
            return []
        lines = []
        for suite, seconds in sorted(self.taken.items()):
            if suite not in self._allowed:
                lines.append(f"suite {suite} has no budget: give it one in the Makefile")
            elif seconds > self._allowed[suite]:
                lines.append(
                    f"suite {suite} took {seconds:.0f} s, its budget in the Makefile is {self._allowed[suite]:.0f}"
                )
        return lines

    def pytest_runtest_logstart(self) -> None:
        """Start the clock of a test."""
        self._started = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Add what the test took to its suite."""
        self.taken[suite_of(nodeid)] += time.monotonic() - self._started  # type: ignore[assignment]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a session whose tests passed, but not in time."""
        if self.exceeded() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what each suite took, and which took too long."""
        if not self._allowed:
            return
        parts = (f"{suite} {seconds:.0f}" for suite, seconds in sorted(self.taken.items()))
        terminalreporter.write_line(f"seconds by suite: {', '.join(parts)}")
        for line in self.exceeded():
            terminalreporter.write_line(line, red=True)
