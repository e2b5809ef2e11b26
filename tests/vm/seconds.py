"""What each file of tests takes, as it was learned in an earlier run, and how to learn it anew."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

KNOWN = Path(__file__).with_name("seconds.json")
EACH = 4.0
"""Seconds for a test of a file that nothing is known of, on an emulated processor."""


def file_of(nodeid: str) -> str:
    """Return the file that a test is in."""
    return nodeid.split("::", maxsplit=1)[0]


def expected(nodeids: Iterable[str], path: Path | None = None) -> dict[str, float]:
    """Return the seconds that each of these tests' files will take: as it did, or so many for each test."""
    known = _read(path or KNOWN)
    counts = Counter(map(file_of, nodeids))
    return {file: known.get(file, count * EACH) for file, count in counts.items()}


class Learner:
    """A plugin that adds up what each file's tests take, and writes it down."""

    def __init__(self, path: Path = KNOWN) -> None:
        self._path = path
        self._taken: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what one part of a test took, by the clock of the machine that it ran on."""
        self._taken[file_of(report.nodeid)] += report.duration  # type: ignore[assignment]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write all that is known of files that are there."""
        known = _read(self._path) | {file: round(seconds, 1) for file, seconds in self._taken.items()}
        there = {file: known[file] for file in sorted(known) if (session.config.rootpath / file).exists()}
        self._path.write_text(json.dumps(there, indent=1) + "\n")


def _read(path: Path) -> dict[str, float]:
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    return known
