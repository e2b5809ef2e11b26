"""`sluice top`: what volumes do now, which are slow, and which are held back by a limit."""

from __future__ import annotations

import contextlib
import math
import os
import select
import sys
import termios
import time
import tty
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from csi_driver import assemble
from csi_driver.cli import options, show
from csi_driver.cli.activity import Activity, Looking, between
from csi_driver.cli.volumes import records
from csi_driver.config import Config
from csi_driver.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import RenderableType

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

MIB = 1 << 20
MILLI = 1e3
END, NEXT = "q", "s"
SHORTEST, LONGEST = 0.1, 3600.0
"""Seconds between two looks."""
TOLD = {"rbps": "read B/s", "wbps": "write B/s", "riops": "reads/s", "wiops": "writes/s"}
DECIMALS_BELOW = 10
LEAST_OF_NAME = 12


@dataclass(frozen=True, slots=True)
class Column:
    """Describe a column: its title, what it is sorted by (the largest first, names from A), and how a cell looks."""

    title: str
    key: Callable[[Activity], float | str | None]
    cell: Callable[[Activity], str | Text]


def number(value: float | None, *, decimals: int = 0) -> str:
    """Return a number in a cell, "-" for none; small ones with so many decimals."""
    if value is None:
        return "-"
    return f"{value:.{decimals if value < DECIMALS_BELOW else 0}f}"


def limit(one: Activity) -> Text:
    """Return how near a volume is to its nearest limit, and which that is; red where it is held back."""
    near = one.nearest
    if near is None:
        return Text("-" if one.limits is None or one.rates is None else "none")
    return Text(f"{near.share:.0%} {TOLD[near.key]}", style="bold red" if near.throttled else "")


def _rate(name: str, title: str, unit: int = 1, decimals: int = 0) -> Column:
    def value(one: Activity) -> float | None:
        return getattr(one.rates, name) / unit if one.rates else None

    return Column(title, value, lambda one: number(value(one), decimals=decimals))


def _percentile(name: str) -> Column:
    def value(one: Activity) -> float | None:
        seconds = one.percentile(name)
        return None if seconds is None else seconds * MILLI

    return Column(f"{name.upper()} MS", value, lambda one: number(value(one), decimals=2))


COLUMNS = {
    "name": Column("CLAIM OR NAME", lambda one: one.name, lambda one: one.name),
    "tier": Column("TIER", lambda one: one.volume.spec.qos.tier, lambda one: one.volume.spec.qos.tier),
    "riops": _rate("riops", "READS/s"),
    "wiops": _rate("wiops", "WRITES/s"),
    "rbps": _rate("rbps", "R MiB/s", MIB, 1),
    "wbps": _rate("wbps", "W MiB/s", MIB, 1),
    "p50": _percentile("p50"),
    "p95": _percentile("p95"),
    "p99": _percentile("p99"),
    "limit": Column("NEAREST LIMIT", lambda one: one.nearest.share if one.nearest else None, limit),
}
TEXTS = ("name", "tier", "limit")


def ordered(found: Sequence[Activity], by: str) -> list[Activity]:
    """Return volumes in the order of a column, what isn't known last, and by name where they are alike."""

    def rank(one: Activity) -> tuple[str, float]:
        value = COLUMNS[by].key(one)
        return (value, 0.0) if isinstance(value, str) else ("", math.inf if value is None else -value)

    return sorted(sorted(found, key=lambda one: one.name), key=rank)


def table(found: Sequence[Activity], by: str) -> RenderableType:
    """Return a row a volume, with the column that it is sorted by marked."""
    titles = {key: f"{column.title}{'*' if key == by else ''}" for key, column in COLUMNS.items()}
    made = show.table("", *titles.values(), right=[title for key, title in titles.items() if key not in TEXTS])
    made.padding = (0, 1, 0, 0)
    made.columns[0].min_width = LEAST_OF_NAME
    for column in made.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    for one in ordered(found, by):
        show.row(made, [column.cell(one) for column in COLUMNS.values()])
    return made


