"""The chord rule and what floors take, beside figures that were measured on two disks."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qos.iocost import PROMISABLE, WHOLE, Cost, Floor, Measured, Model, Qos, Speed, parse_model, parse_qos
from qos.limits import DevNo

KIB, MIB = 1 << 10, 1 << 20
DISK = DevNo(253, 16)

cloud = Speed.rated(1000, 50 * MIB)
CLOUD = Measured(cloud, cloud)
"""1,000 IOPS and 50 MiB/s, two budgets."""


def units(size: int) -> float:
    """Return the I/Os a second of a disk with one budget: 1,500 units a second, one for each 32 KiB begun."""
    return 1500 / max(1, -(-size // (32 * KIB)))


one_budget = Speed(1500, 1500, tuple((size * KIB, units(size * KIB)) for size in (64, 256, 512)))
ONE_BUDGET = Measured(one_budget, one_budget)


@pytest.mark.parametrize(
    ("measured", "largest", "iops", "bps"),
    [
        (CLOUD, 256 * KIB, 1000, 64_512_000),
        (CLOUD, 64 * KIB, 1000, 245_760_000),
        (CLOUD, 512 * KIB, 1000, 57_799_111),
        (ONE_BUDGET, 256 * KIB, 1500, 55_296_000),
    ],
)
def test_the_chord_gives_the_figures_that_were_measured_with(
    measured: Measured, largest: int, iops: int, bps: int
) -> None:
    """The bytes a second are the slope's reciprocal, and not the disk's own."""
    model = Model.of(measured, largest)

    assert (model.rrandiops, model.rseqiops, model.wrandiops, model.wseqiops) == (iops,) * 4
    assert (model.rbps, model.wbps) == (bps, bps)


@given(
    st.integers(100, 100_000),
    st.integers(MIB, 4096 * MIB),
    st.sampled_from([64, 128, 192, 256, 384, 512]),
    st.integers(1, 128),
)
def test_no_request_up_to_the_largest_is_charged_too_little(iops: int, bps: int, largest: int, pages: int) -> None:
    """A disk works as long as the slower of its two budgets; the model charges at least that, but for whole numbers."""
    assume(4096 * iops <= bps)  # else 4 KiB cost more than its IOPS say, which no disk is sold as
    speed = Speed.rated(iops, bps)
    size = min(pages * 4096, largest * KIB)
    charged = 1 / iops + (size - 4096) / Model.of(Measured(speed, speed), largest * KIB).rbps

    assert charged >= max(1 / iops, size / bps) * (1 - 1e-6)


def test_a_size_that_was_not_measured_takes_the_steeper_chord_of_the_next() -> None:
    """A pool's chunks need not be a power of two."""
    assert cloud.bytes_per_second(192 * KIB) == cloud.bytes_per_second(256 * KIB)
    with pytest.raises(ValueError, match="requests of 1048576 bytes were not measured, only up to 524288"):
        cloud.bytes_per_second(MIB)


def test_a_disk_to_which_bytes_cost_nothing_has_a_model() -> None:
    """Its slope is 0 or less, as noise has it."""
    assert Speed(1000, 1000, ((64 * KIB, 1001),)).bytes_per_second(64 * KIB) == 1 << 50


@pytest.mark.parametrize(
    ("random", "larger"),
    [(0, ((65536, 500),)), (float("nan"), ((65536, 500),)), (1000, ()), (1000, ((4096, 500),)), (1000, ((65536, 0),))],
)
def test_what_is_no_speed_is_refused(random: float, larger: tuple[tuple[int, float], ...]) -> None:
    """A model that divides by nothing must not come to be."""
    with pytest.raises(ValueError, match=r"is not a speed|are not larger"):
        Speed(random, 1000, larger)


COST = Cost.of(CLOUD, 256 * KIB)


