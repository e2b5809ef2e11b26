"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from qos.quantity import format_bytes, format_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qos.limits import Limits

T = TypeVar("T")

SHORT = 8
"""Characters of an id that are enough for people."""
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
STEP = 1024
CONTROLS = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f]")
NOT_A_TERMINAL = 160
"""Columns where output goes to a file or a pipe, which has no width."""


def console(*, stderr: bool = False) -> Console:
    """Return where to print. In a pipe lines are long rather than broken at 80 columns."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else NOT_A_TERMINAL, highlight=False)


def progress(what: str, items: Iterable[T], total: int | None = None) -> Iterable[T]:
    """Go through items under a bar, which is gone afterwards; none where nobody looks."""
    return track(
        items, what, total=total, console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    )


def as_json(value: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """Print JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def table(title: str, *columns: str, right: Iterable[str] = ()) -> Table:
    """Return an empty table; the columns named in `right` hold numbers."""
    made = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", box=None)
    made.padding = (0, 2, 0, 0)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def plain(text: str) -> str:
    """Return a text, which a caller may have chosen, without what a terminal would obey."""
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def row(to: Table, cells: Sequence[str | Text]) -> None:
    """Add a row as it is: brackets in names are no markup."""
    to.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in cells))


def human(size: float) -> str:
    """Return bytes for people, such as "1.5 GiB"."""
    unit = 0
    while size >= STEP and unit < len(UNITS) - 1:
        size /= STEP
        unit += 1
    return f"{size:.0f} {UNITS[unit]}" if unit == 0 or size == int(size) else f"{size:.1f} {UNITS[unit]}"


def rate(key: str, value: int | None) -> str:
    """Return one limit as a class would say it, "max" for none. `key` is one of io.max."""
    if value is None:
        return "max"
    return (format_bytes if key.endswith("bps") else format_count)(value)


def limits(value: Limits | None) -> str:
    """Return four limits in one cell: reads, then writes; "-" when they aren't known, "none" when there are none."""
    if value is None:
        return "-"
    parts = []
    for name, bps, iops in (("read", value.rbps, value.riops), ("write", value.wbps, value.wiops)):
        said = [f"{human(bps)}/s"] if bps is not None else []
        said += [f"{iops:,} IOPS"] if iops is not None else []
        if said:
            parts.append(f"{name} {', '.join(said)}")
    return "; ".join(parts) or "none"
