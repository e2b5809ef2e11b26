"""What is being measured now: a line a step, and a clock below it where somebody looks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.status import Status

if TYPE_CHECKING:
    from rich.console import Console


class Progress:
    """Tell of steps and rounds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._status = Status("", console=console)
        self._step = ("", self._began)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        """Say that round `done + 1` of `of` begins, and what is left by what those before it took."""
        now = time.monotonic()
        if what != self._step[0]:
            self._step = (what, now)
            self._console.print(f"[{now - self._began:5.0f} s] {what}", markup=False, highlight=False)
        left = f", about {(now - self._step[1]) / done * (of - done):.0f} s left" if done else ""
        self._status.update(f"{what}: {done + 1} of {of}{left}")
