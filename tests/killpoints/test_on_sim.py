"""Kill points in memory: every operation, cut before and after each of its effects, continued in every way."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.killpoints.drill import Drill, Way
from tests.killpoints.operations import OPERATIONS
from tests.killpoints.played import Played
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.killpoints.operations import Operation

MAPPERS = pytest.mark.parametrize("mapper", [True, False], ids=["mapped", "bare"])
SEEDS = pick([4], [random.SystemRandom().randrange(1 << 32) for _ in range(5)])

ONCE = pick({"group snapshot", "delete group snapshot"}, set[str]())
"""Operations that are long: they are cut before or after each effect, not before and after."""


@MAPPERS
@pytest.mark.timeout(pick(60, 1800))
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_an_operation_cut_at_any_effect_loses_and_leaves_nothing(
    operation: Operation, mapper: bool, record_property: Callable[[str, object], None]
) -> None:
    """Whether it is asked again, not at all, or for the opposite: exactly one object or none, and the right data."""
    effects = cuts = 0
    for seed in SEEDS:
        on = Played(seed, mapper=mapper)
        try:
            drill = Drill(on, seed, tuple(Way))
            tally = drill.some(operation) if operation.name in ONCE else drill.all(operation)
        finally:
            on.close()
        effects, cuts = max(effects, tally.effects), cuts + tally.cuts
    record_property("seeds", SEEDS)
    record_property("effects", effects)
    record_property("cuts", cuts)

    assert effects >= 2
    assert cuts >= (1 if operation.name in ONCE else 2) * len(Way) * (effects - 1) * len(SEEDS)
