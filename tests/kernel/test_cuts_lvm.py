"""Snapshots of mounted volumes on a thin pool: LVM doesn't freeze what sits on our device above its own, so we do."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from tests.kernel import clean_cuts
from tests.kernel.cutting import LET_GO_SECONDS, SIZES, writes
from tests.kernel.hindered import HinderedNode
from tests.kernel.images import features
from tests.kernel.node import MIB, run
from tests.leftovers import Leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

SLOW_SECONDS = 12


@pytest.fixture(scope="module")
def thin_machine() -> Iterator[HinderedNode]:
    """Give a node that serves a thin pool, and see that nothing of it is left."""
    before = Leftovers.now()
    with HinderedNode(qos="enforce") as running:
        yield running

    assert Leftovers.now().since(before) == []


@pytest.mark.torture
@pytest.mark.parametrize("fs_type", list(SIZES))
def test_what_was_synced_before_a_cut_is_in_it_and_the_load_goes_on(thin: HinderedNode, fs_type: str) -> None:
    """The restored volume is sound, too, and was mounted beside its source."""
    clean_cuts.has_what_was_synced(thin, fs_type)


def test_a_cut_of_a_mounted_ext4_needs_no_recovery(thin: HinderedNode) -> None:
    """LVM's own cut of a moment later does."""
    clean_cuts.needs_no_recovery(thin)


def test_a_cut_of_a_mounted_xfs_needs_nothing_of_its_log(thin: HinderedNode, tmp_path: Path) -> None:
    """LVM's own cut needs more than the superblock's counters."""
    clean_cuts.needs_nothing_of_its_log(thin, tmp_path)


def test_an_administrators_own_freeze_outlives_a_cut(thin: HinderedNode) -> None:
    """It is frozen before and after, by who froze it; the cut needs no recovery."""
    volume = thin.up("data")
    volume.fill(4 * MIB)
    run("fsfreeze", "--freeze", volume.staging)
    try:
        snapshot = thin.cut(volume, "cut")
        again = run("fsfreeze", "--freeze", volume.staging, status=1)
    finally:
        run("fsfreeze", "--unfreeze", volume.staging)
    volume.fill(4 * MIB)

    assert "busy" in again.lower()
    assert "needs_recovery" not in features(thin.image(snapshot.id))


@pytest.mark.torture
def test_another_volumes_slow_command_is_waited_for_before_anybody_is_held(thin: HinderedNode) -> None:
    """A create that takes long keeps the cut waiting, but not the writers of the volume that is to be cut."""
    volume = thin.create("data", block=True).up()
    waiting = thin.once("lvcreate", f"sleep {SLOW_SECONDS}")
    with ThreadPoolExecutor(1) as pool, held(volume) as times:
        slow = pool.submit(thin.create, "slow")
        wait_for("the slow command runs", lambda: not waiting.exists(), Deadline(30))
        began = time.monotonic()
        thin.cut(volume, "cut")
        took = time.monotonic() - began
        slow.result()

    assert took > SLOW_SECONDS / 2
    assert 0 < sum(times) < took / 2, (times, took)


def test_a_server_killed_in_the_middle_of_a_cut_leaves_nothing_held(thin: HinderedNode) -> None:
    """I/O goes on within 15 s without a server, through LVM's own device too; the next server has one cut, no more."""
    volume = thin.create("data", block=True).up()
    clean_cuts.is_let_go_of_the_dead(thin, volume)
    thin.start()
    snapshot = thin.cut(volume, "cut")

    assert thin.images() == sorted(f"sluice-{each.id}" for each in (volume, snapshot))


@pytest.mark.torture
def test_a_command_that_hangs_in_a_cut_is_killed_and_its_cut_is_thrown_away(thin: HinderedNode) -> None:
    """Writers go on within 15 s; the agent's next try is a cut of another moment, and the only one."""
    volume = thin.create("data", block=True).up()
    thin.once("lvcreate", '"$lvm" "$@"; sleep 60')
    with held(volume) as times:
        snapshot = thin.cut(volume, "cut")
        took = writes(volume)

    assert took < LET_GO_SECONDS
    assert (len(times), max(times) < LET_GO_SECONDS) == (2, True), times
    assert "lvm did not end in" in thin.log.read_text()
    assert thin.images() == sorted(f"sluice-{each.id}" for each in (volume, snapshot))


@contextlib.contextmanager
def held(volume: Volume) -> Iterator[list[float]]:
    """Note each time for which a volume's device holds its writers back while the body runs, in seconds."""
    times: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        since = None
        while not ended.wait(0.01):
            if volume.suspended:
                since = since or time.monotonic()
            elif since is not None:
                times.append(time.monotonic() - since)
                since = None

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield times
    finally:
        ended.set()
        thread.join()
