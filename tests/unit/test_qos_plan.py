"""Limits, the text of io.max and io.stat, and the plan from what is to what should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qos.iofiles import IoStat, format_io_max, parse_io_max, parse_io_stat
from qos.limits import MOST_BPS, MOST_IOPS, UNLIMITED, DevNo, Limits
from qos.plan import plan

devices = st.builds(DevNo, st.integers(0, 4095), st.integers(0, 2**20 - 1))
bps = st.none() | st.integers(2, MOST_BPS)
iops = st.none() | st.integers(2, MOST_IOPS)
limits = st.builds(Limits, rbps=bps, wbps=bps, riops=iops, wiops=iops)
# Few devices, so that wanted and seen have some in common.
some = st.sampled_from([DevNo(7, minor) for minor in range(6)])
tables = st.dictionaries(some, limits)
noise = st.sampled_from(["(unknown) rbps=5 wbps=max riops=max wiops=max", "8:16 ", "(unknown) ", "", "7:1 7:2 "])


def shown(table: dict[DevNo, Limits]) -> dict[DevNo, Limits]:
    """Return what the kernel shows: no line for a device without limits."""
    return {dev: held for dev, held in table.items() if held != UNLIMITED}


@given(tables, tables)
def test_carrying_out_a_plan_gives_what_was_wanted(wanted: dict[DevNo, Limits], seen: dict[DevNo, Limits]) -> None:
    """After the writes every wanted device has its limits, every other one what it had, and nothing is left to do."""
    after = shown({**seen, **{write.dev: write.limits for write in plan(wanted, seen)}})

    assert after == shown({**seen, **wanted})
    assert plan(wanted, after) == ()


@given(tables, tables)
def test_a_plan_writes_nothing_in_vain(wanted: dict[DevNo, Limits], seen: dict[DevNo, Limits]) -> None:
    """Each write changes what the kernel shows, and only for our devices."""
    writes = plan(wanted, seen)

    assert all(seen.get(write.dev, UNLIMITED) != write.limits and write.dev in wanted for write in writes)
    assert len(writes) == len({write.dev for write in writes})


@given(st.dictionaries(devices, limits, max_size=5), st.lists(noise, max_size=4), st.randoms(use_true_random=False))
def test_io_max_comes_back_as_it_was_written(table: dict[DevNo, Limits], odd: list[str], random: object) -> None:
    """The kernel's own lines are read whatever odd lines stand between them; no line is no limit."""
    lines = [format_io_max(dev, held).rstrip("\n") for dev, held in table.items()] + odd
    random.shuffle(lines)  # type: ignore[attr-defined]

    assert shown(table) == parse_io_max("\n".join(lines) + "\n")


def test_a_line_sets_all_four_keys() -> None:
    """The kernel keeps what a line doesn't name, so a line names everything."""
    line = format_io_max(DevNo(253, 3), Limits(wbps=1048576, riops=100))

    assert line == "253:3 rbps=max wbps=1048576 riops=100 wiops=max\n"


@pytest.mark.parametrize("text", ["8:0 rbps=much\n", "8:0 rbps=1\n", "sda rbps=5\n", "rbps=5\n"])
def test_a_line_that_is_not_understood_is_no_answer(text: str) -> None:
    """Taken for "no limit" it would make us write over and over, or not at all."""
    with pytest.raises(ValueError, match=r"."):
        parse_io_max(text)


def test_keys_of_later_kernels_are_passed_over() -> None:
    """A new key beside the four must not stop enforcement."""
    assert parse_io_max("8:0 rbps=5 wbps=max riops=max wiops=max dbps=7\n") == {DevNo(8, 0): Limits(rbps=5)}


def test_io_stat_is_read_with_its_odd_lines() -> None:
    """Bare devices, also several before one that has figures, and hidden ones give no entry."""
    text = (
        "7:7 \n7:6 7:5 8:0 rbytes=90 wbytes=80 rios=7 wios=6 dbytes=5 dios=4 cost.usage=3\n"
        "(unknown) rbytes=1 wbytes=1 rios=1 wios=1 dbytes=0 dios=0\n"
        "253:1 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"
    )

    assert parse_io_stat(text) == {
        DevNo(8, 0): IoStat(rbytes=90, wbytes=80, rios=7, wios=6, dbytes=5, dios=4),
        DevNo(253, 1): IoStat(rbytes=1, wbytes=2, rios=3, wios=4),
    }


@pytest.mark.parametrize("key", ["rbps", "wbps", "riops", "wiops"])
@pytest.mark.parametrize("value", [-1, 0, 1, 2**64])
def test_what_the_kernel_refuses_is_refused_before(key: str, value: int) -> None:
    """0 and 1 are no limits to the kernel; neither is what doesn't fit its integers."""
    with pytest.raises(ValueError, match=f"{key}={value} "):
        Limits(**{key: value})


def test_iops_that_the_kernel_would_take_for_none_are_refused() -> None:
    """The kernel cuts IOPS to 32 bits, and the largest of these means max."""
    with pytest.raises(ValueError, match="riops=4294967295 "):
        Limits(riops=2**32 - 1)


@given(devices)
def test_a_device_number_comes_back_as_it_was_written(dev: DevNo) -> None:
    """MAJ:MIN is both ways the same."""
    assert dev == DevNo.parse(str(dev))


@pytest.mark.parametrize("text", ["", "8", "8:", ":0", "8:0 ", "8:0\n", "-8:0", "8:0:0", "4096:0", "0:1048576", "a:b"])
def test_what_is_no_device_number_is_refused_by_name(text: str) -> None:
    """The kernel's numbers have 12 and 20 bits."""
    with pytest.raises(ValueError, match="device number") as caught:
        DevNo.parse(text)

    assert repr(text) in str(caught.value)
