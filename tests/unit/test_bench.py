"""The benchmark's arithmetic: percentiles, rounds, targets, tables."""

from __future__ import annotations

import math
import re
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from csi_driver.backends import lvmtags
from csi_driver.errors import NoSpace, Unready
from csi_driver.ids import new_id
from hack.bench import cuts, extents, figures, present, show
from hack.bench.figures import LIFE
from hack.bench.targets import targets

BLOCK = extents.BLOCK
RAW = {
    "CreateVolume": 0.5,
    "NodeStageVolume": 6.0,
    "NodePublishVolume": 0.1,
    "NodeUnpublishVolume": 0.1,
    "NodeUnstageVolume": 0.7,
    "DeleteVolume": 0.3,
}


def kind(ms: dict[str, float], *, life: float) -> dict[str, Any]:
    rounds = [{name: [value, value, 2 * value] for name, value in {**ms, LIFE: life}.items()}]
    return {"ms": figures.summary(rounds), "lives_per_second": [1000 / life], "failures": {}}


def level(volumes: int, create: float, **changes: float) -> dict[str, Any]:
    shown = {"ListVolumes, all ms": volumes / 100, "ListVolumes, a page of 100 ms": 1.5, "GetCapacity ms": 0.6}
    sizes = {"resident_mib": 70.0, "resident_after_lists_mib": 80.0, "filled_per_second": None}
    block = figures.summary([{"CreateVolume": [create]}])["CreateVolume"]
    return {
        "volumes": volumes,
        "create_ms": block,
        "empty_create_ms": None,
        "failures": {},
        **shown,
        **sizes,
        **changes,
    }


def result(ours: dict[str, float] | None = None, *, life: float = 19.0) -> dict[str, Any]:
    null = dict.fromkeys(RAW, 0.6)
    mine = {**{name: RAW[name] + 0.6 for name in RAW}, **(ours or {})}
    calls = {"ours": kind(mine, life=life), "raw": kind(RAW, life=8.0), "null": kind(null, life=4.2)}
    return {
        "machine": {"driver": "sluice"},
        "seconds": 1.0,
        "calls": calls,
        "parallel": {"8": {"ours": {**calls["ours"], "lives_per_second": [49.0, 52.0]}, "null": calls["null"]}},
        "creates": {"created_per_second": [650.0, 710.0], "deleted_per_second": [500.0], "failures": {}},
        "cost": {"cpu_seconds_per_100_lives": 1.9, "programs_per_life": {"mkfs.ext4": 1.0}, "programs_known": True},
        "start": {"best_seconds": 0.3, "median_seconds": 0.4, "resident_idle_mib": 55.0},
        "growth": [level(0, 2.0), level(1000, 2.1), level(10_000, 2.3)],
    }


def missed(found: dict[str, Any]) -> list[str]:
    return [target.name for target in targets(found) if not target.met]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """The nearest rank, and nothing of nothing."""
    assert figures.percentile(range(1, 101), 99) == 99
    assert figures.percentile([7.0], 50) == 7.0
    assert math.isnan(figures.percentile([], 99))


def test_the_quietest_round_is_that_of_the_shortest_life() -> None:
    """By its median: one quick life in a noisy round doesn't make it quiet."""
    rounds = [{LIFE: [1.0, 30.0, 30.0]}, {LIFE: [20.0, 20.0, 90.0]}, {LIFE: [25.0, 25.0, 25.0]}]

    assert figures.quietest(rounds) == 1
    assert figures.summary(rounds)[LIFE]["quietest"] == 20.0
    assert figures.quietest([]) == -1


def test_rounds_without_whole_lives_are_compared_by_what_they_have() -> None:
    """Cuts and changes have no life."""
    assert figures.quietest([{"a": [3.0], "b": [1.0]}, {"a": [1.0], "b": [2.0]}, {}]) == 1


