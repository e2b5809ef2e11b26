"""What is being measured now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hack.clock import Clock

if TYPE_CHECKING:
    from rich.console import Console


class Progress(Clock):
    """Tell of steps and rounds."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._step = ("", self._began)

    def __call__(self, what: str, done: int, of: int) -> None:
        """Say that round `done + 1` of `of` begins, and what is left by what those before it took."""
        now = time.monotonic()
        if what != self._step[0]:
            self._step = (what, now)
            self.step(what)
        left = f", about {(now - self._step[1]) / done * (of - done):.0f} s left" if done else ""
        self.now(f"{what}: {done + 1} of {of}{left}")
