"""The ledger of a node's disks: floors never take more than 80 % of one, whatever comes in which order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.disks import Disk
from csi_driver.errors import NoSpace
from csi_driver.ledger import DiskLedger, Ledger
from qos.iocost import NO_FLOOR, PROMISABLE, Cost, Floor, Measured, Speed
from qos.limits import DevNo

MIB = 1 << 20
speed = Speed.rated(1000, 50 * MIB)
MEASURED = Measured(speed, speed)
COST = Cost.of(MEASURED, 256 << 10)
SHARED, OWN = Disk("sda", "8:0", serial="S1"), Disk("sdb", "8:16")
KNOWN = {"S1": MEASURED, "sdb": MEASURED}


def nothing() -> None:
    """Stand for bytes that are always there."""


def two_pools() -> DiskLedger:
    """Return the ledger of a pool on one disk, and of one on that and another."""
    ledger = DiskLedger(KNOWN)
    ledger.join("p", [SHARED], 256 << 10)
    ledger.join("q", [SHARED, OWN], 256 << 10)
    return ledger


def promised(ledger: DiskLedger) -> list[int]:
    return [disk.promised for disk in ledger.disks("q")]


floors = st.builds(Floor, st.integers(0, 800), st.one_of(st.just(0), st.integers(0, 40 * MIB)))
steps = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["admit", "settle", "gone"]), floors))


@given(steps)
def test_no_disk_is_ever_promised_past_what_it_can_give(todo: list[tuple[str, str, Floor]]) -> None:
    """Each record counts with the larger of what is in force and what is wanted, and what fits is not refused."""
    ledger = two_pools()
    model: dict[str, tuple[Floor, ...]] = {}
    pool_of = {name: "pq"[place % 2] for place, name in enumerate("abcdef")}

    def sum_on(pools: str, records: dict[str, tuple[Floor, ...]]) -> int:
        return sum(max(map(COST.share, each)) for name, each in records.items() if pool_of[name] in pools)

    for name, verb, floor in todo:
        if verb == "admit":
            others = {other: each for other, each in model.items() if other != name}
            had = model.get(name, ())
            less = any(floor.iops <= one.iops and floor.bps <= one.bps for one in had)
            # What the other disk has is part of what the shared one has.
            if less or not floor or sum_on("pq", others) + COST.share(floor) <= PROMISABLE:
                ledger.admit(name, pool_of[name], floor, nothing)
                model[name] = (*had, floor)
            else:
                with pytest.raises(NoSpace, match="can be promised of 90 % of its 1000 IOPS"):
                    ledger.admit(name, pool_of[name], floor, nothing)
        else:
            now = model[name][-1] if verb == "settle" and name in model else NO_FLOOR
            ledger.settle(name, pool_of[name], now)
            model[name] = (now,)

        assert promised(ledger) == [sum_on("pq", model), sum_on("q", model)]
        assert max(promised(ledger)) <= PROMISABLE


def test_callers_that_race_are_never_promised_more_than_there_is() -> None:
    """Thirty-two callers want 64 floors of 45 IOPS, 5 % each: sixteen get one."""
    ledger = two_pools()

    def one(number: int) -> bool:
        try:
            ledger.admit(str(number), "pq"[number % 2], Floor(iops=45), nothing)
        except NoSpace:
            return False
        return True

    with ThreadPoolExecutor(32) as threads:
        assert sum(threads.map(one, range(64))) == 16
    assert promised(ledger)[0] == PROMISABLE


def test_floor_and_bytes_are_promised_both_or_none() -> None:
    """A pool without room for the bytes must not keep the disk's share, and the other way round."""
    ledger, room = two_pools(), Ledger("fast", lambda: 100)
    with pytest.raises(NoSpace, match="fast can't take 101"):
        ledger.admit("a", "p", Floor(iops=450), lambda: room.admit("a", 101))
    with pytest.raises(NoSpace, match=r"takes 88\.9 % of disk S1"):
        ledger.admit("a", "p", Floor(iops=800), lambda: room.admit("a", 99))

    assert promised(ledger) == [0, 0]
    assert room.left() == 100


def test_a_change_counts_with_the_larger_of_both_until_it_is_in_force() -> None:
    """What is given back can be promised to others only when nobody is given it any more."""
    ledger = two_pools()
    ledger.admit("a", "p", Floor(iops=720), nothing)
    ledger.admit("a", "p", Floor(iops=90), nothing)
    with pytest.raises(NoSpace):
        ledger.admit("b", "p", Floor(iops=45), nothing)
    ledger.settle("a", "p", Floor(iops=90))

    ledger.admit("b", "p", Floor(iops=630), nothing)
    assert promised(ledger)[0] == PROMISABLE


def test_a_refusal_says_what_was_asked_what_is_promised_and_what_is_free() -> None:
    """Who reads it knows how much would have been taken."""
    ledger = two_pools()
    ledger.admit("a", "p", Floor(iops=450), nothing)
    with pytest.raises(NoSpace) as caught:
        ledger.admit("b", "p", Floor(iops=300), nothing)

    assert str(caught.value) == (
        "a floor of 300 IOPS takes 33.3 % of disk S1, of which 50.0 % is promised and 30.0 % free (80.0 % can be "
        "promised of 90 % of its 1000 IOPS): ask for at most 270 IOPS, or another pool"
    )
    ledger.admit("b", "p", Floor(iops=270), nothing)


def test_a_disk_that_nobody_knows_promises_nothing_and_says_what_to_write() -> None:
    """Neither does a pool without a disk; and no volume without a floor is refused for that."""
    ledger = DiskLedger({})
    ledger.join("p", [SHARED], 256 << 10)
    with pytest.raises(NoSpace, match=r"nobody knows what disk S1 can do; write \[disks.'S1'\]"):
        ledger.admit("a", "p", Floor(iops=1), nothing)
    with pytest.raises(NoSpace, match="no disk is known below the pool"):
        ledger.admit("a", "elsewhere", Floor(iops=1), nothing)

    ledger.admit("a", "p", NO_FLOOR, nothing)
    assert ledger.costs("p") == {}


def test_pools_on_one_disk_share_the_smallest_of_their_largest_requests() -> None:
    """The size of requests is the disk's, and what a floor costs follows from it."""
    ledger = two_pools()
    ledger.join("thin", [SHARED], 64 << 10)

    assert ledger.costs("p") == {DevNo(8, 0): Cost.of(MEASURED, 64 << 10)}
    assert ledger.costs("q")[DevNo(8, 16)] == COST


def test_what_history_says_counts_even_past_what_a_disk_can_give() -> None:
    """A disk may turn out slower: then nothing more is promised, and a floor can still be lowered."""
    ledger = two_pools()
    ledger.settle("a", "p", Floor(iops=900))
    with pytest.raises(NoSpace, match=r"100\.0 % is promised and 0\.0 % free"):
        ledger.admit("b", "p", Floor(iops=1), nothing)

    ledger.admit("a", "p", Floor(iops=850), nothing)
    assert promised(ledger)[0] == 1_000_000
