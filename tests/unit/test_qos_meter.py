"""Rates, percentiles and attainment, from counters."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import fields
from itertools import pairwise
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qos.iofiles import IoStat
from qos.limits import UNLIMITED, Limits
from qos.meter import BOUNDS_NS, Counted, Nearest, Rates, Window, at_most, attainment, nearest, quantile, rates

SIZE = len(BOUNDS_NS) + 1
latencies = st.lists(st.integers(1, BOUNDS_NS[-1] - 1), min_size=1, max_size=300)
shares = st.floats(0.001, 1.0)
buckets = st.lists(st.integers(0, 10**9), min_size=SIZE, max_size=SIZE).map(tuple)
counted = st.builds(Counted, *[st.integers(0, 10**15)] * 7, buckets)
numbers = st.integers(0, 10**12)
stats = st.builds(IoStat, *[numbers] * 6)


def histogram(seen: list[int]) -> tuple[int, ...]:
    """Sort latencies into buckets as the kernel does."""
    found = [0] * SIZE
    for latency in seen:
        found[bisect_right(BOUNDS_NS, latency)] += 1
    return tuple(found)


def test_the_bounds_rise_by_a_quarter_from_25_us_to_half_a_second_and_double_to_nine() -> None:
    """So is a percentile known to 12 % where it matters."""
    steps = [high / low for low, high in pairwise(BOUNDS_NS)]

    assert BOUNDS_NS[0] == 25_000
    assert steps[:45] == pytest.approx([1.25] * 45, rel=1e-4)
    assert steps[45:] == [2.0] * 4


@given(latencies, shares)
def test_a_percentile_is_in_the_bucket_of_the_latency_that_it_stands_for(seen: list[int], share: float) -> None:
    """The one at its rank, by the nearest-rank definition."""
    exact = sorted(seen)[math.ceil(share * len(seen)) - 1]
    place = bisect_right(BOUNDS_NS, exact)
    low = BOUNDS_NS[place - 1] if place else 0

    found = quantile(histogram(seen), share)
    assert found is not None
    assert low / 1e9 <= found <= BOUNDS_NS[place] / 1e9


@given(latencies, shares, shares)
def test_percentiles_rise(seen: list[int], one: float, other: float) -> None:
    """A larger share of the I/Os took at least as long."""
    low, high = sorted((one, other))

    assert (quantile(histogram(seen), low) or 0) <= (quantile(histogram(seen), high) or 0)


def test_latencies_are_taken_as_evenly_spread_in_a_bucket() -> None:
    """Of four in one bucket the second is at its middle."""
    seen = histogram([26_000, 27_000, 28_000, 29_000])

    assert quantile(seen, 0.5) == pytest.approx((25_000 + 31_250) / 2 / 1e9)


def test_what_took_longer_than_all_bounds_is_said_to_take_as_long_as_the_last() -> None:
    """The kernel knows no more."""
    assert quantile(histogram([60 * 10**9]), 0.99) == BOUNDS_NS[-1] / 1e9


def test_without_an_io_there_is_no_percentile() -> None:
    """Nothing took no time at all."""
    assert quantile((0,) * SIZE, 0.5) is None


@pytest.mark.parametrize("share", [0.0, -0.5, 1.1])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    """p0 and p110 are slips."""
    with pytest.raises(ValueError, match="is not a share"):
        quantile(histogram([1]), share)


@given(latencies, st.integers(1, 9))
def test_what_prometheus_gets_counts_up_to_what_there_is(seen: list[int], every: int) -> None:
    """Each bound with the number of I/Os below it; the fine ones thinned out, the coarse ones all there."""
    shown = at_most(histogram(seen), every)

    assert shown == tuple((bound, sum(latency < bound * 1e9 for latency in seen)) for bound, _ in shown)
    assert len(shown) == 45 // every + 5


@given(counted, counted)
def test_the_difference_of_two_looks_is_what_came_between(older: Counted, more: Counted) -> None:
    """Whatever was counted before."""
    names = [field.name for field in fields(Counted) if field.name != "buckets"]
    sums = {name: getattr(older, name) + getattr(more, name) for name in names}
    newer = Counted(**sums, buckets=tuple(map(add, older.buckets, more.buckets)))

    assert newer.since(older) == more


def test_counters_that_began_anew_are_taken_from_zero() -> None:
    """The device was staged anew between two looks."""
    newer = Counted(reads=3, rbytes=4096, buckets=histogram([1, 1, 1]))

    assert newer.since(Counted(reads=5, writes=7)) == newer
    assert rates(IoStat(rios=5, rbytes=10), IoStat(rios=4, rbytes=8), 2.0) == Rates(riops=2.0, rbps=4.0)


@given(stats, stats, st.floats(0.1, 60))
def test_rates_are_differences_by_the_second(older: IoStat, more: IoStat, seconds: float) -> None:
    """In the words of io.max."""
    ios, sizes = (
        (older.rios + more.rios, older.wios + more.wios),
        (older.rbytes + more.rbytes, older.wbytes + more.wbytes),
    )

    expected = Rates(*(value / seconds for value in (more.rios, more.wios, more.rbytes, more.wbytes)))
    assert rates(older, IoStat(*sizes, *ios), seconds) == expected


def test_no_time_gives_no_rate() -> None:
    """A clock that stood still is told, not divided by."""
    with pytest.raises(ValueError, match="0 seconds"):
        rates(IoStat(), IoStat(), 0)


def test_the_nearest_limit_counts() -> None:
    """At 90 % of its bytes and half of its I/Os a volume is at 90 %; from 98 % on it is held back."""
    assert nearest(Rates(riops=50, rbps=900), Limits(riops=100, rbps=1000)) == Nearest(0.9, "rbps")
    assert nearest(Rates(riops=50), UNLIMITED) is None
    assert not Nearest(0.97, "rbps").throttled
    assert Nearest(0.98, "rbps").throttled


@given(
    st.lists(st.builds(Window, st.floats(0, 1000), st.floats(0, 1)), max_size=50), st.floats(1, 1000), st.floats(0, 500)
)
def test_a_lower_floor_is_never_met_less_often(windows: list[Window], floor: float, more: float) -> None:
    """Of the same seconds, where a higher floor was met a lower one was too."""
    high, low = attainment(windows, floor + more), attainment(windows, floor)

    assert high is None or (low is not None and high <= low)


def test_a_floor_is_judged_in_seconds_with_demand_only() -> None:
    """Met, missed while busy all the time, and a second in which nobody asked for as much."""
    assert attainment([Window(450, 0.5), Window(300, 1.0), Window(10, 0.1)], 400) == 0.5
    assert attainment([Window(10, 0.1)], 400) is None
    assert attainment([Window(0, 1.0)], 400) == 0.0


def test_a_floor_of_nothing_is_refused() -> None:
    """It would always be met."""
    with pytest.raises(ValueError, match="is no floor"):
        attainment([], 0)
