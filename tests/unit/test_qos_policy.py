"""From tier, size and overrides to limits."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qos import tiers
from qos.iocost import Floor
from qos.limits import MOST_IOPS, UNLIMITED, Limits
from qos.policy import BURST, OVERRIDES, BadLimit, check_overrides, floor, least, limits
from qos.rates import Rate
from qos.tiers import Tier

if TYPE_CHECKING:
    from fractions import Fraction

MIB, GIB = 2**20, 2**30
# Not st.text: it first draws up a table of all of Unicode, which takes longer than Hypothesis allows on a slow machine.
texts = st.lists(st.sampled_from(string.printable), max_size=20) | st.lists(st.sampled_from("0123456789.,/Gikmax"))
sizes = st.integers(0, 2**63 - 1)
values = st.integers(2, MOST_IOPS)


@given(sizes, st.fractions(min_value=0).filter(bool), values, values)
def test_a_rate_per_gib_keeps_its_bounds(size: int, per_gib: Fraction, one: int, other: int) -> None:
    """Between its bounds a rate is the exact product, rounded down; beyond, the bound."""
    least, most = sorted((one, other))

    value = Rate(per_gib=per_gib, at_least=least, at_most=most).at(size)

    assert least <= value <= most
    assert value == min(max(int(per_gib * size / GIB), least), most)


@given(sizes, sizes, st.fractions(min_value=0).filter(bool))
def test_a_larger_volume_never_gets_less(one: int, other: int, per_gib: Fraction) -> None:
    """To grow a volume must not slow it down."""
    rate = Rate(per_gib=per_gib)
    small, large = sorted((one, other))

    assert 2 <= rate.at(small) <= rate.at(large)


@given(sizes, st.sampled_from(sorted(tiers.load())))
def test_a_built_in_tier_has_limits_for_every_size(size: int, name: str) -> None:
    """No size gives what the kernel would refuse."""
    tier = tiers.load()[name]

    held = limits(tier, size, {})

    assert (held == UNLIMITED) == (name == tiers.DEFAULT)


@given(st.fractions(min_value=0).filter(bool), sizes)
def test_no_rate_comes_to_more_than_the_kernel_can_hold(per_gib: Fraction, size: int) -> None:
    """A rate per GiB of a vast volume is cut; no disk is that fast."""
    tier = Tier(name="t", read_iops=Rate(per_gib=per_gib), read_bps=Rate(per_gib=per_gib))

    held = limits(tier, size, {})

    assert held.riops is not None
    assert held.riops <= MOST_IOPS


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("5k", GIB, 5000),
        ("3/Gi", 100 * GIB, 300),
        ("1.5/Gi", 3 * GIB, 4),
        ("3/Gi,100..16k", GIB, 100),
        ("3/Gi,100..16k", 1000 * GIB, 3000),
        ("3/Gi,100..16k", 10000 * GIB, 16000),
        ("3/Gi,100..", 10000 * GIB, 30000),
        ("3/Gi,..16k", 10000 * GIB, 16000),
        ("3/Gi", 0, 2),
        ("max", GIB, None),
        ("none", GIB, None),
    ],
)
def test_an_override_follows_the_grammar(text: str, size: int, expected: int | None) -> None:
    """Each form in the grammar has its value, also over a tier that says otherwise."""
    tier = Tier(name="t", read_iops=Rate(absolute=77), write_iops=Rate(absolute=78))

    held = limits(tier, size, {"readIOPS": text})

    assert held == Limits(riops=expected, wiops=78)


def test_each_key_sets_its_own_limit() -> None:
    """Reads are not writes, and bytes are not I/Os."""
    given_ = {"readIOPS": "11", "writeIOPS": "12", "readBPS": "13Ki", "writeBPS": "0.5Mi/Gi"}

    held = limits(Tier(name="t"), 2 * GIB, given_)

    assert held == Limits(rbps=13 * 1024, wbps=2**20, riops=11, wiops=12)


@pytest.mark.parametrize("key", sorted(OVERRIDES))
@pytest.mark.parametrize(
    "value",
    [
        *("", "0", "1", "-5", "five", "3/Mi", "3/Gi,", "3/Gi,5", "3/Gi,..", "3/Gi,9..5", "3/Gi,1..5", "0/Gi", "/Gi"),
        *("3/", "5,10..20", "3/Gi,10...20", "3 /Gi", "MAX", "1e19", "3/Gi,..1e19", "3/Gi,10..20,30"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_key_and_value(key: str, value: str) -> None:
    """Who reads the message knows which parameter to mend."""
    with pytest.raises(BadLimit) as caught:
        check_overrides({key: value})

    assert key in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("key", sorted(BURST))
def test_a_burst_is_refused_until_it_is_one(key: str) -> None:
    """A burst that is silently none would be a lie."""
    with pytest.raises(BadLimit, match=f"{key}: not supported yet"):
        check_overrides({key: "100"})


@pytest.mark.parametrize("key", ["readiops", "tier", ""])
def test_an_unknown_key_is_refused_by_name(key: str) -> None:
    """A slip of the pen must not leave a volume without its limit."""
    with pytest.raises(BadLimit, match=f"^{key}: unknown limit"):
        check_overrides({key: "100"})


@pytest.mark.parametrize("value", ["4294967295", "5G"])
def test_iops_beyond_the_kernel_are_refused(value: str) -> None:
    """Written, they would read back as no limit."""
    with pytest.raises(BadLimit, match="more than the kernel can limit"):
        check_overrides({"readIOPS": value})


@given(
    st.dictionaries(
        st.sampled_from(sorted(OVERRIDES)),
        texts.map("".join),
    ),
    sizes,
)
def test_what_the_check_takes_has_limits(overrides: dict[str, str], size: int) -> None:
    """What was accepted when the volume was made can't fail when it is staged."""
    try:
        check_overrides(overrides)
    except BadLimit:
        return

    assert isinstance(limits(Tier(name="t"), size, overrides), Limits)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"absolute": 5, "per_gib": 5},
        {"absolute": 1},
        {"absolute": 5, "at_most": 10},
        {"per_gib": 0},
        {"per_gib": 1, "at_least": 10, "at_most": 9},
        {"per_gib": 1, "at_most": 1},
    ],
)
def test_a_rule_that_could_not_be_obeyed_is_no_rate(bad: dict[str, int]) -> None:
    """A rate is either fixed or per GiB, and has bounds that don't cross."""
    with pytest.raises(ValueError, match=r"."):
        Rate(**bad)


