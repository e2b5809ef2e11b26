"""More and more volumes: the same calls at each level, taking turns with a server that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hack.bench.driver import Sluice
from hack.bench.figures import counted, summary
from hack.bench.measure import MANY

if TYPE_CHECKING:
    from collections.abc import Callable

    from hack.bench.crew import Crew, Measured
    from hack.bench.driver import Driver
    from hack.bench.figures import Samples
    from hack.bench.plan import Plan

LISTS, PAGES, PAGE = 2, 10, 100
"""In each turn: lists of all, and pages of so many volumes from the middle, each with a GetCapacity."""


class Growth:
    """Let one driver's volumes become many."""

    def __init__(
        self, driver: Driver, crew: Crew, empty: Crew | None, plan: Plan, tell: Callable[[str, int, int], None]
    ) -> None:
        """Take the driver, its callers, and those of a server of the same kind that stays empty, if there is one."""
        self._driver = driver
        self._crew = crew
        self._empty = empty
        self._plan = plan
        self._tell = tell

    def measure(self) -> list[dict[str, Any]]:
        """Return what was measured at each level. The volumes are deleted at the end if the driver isn't ours."""
        kept, found = list[str](), []
        for crew in filter(None, (self._crew, self._empty)):
            crew.do("lives", callers=MANY, count=1)
        for level in self._plan.levels:
            self._tell(f"growth to {level:,} volumes", 0, 1)
            lacking = level - len(kept)
            made = self._crew.do("create", callers=MANY, count=-(-lacking // MANY)) if lacking > 0 else None
            kept += made.made if made else []
            found.append(self._level(level, made))
        if isinstance(self._driver, Sluice):
            self._driver.stop()
            found[-1]["start_seconds"] = round(self._driver.start(), 3)
            found[-1]["resident_started_mib"] = round(self._driver.resident_mib(), 1)
        else:
            self._crew.do("delete", callers=MANY, ids=kept)
        return found

    def _level(self, level: int, made: Measured | None) -> dict[str, Any]:
        resident = self._driver.resident_mib()
        asked: list[Measured] = []
        blocks: dict[str, list[Samples]] = {"create_ms": [], "empty_create_ms": []}
        crews = {"create_ms": self._crew, "empty_create_ms": self._empty}
        for _ in range(self._plan.blocks):
            for name, crew in crews.items():
                if crew is not None:
                    block = crew.do("create", count=self._plan.block)
                    crew.do("delete", callers=MANY, ids=block.made)
                    blocks[name].append(block.samples)
            asked.append(self._crew.do("ask", count=PAGES, lists=LISTS, page=PAGE))
        return {
            "volumes": level,
            **{name: summary(rounds).get("CreateVolume") for name, rounds in blocks.items()},
            **{f"{name} ms": of["quietest"] for name, of in summary([one.samples for one in asked]).items()},
            "resident_mib": round(resident, 1),
            "resident_after_lists_mib": round(self._driver.resident_mib(), 1),
            "filled_per_second": round(made.rate("CreateVolume"), 1) if made else None,
            "failures": counted([one.failures for one in asked]),
        }