@pytest.mark.parametrize(
    ("floor", "share"),
    [
        (Floor(iops=450), WHOLE // 2),
        (Floor(iops=720), PROMISABLE),
        (Floor(bps=45 * MIB), WHOLE),
        (Floor(iops=450, bps=9 * MIB), 700_000),
        (Floor(iops=1), 1112),
        (Floor(), 0),
    ],
)
def test_a_floor_takes_its_part_of_the_disk_at_our_rate(floor: Floor, share: int) -> None:
    """Of 1,000 IOPS, or of 50 MiB/s, 90 % are let through; a share is rounded up, never down."""
    assert COST.share(floor) == share
    assert COST.iops_of(COST.share(floor)) >= floor.iops


def test_a_floor_is_counted_in_the_worse_direction() -> None:
    """Nobody says whether it will read or write."""
    slow = Speed.rated(500, 50 * MIB)
    costs = [Cost.of(Measured(*both), 256 * KIB) for both in ((cloud, slow), (slow, cloud))]

    assert [cost.share(Floor(iops=90)) for cost in costs] == [200_000, 200_000]
    assert [cost.iops for cost in costs] == [500, 500]


@given(st.integers(0, 10**6), st.integers(0, 10**10), st.integers(0, 10**6))
def test_a_larger_floor_never_takes_less(iops: int, bps: int, more: int) -> None:
    """In IOPS and in bytes."""
    share = COST.share(Floor(iops, bps))

    assert COST.share(Floor(iops + more, bps)) >= share
    assert COST.share(Floor(iops, bps + more)) >= share


@pytest.mark.parametrize(
    ("smallest", "latency_us"), [(0, 25_000), (200, 25_000), (450, 11_111), (5000, 5_000), (2, 500_000)]
)
def test_a_period_holds_ten_requests_of_the_smallest_floor(smallest: float, latency_us: int) -> None:
    """It is twice this latency; with less than a few its group gives its share away."""
    assert Qos.of(smallest).latency_us == latency_us


def test_lines_are_what_the_kernel_takes_and_come_back_from_what_it_shows() -> None:
    """As kernel 6.12 prints them; lines with the kernel's own values, and other settings, are none of ours."""
    assert COST.model.line(DISK) == (
        "253:16 ctrl=user model=linear rbps=64512000 rseqiops=1000 rrandiops=1000 wbps=64512000 wseqiops=1000 "
        "wrandiops=1000\n"
    )
    assert Qos().line(DISK) == (
        "253:16 enable=1 ctrl=user rpct=0.00 rlat=25000 wpct=0.00 wlat=25000 min=90.00 max=90.00\n"
    )
    theirs = (
        "8:0 ctrl=auto model=linear rbps=174019176 rseqiops=41708 rrandiops=370 wbps=1 wseqiops=42705 wrandiops=378\n"
    )
    assert parse_model(theirs + COST.model.line(DISK)) == {DISK: COST.model}
    off = "8:0 enable=0 ctrl=user rpct=0.00 rlat=25000 wpct=0.00 wlat=25000 min=90.00 max=90.00\n"
    other = "8:16 enable=1 ctrl=user rpct=95.00 rlat=25000 wpct=0.00 wlat=25000 min=90.00 max=90.00\n"
    auto = "8:32 enable=1 ctrl=auto rpct=0.00 rlat=250000 wpct=0.00 wlat=250000 min=1.00 max=10000.00\n"
    assert parse_qos(off + other + auto + Qos(11_111).line(DISK)) == {DISK: Qos(11_111)}


def test_a_model_whose_figures_differ_between_directions_goes_to_its_own_fields() -> None:
    """Six numbers that are all alike would show nothing of that."""
    read, write = Speed(900, 1000, ((256 * KIB, 200),)), Speed(700, 800, ((256 * KIB, 100),))
    model = Model.of(Measured(read, write), 256 * KIB)

    assert dataclasses.astuple(model)[1:3] == (1000, 900)
    assert dataclasses.astuple(model)[4:] == (800, 700)
    assert model.wbps < model.rbps
    assert parse_model(model.line(DISK)) == {DISK: model}
