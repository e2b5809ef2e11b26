"""Arithmetic on samples: percentiles, rounds, and the quietest of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

LIFE = "whole life"

Samples = Mapping[str, Sequence[float]]
"""Milliseconds by the name of what was done."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest rank: a value that was measured. NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the 50th percentile."""
    return percentile(values, 50)


def quietest(rounds: Sequence[Samples]) -> int:
    """Return the number of the round in which a whole life took least, by its median; -1 of none.

    Rounds that lack whole lives are compared by the sum of their medians.
    """
    weights = [_weight(samples) for samples in rounds]
    return min(range(len(weights)), key=weights.__getitem__) if weights else -1


def _weight(samples: Samples) -> float:
    if samples.get(LIFE):
        return median(samples[LIFE])
    return sum(median(values) for values in samples.values() if values) if samples else math.inf


def summary(rounds: Sequence[Samples]) -> dict[str, dict[str, Any]]:
    """Return for each name p50, p95 and p99 over all rounds, each round's median, and that of the quietest round.

    `tail` is p99 / p50 over the quieter half of the rounds, all of them together.
    """
    best = quietest(rounds)
    quiet = sorted(rounds, key=_weight)[: -(-len(rounds) // 2)]
    names = list(dict.fromkeys(name for samples in rounds for name in samples))
    found = {}
    for name in names:
        together = [value for samples in rounds for value in samples.get(name, ())]
        medians = [_rounded(median(samples.get(name, ()))) for samples in rounds]
        found[name] = {
            "n": len(together),
            **{f"p{percent}": _rounded(percentile(together, percent)) for percent in (50, 95, 99)},
            "quietest": medians[best],
            "tail": _tail([value for samples in quiet for value in samples.get(name, ())]),
            "rounds": medians,
        }
    return found


def _tail(values: Sequence[float]) -> float | None:
    return _rounded(percentile(values, 99) / median(values))


def added(parts: Sequence[Samples]) -> dict[str, list[float]]:
    """Return the samples of several callers as those of one round."""
    whole: dict[str, list[float]] = {}
    for samples in parts:
        for name, values in samples.items():
            whole.setdefault(name, []).extend(values)
    return whole


def counted(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return how often each thing happened in all parts."""
    whole: Counter[str] = Counter()
    for part in parts:
        whole.update(part)
    return dict(whole)


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
