"""Which processes have a file, a folder or a device in their hands.

Links in /proc are read, never followed: a stat of a file on a dead network disk would hang.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROC = Path("/proc")


def openers(holds: Callable[[str], bool]) -> list[str]:
    """Return each process, as `4711 (postgres)`, that has a file open, mapped or as its folder whose path is such."""
    found: list[str] = []
    for process in PROC.iterdir():
        if process.name.isdecimal() and any(holds(link) for link in _links(process)):
            with contextlib.suppress(OSError):
                found.append(f"{process.name} ({(process / 'comm').read_text().strip()})")
    return found


def _links(process: Path) -> Iterator[str]:
    links = [process / "cwd", process / "root", process / "exe"]
    for folder in ("fd", "map_files"):
        with contextlib.suppress(OSError):
            links += (process / folder).iterdir()
    for link in links:
        with contextlib.suppress(OSError):
            yield str(link.readlink())
