"""The guard of a pool's fill: which level follows from which fills."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.guard import DATA, METADATA, Band, Guard, Level, Share, Thresholds

fills = st.floats(0.0, 1.0)
levels = st.sampled_from(Level)
thresholds = st.sampled_from([DATA, METADATA])
edges = [edge for each in (DATA, METADATA) for _, band in each for edge in (band.begins, band.ends)]
looks = st.lists(st.one_of(fills, st.sampled_from(edges)), min_size=1, max_size=30)

GIB = 1 << 30
NONE = Share(0, 0)


def after(rules: Thresholds, seen: list[float], level: Level = Level.OK) -> Level:
    """Return the level after several looks."""
    for fill in seen:
        level = rules.next(level, fill)
    return level


@given(thresholds, levels, fills, fills)
def test_more_fill_is_never_a_milder_level(rules: Thresholds, level: Level, one: float, other: float) -> None:
    """From the same level, the fuller look ends at the same level or a worse one."""
    assert rules.next(level, min(one, other)) <= rules.next(level, max(one, other))


@given(thresholds, levels, levels, fills)
def test_a_worse_past_is_never_a_milder_level(rules: Thresholds, one: Level, other: Level, fill: float) -> None:
    """By the same look, who was worse off stays as bad as the other or worse."""
    assert rules.next(min(one, other), fill) <= rules.next(max(one, other), fill)


@given(thresholds, levels, fills, st.integers(1, 5))
def test_looking_again_changes_nothing(rules: Thresholds, level: Level, fill: float, times: int) -> None:
    """One look decides: a pool that stands still doesn't go through levels."""
    once = rules.next(level, fill)

    assert after(rules, [fill] * times, once) == once


@given(thresholds, looks)
def test_the_last_looks_justify_the_level_whatever_came_before(rules: Thresholds, seen: list[float]) -> None:
    """It is the worst level that has begun and of which no look since was below its end."""
    level = after(rules, seen)

    assert level == max((each for each, _ in rules if holds(rules, seen, each)), default=Level.OK)


def holds(rules: Thresholds, seen: list[float], level: Level) -> bool:
    """Return whether a level began and didn't end since, by its own band alone."""
    band = dict(rules)[level]
    begun = max((n for n, fill in enumerate(seen) if fill >= band.begins), default=None)
    return begun is not None and all(fill >= band.ends for fill in seen[begun:])


@given(thresholds, st.data())
def test_within_a_band_nothing_changes(rules: Thresholds, data: st.DataObject) -> None:
    """Fills that go to and fro between a level's end and its beginning leave the level as it was: no flapping."""
    level, band = data.draw(st.sampled_from(list(rules)))
    inside = st.floats(band.ends, band.begins, exclude_max=True)
    for start in (level, Level(level - 1)):
        first = rules.next(start, data.draw(inside))
        seen = data.draw(st.lists(inside, max_size=20))
        walk = [first, *(after(rules, seen[: count + 1], first) for count in range(len(seen)))]

        assert all((one >= level) == (start >= level) for one in walk)


@given(thresholds, fills)
def test_an_emergency_ends_below_its_end_and_not_before(rules: Thresholds, fill: float) -> None:
    """What yields is held until there is room again."""
    assert (rules.next(Level.EMERGENCY, fill) is Level.EMERGENCY) == (fill >= rules.emergency.ends)


@pytest.mark.parametrize("rules", [DATA, METADATA])
def test_a_pool_that_fills_slowly_and_empties_again_goes_through_every_level(rules: Thresholds) -> None:
    """Up one by one, down one by one."""
    rise = [n / 1000 for n in range(1001)]
    up = [after(rules, rise[: count + 1]) for count in range(len(rise))]
    down, level = [], Level.EMERGENCY
    for fill in reversed(rise):
        level = rules.next(level, fill)
        down.append(level)

    assert [level for before, level in pairwise(up) if level != before] == list(Level)[1:]
    assert [level for before, level in pairwise(down) if level != before] == list(Level)[-2::-1]


@given(levels, levels, fills, fills)
def test_the_worse_of_data_and_metadata_counts(one: Level, other: Level, data: float, metadata: float) -> None:
    """Neither can hide the other, and what a backend doesn't have is never full."""
    shares = Share(int(data * GIB), GIB), Share(int(metadata * GIB), GIB)
    guard = Guard(one, other).next(*shares)

    assert guard.level == max(DATA.next(one, shares[0].fill), METADATA.next(other, shares[1].fill))
    assert Guard(one, other).next(shares[0], NONE).metadata is Level.OK


@pytest.mark.parametrize(
    "bands",
    [
        (Band(0.5, 0.6), Band(0.7, 0.65), Band(0.8, 0.75), Band(0.9, 0.85)),
        (Band(0.7, 0.6), Band(0.7, 0.65), Band(0.8, 0.75), Band(0.9, 0.85)),
        (Band(0.6, 0.5), Band(0.7, 0.5), Band(0.8, 0.75), Band(0.9, 0.85)),
        (Band(0.6, 0.0), Band(0.7, 0.65), Band(0.8, 0.75), Band(0.9, 0.85)),
        (Band(0.6, 0.5), Band(0.7, 0.65), Band(0.8, 0.75), Band(1.1, 0.85)),
    ],
    ids=["upside down", "two begin at once", "two end at once", "never ends", "never begins"],
)
def test_bands_that_make_no_sense_are_refused(bands: tuple[Band, Band, Band, Band]) -> None:
    """Both edges rise from band to band."""
    with pytest.raises(ValueError, match="each band must begin above its end"):
        Thresholds(*bands)


def test_a_condition_names_what_is_full_by_how_much_and_what_to_do() -> None:
    """One line for a person; nothing while all is well."""
    full, some = Share(98 * GIB, 100 * GIB), Share(10 << 20, 100 << 20)

    assert Guard().condition(some, NONE, "add a disk") == ""
    assert Guard(Level.EMERGENCY, Level.OK).condition(full, some, "add a disk") == (
        "emergency: its data is 98.0% full (98Gi of 100Gi), so it takes nothing new, and volumes of tiers that yield "
        "are written at their least rate; delete volumes or snapshots, or add a disk"
    )
    both = Guard(Level.WARNING, Level.NO_NEW_VOLUMES).condition(Share(85, 100), Share(75, 100), "add a disk")
    assert both.startswith(
        "no-new-volumes: its data is 85.0% full (85 of 100) and its metadata is 75.0% full (75 of 100)"
    )


@given(levels)
def test_a_label_goes_to_a_record_and_back(level: Level) -> None:
    """What a newer version may have written is no reason to hold anything back."""
    assert Level.of(level.label) is level
    assert Level.of("unheard-of") is Level.OK