def test_percentiles_are_over_all_rounds_and_medians_of_each() -> None:
    """A round in which a call failed every time has no median."""
    found = figures.summary([{"a": [1.0, 2.0, 3.0]}, {"b": [5.0]}, {"a": [9.0]}])["a"]

    assert (found["n"], found["p50"], found["p99"]) == (4, 2.0, 9.0)
    assert found["rounds"] == [2.0, None, 9.0]


def test_what_callers_measured_is_put_together() -> None:
    """Samples one after the other, failures counted by what they say."""
    assert figures.added([{"a": [1.0]}, {"a": [2.0], "b": [3.0]}]) == {"a": [1.0, 2.0], "b": [3.0]}
    assert figures.counted([{"x": 1}, {"x": 2, "y": 1}]) == {"x": 3, "y": 1}


def test_a_run_that_is_good_enough_misses_nothing() -> None:
    """Every figure of the plan is a target, and is held against the right one."""
    found = targets(result())

    assert [target.name for target in found if not target.met] == []
    assert len(found) == 22


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        ({"CreateVolume": 3.4}, "CreateVolume"),
        ({"NodeStageVolume": 10.1}, "NodeStageVolume"),
        ({"NodePublishVolume": 1.7}, "NodePublishVolume"),
        ({"NodeUnpublishVolume": 1.7}, "NodeUnpublishVolume"),
        ({"NodeUnstageVolume": 2.6}, "NodeUnstageVolume"),
        ({"DeleteVolume": 2.6}, "DeleteVolume"),
    ],
)
def test_a_call_that_takes_too_long_is_named(ours: dict[str, float], name: str) -> None:
    """Held against the raw effects and the empty server of the same run."""
    assert missed(result(ours)) == [name]


def test_a_life_that_takes_too_long_is_named() -> None:
    """1.6 x (8.0 raw + 4.2 for seven empty calls) is 19.5."""
    assert missed(result(life=19.6)) == [LIFE]
    assert missed(result(life=19.5)) == []


def test_growth_is_held_against_the_first_level() -> None:
    """A tenth more at 1,000, a fifth at 10,000; lists and memory at the last."""
    grown = result()
    grown["growth"] = [level(0, 2.0), level(1000, 2.3), level(10_000, 2.5, resident_mib=91.0)]
    grown["growth"][2]["GetCapacity ms"] = 1.0

    assert missed(grown) == [
        "CreateVolume at 1,000 volumes",
        "CreateVolume at 10,000 volumes",
        "GetCapacity at 10,000 volumes",
        "resident with 10,000 volumes",
    ]


def test_a_long_tail_is_named_with_its_call() -> None:
    """The quieter half of the rounds decides: what one noisy moment did is no one's fault."""
    noisy = result()
    ours = {"NodeStageVolume": [1.0] * 98 + [2.1, 2.1], LIFE: [19.0] * 100}
    noise = {"NodeStageVolume": [1.0, 90.0], LIFE: [20.0, 99.0]}
    noisy["calls"]["ours"]["ms"] |= figures.summary([noise, ours])
    found = {target.name: target for target in targets(noisy)}

    assert found["whole life: p99 / p50"].met
    assert not found["the worst call's p99 / p50"].met
    assert found["the worst call's p99 / p50"].why == "NodeStageVolume"


def test_growth_is_held_against_an_empty_server_of_the_same_moments_where_there_is_one() -> None:
    """What made all slow after the first level is not growth."""
    grown = result()
    busy = figures.summary([{"CreateVolume": [4.0]}])["CreateVolume"]
    grown["growth"] = [level(0, 2.0), {**level(1000, 4.3), "empty_create_ms": busy}]

    assert missed(grown) == []


def test_one_failure_among_eight_callers_is_a_target_missed() -> None:
    """Whatever the rate."""
    broken = result()
    broken["parallel"]["8"]["ours"]["failures"] = {"NodeStageVolume: INTERNAL: x": 1}

    assert missed(broken) == ["8 callers: failures"]


def test_what_was_not_measured_is_no_target() -> None:
    """Another driver has no raw cost beside it and tells of no programs."""
    assert targets({"machine": {}, "seconds": 0.0}) == []


