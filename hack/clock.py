"""Progress for people: a line a step with the seconds since the start, and a clock below it where somebody looks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.status import Status

if TYPE_CHECKING:
    from rich.console import Console


class Clock:
    """Run while something takes long."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._status = Status("", console=console)

    def __enter__(self) -> Self:
        """Show the clock, unless nobody looks."""
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the clock away."""
        self._status.stop()

    def step(self, text: str, style: str = "") -> None:
        """Print a line."""
        passed = time.monotonic() - self._began
        self._console.print(f"[{passed:5.0f} s] {text}", style=style, markup=False, highlight=False)

    def now(self, text: str) -> None:
        """Say beside the clock what goes on."""
        self._status.update(text)