def test_a_volume_of_less_than_nothing_has_no_rate() -> None:
    """A size that can't be is a bug upstream."""
    with pytest.raises(ValueError, match="-1"):
        Rate(per_gib=1).at(-1)


@pytest.mark.parametrize(
    ("write_bps", "overrides", "wbps"),
    [
        (Rate(per_gib=MIB // 2, at_least=64 * MIB, at_most=512 * MIB), {}, 64 * MIB),
        (Rate(per_gib=MIB), {}, 100 * MIB // 10),
        (Rate(absolute=50 * MIB), {}, 5 * MIB),
        (Rate(absolute=15), {}, 2),
        (None, {}, 64 * MIB),
        (Rate(per_gib=MIB), {"writeBPS": "1Mi/Gi,3Mi.."}, 3 * MIB),
        (Rate(per_gib=MIB), {"writeBPS": "20Mi"}, 2 * MIB),
        (Rate(per_gib=MIB), {"writeBPS": "max"}, 64 * MIB),
    ],
    ids=["bound", "per GiB", "absolute", "kernel's least", "none", "bound of a class", "absolute of a class", "max"],
)
def test_what_yields_is_written_at_its_least(write_bps: Rate | None, overrides: dict[str, str], wbps: int) -> None:
    """The lower bound of the rule in force, a tenth where it has none, 64 MiB/s where there is no ceiling."""
    tier = Tier(name="t", write_bps=write_bps, read_iops=Rate(absolute=700), yields=True)

    assert least(tier, 100 * GIB, overrides) == Limits(wbps=wbps, riops=700, wiops=4096)


@given(sizes, st.sampled_from([tier for tier in tiers.load().values() if tier.yields]))
def test_to_yield_is_never_to_gain(size: int, tier: Tier) -> None:
    """Reads keep their ceilings, writes get lower ones or the same."""
    full, held = limits(tier, size, {}), least(tier, size, {})

    assert held is not None
    assert (held.rbps, held.riops) == (full.rbps, full.riops)
    assert 2 <= (held.wbps or 0) <= (full.wbps or MOST_IOPS)
    assert 2 <= (held.wiops or 0) <= (full.wiops or MOST_IOPS)


def test_training_yields_to_inference() -> None:
    """A volume that doesn't yield has no second set of limits."""
    built_in = tiers.load()

    assert least(built_in["training"], GIB, {}) == replace(limits(built_in["training"], GIB, {}), wbps=64 * MIB)
    assert least(built_in["inference"], GIB, {}) is None


@pytest.mark.parametrize(
    ("overrides", "size", "expected"),
    [
        ({}, GIB, Floor()),
        ({"minIOPS": "450"}, GIB, Floor(iops=450)),
        ({"minIOPS": "5/Gi,100..1k", "minBPS": "8Mi"}, 40 * GIB, Floor(200, 8 << 20)),
        ({"minIOPS": "max"}, GIB, Floor()),
        ({"minIOPS": "450", "readIOPS": "900", "writeBPS": "3686400"}, GIB, Floor(iops=450)),
    ],
)
def test_a_floor_is_what_an_override_says(overrides: dict[str, str], size: int, expected: Floor) -> None:
    """By the grammar of ceilings; and a ceiling of twice the floor, or its 4 KiB, is enough."""
    assert floor(Tier(name="bare"), size, overrides) == expected


def test_an_override_takes_a_tiers_floor_away() -> None:
    """As it does with a ceiling."""
    tier = Tier(name="mine", min_iops=Rate(per_gib=10))

    assert floor(tier, 5 * GIB, {}) == Floor(iops=50)
    assert floor(tier, 5 * GIB, {"minIOPS": "none"}) == Floor()


@pytest.mark.parametrize(
    ("overrides", "key", "wanted"),
    [
        ({"minIOPS": "450", "readIOPS": "899"}, "readIOPS", 900),
        ({"minIOPS": "450", "writeIOPS": "899"}, "writeIOPS", 900),
        ({"minIOPS": "450", "readBPS": "3686399"}, "readBPS", 3_686_400),
        ({"minBPS": "8Mi", "writeBPS": "15Mi"}, "writeBPS", 16 << 20),
    ],
)
def test_a_ceiling_below_twice_the_floor_is_refused_with_the_reason(
    overrides: dict[str, str], key: str, wanted: int
) -> None:
    """At its ceiling a volume waits up to 100 ms, which no floor cures."""
    with pytest.raises(BadLimit, match=rf"^{key}: a ceiling of \d+ is below {wanted}, twice .* waits up to 100 ms"):
        floor(Tier(name="bare"), GIB, overrides)
