"""Which machine runs which files of tests, and how that is learned."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm.boot import Boot
from tests.vm.lanes import BOOT_SECONDS, Lane, Load, how_many, pack
from tests.vm.seconds import Learner, expected

if TYPE_CHECKING:
    from pathlib import Path

PLAIN, SLOW = Boot(), Boot(iops=1000)


def files(lane: Lane) -> list[str]:
    return [load.file for load in lane.loads]


def test_two_lanes_end_at_about_the_same_time() -> None:
    """The longest first, each to where it costs least."""
    loads = [Load(PLAIN, name, seconds) for name, seconds in (("a", 90), ("b", 200), ("c", 100), ("d", 210))]

    assert [files(lane) for lane in pack(loads, 2)] == [["d", "a"], ["b", "c"]]


def test_a_second_machine_is_booted_only_where_that_is_quicker() -> None:
    """Two short files share one, two long ones don't."""
    short, long = ([Load(PLAIN, name, seconds) for name in "ab"] for seconds in (BOOT_SECONDS / 2, BOOT_SECONDS * 2))

    assert [files(lane) for lane in pack(short, 2)] == [["a", "b"], []]
    assert [files(lane) for lane in pack(long, 2)] == [["a"], ["b"]]


def test_another_boot_goes_to_the_shorter_lane_and_runs_after_the_larger() -> None:
    """A lane's machines run one after another."""
    lanes = pack([Load(PLAIN, "a", 300), Load(PLAIN, "b", 200), Load(SLOW, "c", 10)], 2)

    assert [files(lane) for lane in lanes] == [["a"], ["b", "c"]]
    assert lanes[1].boots() == [PLAIN, SLOW]


@given(st.lists(st.tuples(st.sampled_from([PLAIN, SLOW]), st.integers(1, 500))), st.integers(1, 6))
def test_every_file_is_run_once_and_no_lane_is_far_behind(some: list[tuple[Boot, int]], processors: int) -> None:
    """The lane that ends last took its last file when no other was more than two boots ahead of it."""
    loads = [Load(boot, f"{number}", seconds) for number, (boot, seconds) in enumerate(some)]
    lanes = pack(loads, how_many(processors))

    assert sorted(file for lane in lanes for file in files(lane)) == sorted(load.file for load in loads)
    latest = max((lane for lane in lanes if lane.loads), key=Lane.seconds, default=None)
    if latest is not None:
        before = latest.seconds() - latest.loads[-1].seconds
        assert before <= min(lane.seconds() for lane in lanes) + 2 * BOOT_SECONDS


@pytest.mark.parametrize(("processors", "wanted"), [(1, 1), (2, 2), (3, 3), (64, 3)])
def test_there_are_as_many_lanes_as_processors(processors: int, wanted: int) -> None:
    """There is a limit, for each takes memory."""
    assert how_many(processors) == wanted


def test_a_file_takes_what_it_took_or_what_its_tests_make_likely(tmp_path: Path) -> None:
    """Of a new file only the number of tests is known."""
    path = tmp_path / "known"
    path.write_text(json.dumps({"a.py": 30.0, "gone.py": 5.0}))

    assert expected(["a.py::x", "a.py::y", "b.py::x[1]", "b.py::x[2]"], path) == {"a.py": 30.0, "b.py": 8.0}


def test_what_is_learned_is_added_to_what_is_known(tmp_path: Path) -> None:
    """Each part of a test counts; files that are gone are forgotten."""
    known = tmp_path / "known"
    known.write_text(json.dumps({"a.py": 30.0, "gone.py": 5.0}))
    for name in ("a.py", "b.py"):
        (tmp_path / name).touch()
    learner = Learner(known)
    for when, duration in (("setup", 1.0), ("call", 2.0), ("teardown", 0.5)):
        report = pytest.TestReport("b.py::x", ("", 0, ""), {}, "passed", None, when, duration=duration)  # type: ignore[arg-type]
        learner.pytest_runtest_logreport(report)
    session = type("Session", (), {"config": type("Config", (), {"rootpath": tmp_path})})
    learner.pytest_sessionfinish(session)  # type: ignore[arg-type]

    assert json.loads(known.read_text()) == {"a.py": 30.0, "b.py": 3.5}
