"""The parts of a run: ours, raw and null take turns, so that a noisy moment hits all of them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from hack.bench.figures import LIFE, counted, median, quietest, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from hack.bench.crew import Crew, Measured
    from hack.bench.driver import Driver, Sluice
    from hack.bench.plan import Plan

OURS, RAW, NULL = "ours", "raw", "null"
MANY = 8


class Bench:
    """Measure one driver, with whatever there is to hold it against."""

    def __init__(
        self, driver: Driver, crews: dict[str, Crew], plan: Plan, tell: Callable[[str, int, int], None]
    ) -> None:
        """Take the driver, crews by kind (ours, and raw and null where there are), and who is told of progress."""
        self._driver = driver
        self._crews = crews
        self._plan = plan
        self._tell = tell

    def warm_up(self) -> None:
        """Let every process connect and every import happen."""
        self._tell("warming up", 0, 1)
        most = max((1, *self._plan.callers)) if self._plan.has("parallel") else MANY
        for kind, crew in self._crews.items():
            crew.do("lives", callers=1 if kind == RAW else most, count=1)

    def calls(self) -> dict[str, Any]:
        """Measure whole lives with one caller."""
        return self._turns("whole lives, 1 caller", "lives", (OURS, RAW, NULL), 1, self._plan.lives)

    def parallel(self) -> dict[str, Any]:
        """Measure whole lives with many callers at once."""
        found = {}
        for callers in self._plan.callers:
            each = max(1, self._plan.each * MANY // max(callers, MANY))
            what = f"whole lives, {callers} callers"
            found[str(callers)] = self._turns(what, "lives", (OURS, NULL), callers, each)
        return found

    def others(self) -> dict[str, Any]:
        """Measure the calls that a life doesn't have."""
        return self._turns("snapshots, restores, changes", "others", (OURS, NULL), 1, max(1, self._plan.lives // 4))

    def creates(self) -> dict[str, Any]:
        """Measure how many volumes many callers make a second, and delete."""
        rounds = []
        crew, count = self._crews[OURS], max(1, self._plan.creates // MANY)
        for number in range(2):
            self._tell(f"CreateVolume and DeleteVolume, {MANY} callers", number, 2)
            made = crew.do("create", callers=MANY, count=count)
            gone = crew.do("delete", callers=MANY, ids=made.made)
            rounds.append((made, gone))
        return {
            "created_per_second": [round(made.rate("CreateVolume"), 1) for made, _ in rounds],
            "deleted_per_second": [round(gone.rate("DeleteVolume"), 1) for _, gone in rounds],
            "failures": counted([measured.failures for pair in rounds for measured in pair]),
        }

    def cost(self) -> dict[str, Any]:
        """Measure what lives take of the processors, and which programs they start."""
        crew, lives = self._crews[OURS], self._plan.lives * 2
        self._tell("what a life costs", 0, 1)
        cpu, programs = self._driver.cpu_seconds(), self._driver.programs()
        measured = crew.do("lives", count=lives)
        lived = len(measured.samples.get(LIFE, [])) or 1
        started = {name: count - programs.get(name, 0) for name, count in self._driver.programs().items()}
        return {
            "cpu_seconds_per_100_lives": round((self._driver.cpu_seconds() - cpu) / lived * 100, 2),
            "programs_per_life": {name: round(count / lived, 2) for name, count in started.items() if count},
            "programs_known": self._driver.own,
            "failures": measured.failures,
        }

    def _turns(self, what: str, do: str, kinds: tuple[str, ...], callers: int, each: int) -> dict[str, Any]:
        """Let the kinds take turns, round after round."""
        rounds: dict[str, list[Measured]] = defaultdict(list)
        for number in range(self._plan.rounds):
            self._tell(what, number, self._plan.rounds)
            for kind in kinds:
                if kind in self._crews:
                    rounds[kind].append(self._crews[kind].do(do, callers=callers, count=each))
        found: dict[str, Any] = {}
        for kind, measured in rounds.items():
            samples = [one.samples for one in measured]
            found[kind] = {
                "ms": summary(samples),
                "quietest_round": quietest(samples),
                "lives_per_second": [round(one.rate(LIFE), 1) for one in measured],
                "failures": counted([one.failures for one in measured]),
            }
        return found


def starts(driver: Sluice, count: int) -> dict[str, Any]:
    """Start the server so many times, its pool made already; its memory before the first call."""
    seconds, resident = [], []
    for _ in range(count):
        driver.stop()
        seconds.append(driver.start())
        resident.append(driver.resident_mib())
    return {
        "best_seconds": round(min(seconds), 3),
        "median_seconds": round(median(seconds), 3),
        "all_seconds": [round(value, 3) for value in seconds],
        "resident_idle_mib": round(median(resident), 1),
    }
