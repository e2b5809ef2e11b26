"""In the test machine: hand every report to the pytest that booted it, as a line of JSON on a descriptor of its own."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

REPORTS = 3
"""The descriptor. Standard output of the machine is for reports alone; all else goes to standard error."""

COMMAND = ("sh", "-c", f'exec "$@" {REPORTS}>&1 1>&2', "sh")
"""What comes before the argv of that pytest."""


class Reports:
    """A plugin that sends reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._send(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._send(report)

    def _send(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        line = memoryview(json.dumps(data, default=str).encode() + b"\n")
        while line:
            line = line[os.write(REPORTS, line) :]


def pytest_configure(config: pytest.Config) -> None:
    """Send reports from now on."""
    config.pluginmanager.register(Reports(config))
