"""Points in time by which work must be done, and the one way to wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from csi_driver.errors import Unknown

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE = 0.0005
LONGEST_PAUSE = 0.05


class Deadline:
    """Hold a point on the monotonic clock, so that a step of the wall clock changes nothing."""

    __slots__ = ("_at", "_from")

    def __init__(self, seconds: float) -> None:
        """Start a deadline that passes after so many seconds."""
        self._from = time.monotonic()
        self._at = self._from + seconds

    def left(self) -> float:
        """Return the seconds that are left, 0.0 when none are."""
        return max(0.0, self._at - time.monotonic())

    def spent(self) -> float:
        """Return the seconds since it was started."""
        return time.monotonic() - self._from

    def passed(self) -> bool:
        """Return whether no time is left."""
        return self.left() == 0.0

    def less(self, margin: float) -> Deadline:
        """Return a deadline that passes so many seconds earlier, for work that must report before this one does."""
        return Deadline(self.left() - margin)


def wait_for(what: str, predicate: Callable[[], bool], deadline: Deadline) -> None:
    """Look until the predicate holds, at first after half a millisecond, then less and less often.

    Raises Unknown with `what` when the deadline passes first. The predicate is looked at once even then.
    """
    pause = FIRST_PAUSE
    while not predicate():
        if deadline.passed():
            raise Unknown(f"gave up waiting until {what}")
        time.sleep(min(pause, max(deadline.left(), FIRST_PAUSE)))
        pause = min(pause * 2, LONGEST_PAUSE)
