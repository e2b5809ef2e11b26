"""Which pool takes a volume."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.errors import NoSpace
from csi_driver.placement import ASKED_WHEN_FULL, Wish, order, suits
from csi_driver.records import Pool, PoolSpec, PoolStatus


def pool(name: str, node: str, left: int, abnormal: str = "") -> Pool:
    return Pool(f"{node}-{name}", PoolSpec(name, node, "sim", "/p"), PoolStatus(left=left, abnormal=abnormal))


pools = st.lists(
    st.builds(
        pool,
        st.sampled_from(["fast", "slow"]),
        st.sampled_from(["n1", "n2", "n3"]),
        st.integers(0, 10),
        st.sampled_from(["", "", "not mounted"]),
    ),
    unique_by=lambda each: each.id,
)
wishes = st.builds(
    Wish,
    size=st.integers(0, 12),
    pool_name=st.sampled_from(["", "fast"]),
    nodes=st.frozensets(st.sampled_from(["n1", "n2"])),
    preferred=st.lists(st.sampled_from(["n1", "n2", "n3"]), unique=True).map(tuple),
)


@given(pools, wishes)
def test_only_pools_that_suit_are_asked_and_roomy_ones_first(given_pools: list[Pool], wish: Wish) -> None:
    """Every pool in the order suits; with room anywhere, only pools with room are asked."""
    suiting = [each for each in given_pools if not suits(each, wish)]
    if not suiting:
        with pytest.raises(NoSpace):
            order(given_pools, wish)
        return
    found = order(given_pools, wish)
    roomy = {each.id for each in suiting if each.status.left >= wish.size}

    assert {each.id for each in found} <= {each.id for each in suiting}
    if roomy:
        assert {each.id for each in found} == roomy
    else:
        assert len(found) == min(len(suiting), ASKED_WHEN_FULL)


def test_a_thick_volume_goes_where_thick_volumes_have_room() -> None:
    """A pool that can promise much may have no byte beside its thin pool."""
    thin, thick = pool("fast", "n1", 9), pool("slow", "n2", 3)
    thick = dataclasses.replace(thick, status=PoolStatus(left=3, left_thick=2))
    found = [order([thin, thick], Wish(size=2, thick=each))[0].id for each in (False, True)]

    assert found == ["n1-fast", "n2-slow"]


def test_preferred_nodes_come_first_then_the_emptiest() -> None:
    """The scheduler's first choice wins over a fuller disk elsewhere."""
    given_pools = [pool("fast", "n1", 5), pool("fast", "n2", 9), pool("slow", "n1", 7), pool("fast", "n3", 8)]
    found = order(given_pools, Wish(size=1, preferred=("n1",)))

    assert [each.id for each in found] == ["n1-slow", "n1-fast", "n2-fast", "n3-fast"]


def test_a_refusal_gives_each_pools_reason() -> None:
    """The message says what to look at."""
    with pytest.raises(NoSpace) as caught:
        order([pool("fast", "n1", 5, "not mounted"), pool("slow", "n2", 9)], Wish(size=1, pool_name="fast"))

    assert str(caught.value) == ("no pool for 1: fast on n1: not mounted; slow on n2: the class asks for pool 'fast'")
