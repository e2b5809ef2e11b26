"""Trims: whose moment it is, how large the steps are, and what they leave alone."""

from __future__ import annotations

import dataclasses
import uuid
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.agent import trimming
from csi_driver.agent.trimming import LARGEST_STEP, SMALLEST_STEP, Trimming, due
from csi_driver.controller.requests import SizeRange, VolumeRequest
from csi_driver.deadline import Deadline
from csi_driver.errors import Busy, Unready
from csi_driver.host.discard import next_step
from csi_driver.node.uses import Use
from csi_driver.records import GIB
from csi_driver.store.sqlite import SqliteStore
from tests.fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from csi_driver.host.syscalls import Kernel
    from csi_driver.records import Volume
    from qos.limits import DevNo

DAY = 86400.0
ids = st.uuids().map(str)
times = st.floats(1e9, 2e9)


@given(ids, times, st.floats(1.0, 30 * DAY), st.lists(st.floats(0.1, 3600.0), min_size=1, max_size=50))
def test_looks_in_any_rhythm_find_each_moment_once(
    record_id: str, start: float, every: float, gaps: list[float]
) -> None:
    """Between two times a volume has its turn as often as one look would find, no more than once a look."""
    looks = [start]
    for gap in gaps:
        looks.append(looks[-1] + gap)
    found = sum(due(record_id, every, one, other) for one, other in pairwise(looks))

    assert (found > 0) == due(record_id, every, start, looks[-1])
    assert found <= (looks[-1] - start) / every + 1


@given(ids, times)
def test_each_day_has_one_moment_and_a_clock_set_back_none(record_id: str, start: float) -> None:
    """It is there within a period, and not made up for."""
    assert due(record_id, DAY, start, start + DAY + 1)
    assert not due(record_id, DAY, start, start - DAY)


def test_volumes_are_spread_over_the_period() -> None:
    """A thousand volumes don't come in one hour."""
    made = [str(uuid.uuid5(uuid.NAMESPACE_URL, str(n))) for n in range(1000)]
    hours = [sum(due(each, DAY, hour * 3600.0, (hour + 1) * 3600.0) for each in made) for hour in range(24)]

    assert sum(hours) == 1000
    assert max(hours) < 80


@given(st.integers(SMALLEST_STEP, LARGEST_STEP), st.floats(0.0, 60.0))
def test_a_step_shrinks_when_it_was_slow_and_stays_within_bounds(step: int, seconds: float) -> None:
    """A slow pool gets small steps, so that a node call waits for a tenth of a second, not for a minute."""
    new = next_step(step, seconds, SMALLEST_STEP, LARGEST_STEP)

    assert SMALLEST_STEP <= new <= LARGEST_STEP
    assert new <= step if seconds > 0.1 else new >= step


class Rig:
    """Hold a world with one node, and what its trims were told to do."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(SqliteStore(folder / "sluice.db"), total=1000 * GIB)
        self.folder = folder
        self.ranges: list[tuple[DevNo, int, int]] = []
        self.pauses: list[float] = []
        self.during: Callable[[], None] = lambda: None
        self.between: Callable[[], None] = lambda: None
        side = self.world.agents["n1"]
        stack, kernel = side.staging._stack, side.staging._kernel
        self.trimming = Trimming(self.world.store, side.pools, stack, kernel, side.locks, every=DAY)
        self.locks = side.locks
        monkeypatch.setattr(trimming, "trim", self._trim)
        monkeypatch.setattr(self.trimming._stopped, "wait", self._pause)

    def stage(self, name: str, size: int = 3 * GIB, use: Use | None = None, tier: str = "standard") -> Volume:
        """Create and stage a volume."""
        request = VolumeRequest(name=name, size=SizeRange(size), parameters={"tier": tier})
        volume = self.world.controller.volumes.create(request, Deadline(10.0))
        (self.folder / name).mkdir()
        use = use or Use(fs_type="ext4")
        self.world.agents["n1"].staging.stage(volume.id, self.folder / name, use, Deadline(10.0))
        return volume

    def unstage(self, volume: Volume, name: str) -> None:
        """Unstage it."""
        self.world.agents["n1"].staging.unstage(volume.id, self.folder / name, Deadline(10.0))

    def round(self) -> None:
        """Trim all."""
        self.trimming.round(0.0, DAY + 1)

    def _trim(self, kernel: Kernel, place: Path, device: DevNo, start: int, length: int) -> int:  # noqa: ARG002
        self.ranges.append((device, start, length))
        self.during()
        return length // 4

    def _pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.between()
        return False


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path, monkeypatch)
    yield made
    made.world.close()


def test_a_trim_goes_once_through_all_of_a_volume_and_pauses_for_what_it_gave(rig: Rig) -> None:
    """The ranges follow each other to the end; the pauses make the rate."""
    rig.stage("a")
    rig.round()
    edges = [(start, start + length) for _, start, length in rig.ranges]

    assert edges[0][0] == 0
    assert edges[-2][1] < 3 * GIB <= edges[-1][1]
    assert all(one[1] == other[0] for one, other in pairwise(edges))
    assert rig.trimming.trimmed["fast"] == sum(length // 4 for _, _, length in rig.ranges)
    assert sum(rig.pauses) == pytest.approx(rig.trimming.trimmed["fast"] / trimming.BYTES_PER_SECOND)
    assert rig.trimming.last["fast"] > 0


def test_only_what_is_mounted_to_be_written_is_trimmed(rig: Rig) -> None:
    """Not a raw block volume, not one that isn't staged, not one that is mounted read-only."""
    rig.stage("raw", use=Use(block=True))
    rig.stage("fixed")
    rig.unstage(rig.stage("gone"), "gone")
    mounts = rig.world.machines["n1"].mounts
    mounts[-1] = dataclasses.replace(mounts[-1], super_options=frozenset({"ro"}))
    rig.round()

    assert rig.ranges == []


