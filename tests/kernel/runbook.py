"""What deploy/lvm.md tells an operator to type, so that a test types it too."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from tests.kernel.parted import sluice
from tests.serving import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = CHECKOUT / "deploy/lvm.md"
SECONDS = 120


def commands(heading: str) -> list[str]:
    """Return the commands under a heading of the page, in their order."""
    _, found, rest = PAGE.read_text().partition(f"### {heading}\n")
    assert found, f"{PAGE} has no heading {heading!r}"
    return [line.strip() for line in re.split(r"\n##", rest)[0].splitlines() if line.startswith("    ")]


def typed(line: str, *, state: tuple[str | Path, ...] = (), **names: str) -> str:
    """Type a command of the page with these names in it, and return what it said; a failure is the test's."""
    for name, value in names.items():
        line = re.sub(rf"\b{name}\b", value, line)
    if line.startswith("sluice "):
        return sluice(*line.split()[1:], *state)[0]
    argv = ("sh", "-c", line)
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"{line} ended with status {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout
