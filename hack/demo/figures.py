"""fio's logs of single I/Os -> rates and percentiles, by phase and by second. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

NS_PER_MS = 1e6
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Io:
    """Hold one I/O: when it ended, in seconds from the start; how long it took, in ms; its bytes."""

    at: float
    ms: float
    size: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Hold what inference got: I/Os a second, and latencies in ms."""

    iops: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Point:
    """Hold one second of a phase."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold a phase's figures. `training` is in MiB/s, None where it didn't run.

    `change` is when a limit was changed under load, and `windows` has limit and MiB/s before and after it.
    """

    key: str
    title: str
    inference: Latency
    training: float | None
    p99s: tuple[Point, ...]
    rates: tuple[Point, ...]
    change: float | None
    windows: tuple[tuple[str, float], ...]
    raw: Mapping[str, Any]


def read_log(path: Path) -> list[Io]:
    """Return the I/Os of one of fio's latency logs: ms, ns, direction, bytes, and more that isn't used."""
    found = []
    for line in path.read_text().splitlines():
        at, ns, _, size, *_ = line.split(", ")
        found.append(Io(int(at) / 1000, int(ns) / NS_PER_MS, int(size)))
    return found


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that `percent` of all do not exceed; nan of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan


def latency(ios: Sequence[Io], begin: float, end: float) -> Latency:
    """Return what I/Os that ended in a window got."""
    inside = [io.ms for io in ios if begin <= io.at < end]
    p50, p95, p99 = (percentile(inside, percent) for percent in (50, 95, 99))
    return Latency(len(inside) / (end - begin), p50, p95, p99)


def rate(ios: Sequence[Io], begin: float, end: float) -> float:
    """Return MiB/s in a window."""
    return sum(io.size for io in ios if begin <= io.at < end) / MIB / (end - begin)


def by_second(ios: Sequence[Io], seconds: int) -> list[list[Io]]:
    """Return the I/Os by the second in which they ended."""
    found: list[list[Io]] = [[] for _ in range(seconds)]
    for io in ios:
        if io.at < seconds:
            found[int(io.at)].append(io)
    return found


def measured(phase: Mapping[str, Any], folder: Path, seconds: int, settle: int) -> Measured:
    """Return the figures of one phase from its logs in a folder."""
    key = phase["key"]
    reads = read_log(folder / f"inference-{key}_lat.1.log")
    writes = read_log(folder / f"training-{key}_lat.1.log") if phase["training"] else []
    rates = tuple(
        Point(second + 0.5, sum(io.size for io in ios) / MIB) for second, ios in enumerate(by_second(writes, seconds))
    )
    p99s = tuple(
        Point(second + 0.5, percentile((io.ms for io in ios), 99))
        for second, ios in enumerate(by_second(reads, seconds))
        if ios
    )
    change = _change(phase, folder)
    return Measured(
        key=key,
        title=phase["title"],
        inference=latency(reads, settle, seconds),
        training=rate(writes, settle, seconds) if writes else None,
        p99s=p99s,
        rates=rates if writes else (),
        change=change,
        windows=_windows(phase, change, writes, (settle, seconds)) if change else (),
        raw=phase,
    )


def _change(phase: Mapping[str, Any], folder: Path) -> float | None:
    """Return when training's limit was changed, in seconds from the start of its fio, which is some time after ours."""
    for change in phase["changed"]:
        report = json.loads((folder / f"training-{phase['key']}.json").read_text())
        return float(change["asked_at"] - report["jobs"][0]["job_start"] / 1000)
    return None


def _windows(
    phase: Mapping[str, Any], change: float, writes: Sequence[Io], whole: tuple[int, int]
) -> tuple[tuple[str, float], ...]:
    """Return limit and MiB/s before the change, and from a second after it was answered."""
    begin, end = whole
    after = change + phase["changed"][0]["took"] + 1
    limits = (_mib(phase[side]["training"]["wanted"]["wbps"]) for side in ("limits", "limits_after"))
    return tuple(zip(limits, (rate(writes, begin, change), rate(writes, after, end)), strict=True))


def _mib(limit: int | None) -> str:
    return f"{limit / MIB:g} MiB/s" if limit else "none"
