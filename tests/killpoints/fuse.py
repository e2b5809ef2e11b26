"""The fuse: it numbers the effects of an operation, and ends the process before, inside or after the chosen one."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

When = Literal["before", "inside", "after"]
WHENS: tuple[When, ...] = ("before", "inside", "after")
NOISE = ("of node ", "of pool ", "create node ", "create pool ")
"""Signs of life and hints: they come by the clock, belong to no operation, and nothing is decided by them."""


class Killed(BaseException):
    """End a process that is only played: what it was about to do doesn't happen, and no handler stops this."""


@dataclass(frozen=True, slots=True)
class Point:
    """Name a point between effects: by the effect's number from 1, or, with number 0, by how its name begins.

    `inside` is only in programs: started, and left to themselves. With `seconds` it is a point in time instead.
    """

    number: int
    when: When
    name: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.seconds:
            return f"after {self.seconds:.4f} s"
        return f"{self.when} effect {self.name or self.number}"

    def reached(self, number: int, when: str, effect: str) -> bool:
        """Return whether this is the moment."""
        return when == self.when and (number == self.number or bool(self.name and effect.startswith(self.name)))


class Fuse:
    """Count effects while it is armed. Called by every door with the moment and the name of an effect."""

    def __init__(self, die: Callable[[], None], wrote: Callable[[str], None] = lambda _: None) -> None:
        """Take how the process ends, and who is told of each moment that is passed."""
        self._die = die
        self._wrote = wrote
        self._lock = threading.Lock()
        self._own = threading.local()
        self._point: Point | None = None
        self._count = 0

    def arm(self, point: Point | None) -> None:
        """Count from one, and burn at this point; at none with None."""
        with self._lock:
            self._point, self._count = point, 0

    def disarm(self) -> None:
        """Count no more."""
        with self._lock:
            self._point, self._count = None, -1

    def __call__(self, when: str, effect: str) -> None:
        """Pass a moment of an effect, or don't live to tell."""
        if any(word in f"{effect} " for word in NOISE):
            return
        with self._lock:
            if self._count < 0:
                return
            numbers: list[int] = self._own.__dict__.setdefault("numbers", [])
            if when == "before":
                self._count += 1
                numbers.append(self._count)
            number = (numbers.pop() if when == "after" else numbers[-1]) if numbers else 0
            self._wrote(f"{number} {when} {effect}")
            if self._point is not None and self._point.reached(number, when, effect):
                self._die()
