"""The figures that tests note by `record_property`, kept in a document, and failures while hours of tests go on."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.budgets import suite_of

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

BEGIN, END = "<!-- torture: begin -->", "<!-- torture: end -->"


class Figures:
    """Collect figures, and put them between the marks of a document at the session's end. Show failures at once."""

    def __init__(self, document: Path, config: pytest.Config) -> None:
        """Take the document, which has both marks."""
        self._document = document
        self._config = config
        self._rows: list[tuple[str, str, str, object]] = []
        self._tests = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the figures of a test that is through, and show why it failed."""
        if report.failed:
            terminal: Any = self._config.pluginmanager.get_plugin("terminalreporter")
            terminal.ensure_newline()
            terminal.write_line(f"{report.nodeid} failed ({report.when}):\n{report.longreprtext}\n{report.capstdout}")
        if report.when == "teardown":
            self._tests += 1
            test = report.nodeid.rpartition("::")[2]
            self._rows += [(suite_of(report.nodeid), test, name, value) for name, value in report.user_properties]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write them down."""
        said = f"{self._tests} tests, {session.testsfailed} failed, {datetime.now(UTC):%Y-%m-%d}"
        text = self._document.read_text()
        head, _, rest = text.partition(BEGIN)
        _, _, tail = rest.partition(END)
        self._document.write_text(f"{head}{BEGIN}\n{self.table(said)}{END}{tail}")

    def table(self, said: str) -> str:
        """Return all figures as a Markdown table under one line."""
        lines = [f"{said}, Linux {platform.release()}.", "", "| suite | test | figure | value |", "|---|---|---|---|"]
        lines += [
            f"| {suite} | {test} | {name} | {value} |" for suite, test, name, value in sorted(self._rows, key=str)
        ]
        return "\n".join(lines) + "\n"