def test_a_call_has_the_volume_between_steps_and_what_it_unstages_is_not_trimmed_on(rig: Rig) -> None:
    """Within a step a second caller hears Busy; after it the lock is free."""
    volume = rig.stage("a")
    heard: list[str] = []

    def during() -> None:
        with pytest.raises(Busy, match="a trim of"), rig.locks.hold(volume.id, "another's work on", background=True):
            heard.append("never")
        heard.append("busy")

    rig.during = during
    rig.between = lambda: rig.unstage(volume, "a")
    rig.round()

    assert heard == ["busy"]
    assert len(rig.ranges) == 1


def test_a_volume_that_calls_hold_has_its_turn_later_or_not_at_all(rig: Rig) -> None:
    """A trim waits, and gives up in the end: the next volume comes."""
    held, _ = rig.stage("a", GIB // 8), rig.stage("b", GIB // 8)
    with rig.locks.hold(held.id, "a call on"):
        rig.round()

    assert len(rig.ranges) == 1
    assert rig.pauses.count(trimming.BUSY_SECONDS) == trimming.MOST_BUSY


def test_one_volume_that_fails_is_not_in_the_way_of_others(rig: Rig) -> None:
    """What can't be trimmed is said, and the round goes on."""
    for name in ("a", "b"):
        rig.stage(name)

    def fail() -> None:
        raise Unready("the device is dead")

    rig.during = fail
    rig.round()

    assert len(rig.ranges) == 2


def test_in_a_pool_that_warns_volumes_come_every_hour(rig: Rig) -> None:
    """Space that nobody uses is wanted then."""
    volume = rig.stage("a")
    since = next(hour * 3600.0 for hour in range(24) if not due(volume.id, DAY, hour * 3600.0, (hour + 1) * 3600.0))
    rig.trimming.round(since, since + 3600.0)
    calm = len(rig.ranges)
    rig.world.disks["n1"].others = 850 * GIB
    rig.world.agents["n1"].pool().look()
    rig.trimming.round(since, since + 3600.0)

    assert calm == 0
    assert rig.ranges


def test_a_server_that_must_not_trim_has_no_thread_for_it(rig: Rig) -> None:
    """0 switches it off; and what runs is stopped."""
    side = rig.world.agents["n1"]
    stack, kernel = side.staging._stack, side.staging._kernel
    for every, runs in ((0.0, False), (DAY, True)):
        made = Trimming(rig.world.store, side.pools, stack, kernel, side.locks, every=every)
        made.start()
        ran = made._thread.is_alive()
        made.stop()

        assert (ran, made._thread.is_alive()) == (runs, False)


def test_a_thick_volume_gives_nothing_back(rig: Rig) -> None:
    """Its bytes are its own; others get their turn."""
    rig.stage("thick", use=Use(fs_type="xfs"), tier="scratch")
    rig.stage("thin", use=Use(fs_type="xfs"), tier="training")
    rig.round()

    assert len({device for device, _, _ in rig.ranges}) == 1
