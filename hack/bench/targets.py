"""What was asked for, held against what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hack.bench.figures import LIFE

if TYPE_CHECKING:
    from collections.abc import Iterator

EMPTY_CALLS = 7


@dataclass(frozen=True, slots=True)
class Target:
    """Hold one figure: what it is, how much is allowed, how much was measured, and in what."""

    name: str
    wanted: float
    measured: float
    unit: str = "ms"
    at_least: bool = False
    why: str = ""

    @property
    def met(self) -> bool:
        """Return whether it is as wanted."""
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted


def targets(result: dict[str, Any]) -> list[Target]:
    """Return the targets whose parts were measured."""
    found = []
    calls = result.get("calls", {})
    if {"ours", "raw", "null"} <= calls.keys():
        found += list(_calls(calls))
    if "ours" in calls:
        found += list(_tails(calls["ours"]["ms"]))
    if ours := result.get("parallel", {}).get("8", {}).get("ours"):
        found.append(Target("8 callers: whole lives", 50, max(ours["lives_per_second"]), "/s", at_least=True))
        found.append(Target("8 callers: failures", 0, sum(ours["failures"].values()), ""))
    if creates := result.get("creates"):
        made = max(creates["created_per_second"])
        found.append(Target("CreateVolume, 8 callers", 700, made, "/s", at_least=True))
    found += list(_costs(result))
    found += list(_growth(result.get("growth", [])))
    return found


def _calls(calls: dict[str, Any]) -> Iterator[Target]:
    """Hold the quietest round's medians against those of the raw effects and of the empty server."""
    ours, raw, null = (calls[kind]["ms"] for kind in ("ours", "raw", "null"))

    def of(kind: dict[str, Any], name: str) -> float:
        return float(kind[name]["quietest"])

    create = 3 * (of(raw, "CreateVolume") + of(null, "CreateVolume"))
    yield Target("CreateVolume", max(2.0, create), of(ours, "CreateVolume"), why="2.0, or 3 x (raw + null)")
    stage = 1.5 * of(raw, "NodeStageVolume") + 1
    yield Target("NodeStageVolume", stage, of(ours, "NodeStageVolume"), why="1.5 x raw + 1")
    for name in ("NodePublishVolume", "NodeUnpublishVolume"):
        yield Target(name, of(null, name) + 1, of(ours, name), why="null + 1")
    for name in ("NodeUnstageVolume", "DeleteVolume"):
        yield Target(name, 2.5, of(ours, name))
    # One by one: an empty life's seven calls, not the median of their sum alone.
    life = 1.6 * (of(raw, LIFE) + of(null, LIFE))
    yield Target(LIFE, life, of(ours, LIFE), why=f"1.6 x (raw + {EMPTY_CALLS} null)")


def _tails(ours: dict[str, Any]) -> Iterator[Target]:
    tails = {name: of["tail"] for name, of in ours.items() if of["tail"] is not None}
    life = tails.pop(LIFE)
    yield Target(LIFE + ": p99 / p50", 2, life, "x", why="the quieter half of the rounds")
    worst = max(tails, key=tails.__getitem__)
    yield Target("the worst call's p99 / p50", 2, tails[worst], "x", why=worst)


def _costs(result: dict[str, Any]) -> Iterator[Target]:
    if cost := result.get("cost"):
        yield Target("processor time of 100 lives", 2.0, cost["cpu_seconds_per_100_lives"], "s")
        if cost["programs_known"]:
            yield Target("programs in a life", 3, sum(cost["programs_per_life"].values()), "")
    if start := result.get("start"):
        yield Target("exec to first Probe, best", 0.35, start["best_seconds"], "s")
        yield Target("resident, idle", 60, start["resident_idle_mib"], "MiB")


def _growth(levels: list[dict[str, Any]]) -> Iterator[Target]:
    if not levels:
        return
    first = levels[0]
    for level in levels[1:]:
        volumes, factor = level["volumes"], 1.1 if level["volumes"] <= 1000 else 1.2  # noqa: PLR2004
        empty = level["empty_create_ms"] or first["create_ms"]
        create = factor * empty["quietest"]
        why = (
            f"{factor} x an empty server's, in turns" if level["empty_create_ms"] else f"{factor} x at the first level"
        )
        yield Target(f"CreateVolume at {volumes:,} volumes", create, level["create_ms"]["quietest"], why=why)
    last = levels[-1]
    volumes = f"{last['volumes']:,} volumes"
    yield Target(f"ListVolumes of {volumes}", 100, last["ListVolumes, all ms"])
    yield Target(f"a page of 100 of {volumes}", 2, last["ListVolumes, a page of 100 ms"])
    # "Flat": what a call varies by from one level to the other on an idle machine.
    flat = 1.5 * first["GetCapacity ms"]
    yield Target(f"GetCapacity at {volumes}", flat, last["GetCapacity ms"], why="1.5 x at 0")
    yield Target(f"resident with {volumes}", 90, last["resident_mib"], "MiB")
