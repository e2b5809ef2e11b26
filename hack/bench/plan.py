"""How much is measured: one value, from the command line."""

from __future__ import annotations

from dataclasses import dataclass

SECTIONS = ("calls", "parallel", "others", "creates", "cost", "start", "growth")


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold the numbers of a run.

    rounds    rounds of each kind (ours, raw, null) that take turns
    lives     lives of one round with one caller
    callers   how many callers at once, after the rounds with one
    each      lives of each of them in a round, for 8 callers; 32 have a quarter of it
    creates   volumes that 8 callers make in a round, to see how many a second
    levels    numbers of volumes at which growth is looked at
    blocks    how often CreateVolume is measured at each, in turns with an empty server
    block     volumes of one such turn
    starts    how often the server is started
    sections  which parts are measured
    """

    rounds: int = 8
    lives: int = 40
    callers: tuple[int, ...] = (8, 32)
    each: int = 24
    creates: int = 1600
    levels: tuple[int, ...] = (0, 1000, 10_000)
    blocks: int = 8
    block: int = 50
    starts: int = 10
    sections: tuple[str, ...] = SECTIONS

    def has(self, section: str) -> bool:
        """Return whether a part is measured."""
        return section in self.sections


FULL = Plan()
QUICK = Plan(rounds=4, lives=25, each=12, creates=800, levels=(0, 1000), starts=5)
TINY = Plan(rounds=1, lives=1, callers=(2,), each=1, creates=4, levels=(0, 6), blocks=1, block=2, starts=1)
