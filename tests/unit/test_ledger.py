"""The ledger of a pool: never past its limit, whatever comes in which order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.errors import NoSpace
from csi_driver.ledger import Ledger

steps = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["admit", "settle"]), st.integers(0, 60)))


@given(steps, st.integers(0, 100))
def test_admission_never_goes_past_the_limit(todo: list[tuple[str, str, int]], limit: int) -> None:
    """What is left is the limit less what was admitted; admit refuses exactly what doesn't fit."""
    ledger = Ledger("fast", lambda: limit)
    model: dict[str, int] = {}
    for record_id, verb, size in todo:
        if verb == "settle":
            ledger.settle(record_id, 0)
            model.pop(record_id, None)
            continue
        others = sum(model.values()) - model.get(record_id, 0)
        fits = size <= model.get(record_id, 0) or others + size <= limit
        if fits:
            ledger.admit(record_id, size)
            model[record_id] = size
        else:
            with pytest.raises(NoSpace):
                ledger.admit(record_id, size)

        assert sum(model.values()) <= limit
        assert ledger.left() == limit - sum(model.values())


def test_what_history_says_counts_even_past_the_limit() -> None:
    """A disk that became smaller doesn't unpromise what was promised; it only admits nothing more."""
    ledger = Ledger("fast", lambda: 10)
    ledger.settle("a", 25)

    assert ledger.left() == 0
    with pytest.raises(NoSpace, match="fast can't take 1: 0 of 10 can still be promised"):
        ledger.admit("b", 1)
    ledger.admit("a", 20)


def test_callers_that_race_get_no_more_than_there_is() -> None:
    """Thirty-two threads want 64 of 40: forty get one."""
    ledger = Ledger("fast", lambda: 40)

    def one(number: int) -> bool:
        try:
            ledger.admit(str(number), 1)
        except NoSpace:
            return False
        return True

    with ThreadPoolExecutor(32) as threads:
        assert sum(threads.map(one, range(64))) == 40
