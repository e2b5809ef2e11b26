"""Moments of a logged disk: what is on it then, and what was acknowledged before."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.kernel.logged import FLUSH, SIZES, Copy, Entry, LoggedDisk, pieces
from tests.kernel.recorded import SEED, WORKERS

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Acknowledged:
    """Hold what was acknowledged before a moment."""

    base: int = 0
    raw: int = 0
    diary: int = 0
    done: list[int] = field(default_factory=lambda: [0] * WORKERS)

    def take(self, marks: Sequence[str]) -> None:
        """Take in marks."""
        for mark in marks:
            match mark.split(":"):
                case ["done", worker, number]:
                    self.done[int(worker)] = int(number)
                case [name, number]:
                    setattr(self, name, int(number))


@dataclass(frozen=True, slots=True)
class Moment:
    """Name a moment: right after an entry of the log.

    Torn: so much later that some of what followed is on the disk too, up to the next flush, none of which had to be.
    """

    number: int
    torn: bool

    def __str__(self) -> str:
        return f"entry {self.number}{', torn' if self.torn else ''} (seed {SEED})"


def moments(entries: Sequence[Entry], most: int) -> list[Moment]:
    """Choose so many moments at random, at most; in order."""
    choice = random.Random(SEED)  # noqa: S311 - to be repeated, not secret
    end = next(number for number, entry in enumerate(entries) if entry.mark == "ended")
    all_of_them = [Moment(number, torn) for number in range(end) if entries[number].durable for torn in (False, True)]
    return sorted(choice.sample(all_of_them, min(most, len(all_of_them))), key=lambda moment: moment.number)


class Replay:
    """Bring the disk from moment to moment."""

    def __init__(self, disk: LoggedDisk, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._disk = disk
        self._now = Copy(disk.log, {name: disk.original(name) for name in SIZES})
        self._reached = 0

    def at(self, moment: Moment) -> tuple[Copy, Acknowledged]:
        """Return a copy of the disk as it is at a moment, and what was acknowledged before. Moments come in order."""
        for entry in self._entries[self._reached : moment.number + 1]:
            self._now.apply(entry)
        self._reached = moment.number + 1
        copy, end = self._now.copied(self._disk.folder), self._reached
        if moment.torn:
            end = next(number for number in itertools.count(end) if self._entries[number].flags & FLUSH)
            self._tear(copy, moment, self._entries[self._reached : end])
        acknowledged = Acknowledged()
        acknowledged.take([entry.mark for entry in self._entries[:end] if entry.mark])
        return copy, acknowledged

    @staticmethod
    def _tear(copy: Copy, moment: Moment, entries: Sequence[Entry]) -> None:
        chance = random.Random(f"{SEED} {moment.number}")  # noqa: S311 - to be repeated, not secret
        for entry in entries:
            for offset in pieces(entry):
                if entry.durable or chance.random() < 1 / 2:
                    copy.apply(entry, offset, 4096)