def test_tables_show_figures_targets_and_failures() -> None:
    """All of it fits into what a terminal shows."""
    console = Console(file=StringIO(), width=200)
    broken = result({"DeleteVolume": 9.0})
    broken["calls"]["ours"]["failures"] = {"DeleteVolume: ABORTED: busy": 2}

    show.print_result(console, broken)
    met = show.print_targets(console, broken)

    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert not met
    for words in ("One caller", "8 callers", "10,000 volumes", "mkfs.ext4 1", "DeleteVolume: ABORTED: busy", "NO"):
        assert words in said


def test_two_results_are_shown_by_what_both_have() -> None:
    """With the ratio between them."""
    console = Console(file=StringIO(), width=200)
    other = result({"CreateVolume": 2.2})
    other["machine"] = {"driver": "other"}
    del other["growth"]

    show.print_beside(console, result({"CreateVolume": 1.1}), other)

    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "other" in said
    assert "0.50" in said
    assert "ListVolumes" not in said


def test_every_other_block_is_taken_once_in_an_order_that_stays() -> None:
    """No two of them touch, so that each is an extent."""
    spans = [(0, 10 * BLOCK), (100 * BLOCK, 3 * BLOCK)]
    found = extents.every_other(spans, 7)

    assert sorted(found) == [number * BLOCK for number in (0, 2, 4, 6, 8, 100, 102)]
    assert list(found) == list(extents.every_other(spans, 7))
    assert list(found) != sorted(found)


def test_more_extents_than_a_file_has_room_for_are_refused() -> None:
    """Rather than measured as fewer."""
    with pytest.raises(NoSpace, match="5 blocks are there, 6 are wanted"):
        extents.every_other([(0, 10 * BLOCK)], 6)


def test_a_wait_counts_if_a_part_of_it_lies_in_the_window() -> None:
    """A write that began before the cut and ended after it waited for it."""
    times = [0.0, 1.0, 1.1, 4.0, 4.1, 9.0]

    assert cuts.longest_wait(times, (2.0, 3.0)) == pytest.approx(2900)
    assert cuts.longest_wait(times, (1.05, 1.08)) == pytest.approx(100)
    assert cuts.longest_wait(times, (20.0, 30.0)) == 0.0


GROUP = """bench {
\tlogical_volumes {

\t\tthin {
\t\t\tid = "pool"
\t\t}

\t\tsluice-11111111-2222-4333-8444-555555555555 {
\t\t\tid = "one"
\t\t\ttags = ["sluice:id=11111111-2222-4333-8444-555555555555", "sluice:kind=volume", "sluice:name=one"]

\t\t\tsegment1 {
\t\t\t\tdevice_id = 1
\t\t\t}
\t\t}
\t}
}
"""


def test_a_groups_text_gets_a_copy_of_a_volume_for_each_thin_device() -> None:
    """Each with a passport, a UUID and a device of its own; what was there stays."""
    text = present.with_copies(GROUP, "11111111-2222-4333-8444-555555555555", "cluster/driver", (7, 8))
    ids = [new_id("cluster/driver", "volume", f"present-{number}") for number in range(2)]
    passports = [lvmtags.read(re.findall('"(.*?)"', line)) for line in text.splitlines() if "tags =" in line]
    braces = text.count("{"), text.count("}")

    assert re.findall(r"sluice-(\S+) {", text) == ["11111111-2222-4333-8444-555555555555", *ids]
    assert [(found.id, found.name) for found in passports if found][1:] == list(
        zip(ids, ("present-0", "present-1"), strict=True)
    )
    assert re.findall(r"device_id = (\d+)", text) == ["1", "7", "8"]
    assert len(set(re.findall(r'id = "(.*?)"', text))) == 4
    assert braces == (9, 9)


def test_a_group_without_the_volume_is_not_copied() -> None:
    """Nothing is guessed."""
    with pytest.raises(Unready, match="no volume"):
        present.with_copies(GROUP, "22222222-2222-4333-8444-555555555555", "cluster/driver", (7,))