def screen(found: Sequence[Activity], by: str, troubles: Sequence[str], head: str = "") -> RenderableType:
    """Return all that is shown at once."""
    said = [Text(show.plain(trouble), style="red") for trouble in troubles]
    body = table(found, by) if found else Text("No volume is staged here.")
    return Group(*([Text(head, style="dim")] if head else []), body, *said)


@contextlib.contextmanager
def keys(terminal: int) -> Iterator[Callable[[float], str]]:
    """Give what waits for a key for so many seconds and returns it, "" for none; keys are not shown meanwhile."""
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)

    def key(seconds: float) -> str:
        ready, _, _ = select.select([terminal], [], [], seconds)
        return (os.read(terminal, 1).decode(errors="replace") or END) if ready else ""

    try:
        yield key
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def watch(looking: Looking, key: Callable[[float], str], by: str, every: float, times: int | None) -> None:
    """Show a screen that is kept up to date, until `q` or so many looks."""
    columns, shown, older = list(COLUMNS), 0, looking.look()
    found: list[Activity] = []
    with Live(console=show.console(), screen=True, auto_refresh=False) as live:
        while True:
            head = f"every {every:g} s   {END}: end   {NEXT}: sort by the next column"
            body = screen(found, by, looking.troubles, head) if shown else Text("measuring ...", style="dim")
            live.update(body, refresh=True)
            pressed = key(max(0.0, older.at + every - time.monotonic()))
            if pressed == END:
                return
            if pressed == NEXT:
                by = columns[(columns.index(by) + 1) % len(columns)]
            if time.monotonic() >= older.at + every:
                if shown == times:
                    return
                newer = looking.look()
                older, found, shown = newer, between(older, newer), shown + 1


def listed(looking: Looking, every: float, times: int) -> Iterator[list[Activity]]:
    """Yield what volumes did, interval by interval."""
    older = looking.look()
    for _ in range(times):
        time.sleep(every)
        newer = looking.look()
        yield between(older, newer)
        older = newer


@app.command(epilog="Example: sluice top --state /var/lib/sluice --sort limit")
def top(
    config: options.ConfigFile = None,
    state: options.State = None,
    ancestor: options.Ancestor = None,
    sort: Annotated[str, typer.Option(help=f"The column to sort by: {', '.join(COLUMNS)}.", metavar="COLUMN")] = "p99",
    every: Annotated[float, typer.Option(help="Seconds between two looks.", metavar="SECONDS")] = 2.0,
    times: Annotated[
        int | None, typer.Option("-n", help="End after so many looks; 1 where there is no terminal.", metavar="N")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show what staged volumes do: I/Os and bytes a second, latency, and how near each is to its nearest limit.

    As root, on the node, with or without its server. q ends it, s sorts by the next column. Latency is the kernel's,
    below the limits: a volume in red waits for its limit as well.
    """
    if sort not in COLUMNS:
        raise Invalid(f"sort: there is no column {sort!r}; write one of {', '.join(COLUMNS)}")
    if not SHORTEST <= every <= LONGEST:
        raise Invalid(f"every: {every:g} is not between {SHORTEST:g} and {LONGEST:g} seconds")
    if times is not None and times < 1:
        raise Invalid(f"-n: {times} looks show nothing; write 1 or more")
    settings = Config.load(config, {"state": state, "ancestor": ancestor})
    with records(settings) as store, contextlib.suppress(KeyboardInterrupt):
        looking = Looking(store, assemble.Machine(), settings.ancestor)
        if as_json:
            (found,) = listed(looking, every, 1)
            show.as_json([one.as_dict() for one in ordered(found, sort)])
        elif sys.stdin.isatty() and sys.stdout.isatty():
            with keys(sys.stdin.fileno()) as key:
                watch(looking, key, sort, every, times)
        else:
            for found in listed(looking, every, times or 1):
                show.console().print(screen(found, sort, looking.troubles))
