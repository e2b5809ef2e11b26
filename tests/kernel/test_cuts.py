"""Snapshots of volumes that are mounted and written to, and what happens when the server ends in the middle of one."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from tests.kernel import clean_cuts
from tests.kernel.cutting import LET_GO_SECONDS, SIZES, Diary, busy, caught, writes
from tests.kernel.images import CHECKS, extents, synced_writes
from tests.kernel.node import MIB, Node, run
from tests.kernel.pod import Pod
from tests.torture import pick

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

LEAST_EXTENTS = 2000

each = pytest.mark.parametrize("fs_type", pick(["btrfs"], list(SIZES)))


@each
def test_what_was_synced_before_a_cut_is_in_it_and_the_load_goes_on(node: Node, fs_type: str) -> None:
    """The restored volume is sound, too."""
    clean_cuts.has_what_was_synced(node, fs_type)


def test_a_cut_of_a_mounted_ext4_needs_no_recovery(node: Node) -> None:
    """A bare copy of the same moment does."""
    clean_cuts.needs_no_recovery(node)


def test_a_cut_of_a_mounted_xfs_needs_nothing_of_its_log(node: Node, tmp_path: Path) -> None:
    """A bare copy needs more than the superblock's counters."""
    clean_cuts.needs_nothing_of_its_log(node, tmp_path)


def test_a_cut_of_a_mounted_btrfs_has_no_log_to_replay(node: Node) -> None:
    """A copy of the same moment without a freeze has one: what was synced since the last transaction is there alone."""
    volume = node.create("data", SIZES["btrfs"], fs_type="btrfs").up()
    volume.fill(16 * MIB)
    diary = Diary(volume.target / "diary")
    with Pod("a") as pod, diary.kept():
        load = busy(pod, volume)
        snapshot = node.cut(volume, "cut")
        synced = diary.synced
        wait_for("there is more to log", lambda: diary.synced > synced + 20, Deadline(30))
        with node.copied(volume) as bare:
            unfrozen = synced_writes(bare)
        load.end()

    assert unfrozen
    assert not synced_writes(node.image(snapshot.id))
    run(*CHECKS["btrfs"], node.image(snapshot.id))


@pytest.fixture
def scattered(node: Node) -> Volume:
    """Give a published raw block volume whose image has so many extents that its cut takes a while."""
    volume = node.create("data", 128 * MIB, block=True).up()
    run(
        *("fio", "--name=x", f"--filename={volume.device}", "--rw=write:4k", "--bs=4k", "--ioengine=libaio"),
        *("--iodepth=32", "--direct=1", "--size=64m", "--io_size=32m", "--eta=never", "--output=/dev/null"),
    )
    assert len(extents(node.image(volume.id))) > LEAST_EXTENTS
    return volume


def test_a_server_killed_in_the_middle_of_a_cut_leaves_nothing_frozen(node: Node, scattered: Volume) -> None:
    """I/O goes on within 15 s without a server; the restarted one offers no half-made cut, and makes it when asked."""
    clean_cuts.is_let_go_of_the_dead(node, scattered)
    images = node.images()
    node.start()
    made_again = node.cut(scattered, "cut")

    assert [name for name in images if name.startswith(made_again.id)] in ([], [f"{made_again.id}.img"])
    assert node.images() == sorted([f"{scattered.id}.img", f"{made_again.id}.img"])


@pytest.mark.torture
def test_a_server_that_hangs_in_the_middle_of_a_cut_loses_it(node: Node, scattered: Volume) -> None:
    """I/O goes on within 15 s, and when the server wakes it throws away what was cut, for it isn't of one moment."""
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(node.cut, scattered, "cut")
        inside = caught(node, scattered, signal.SIGSTOP)
        took = writes(scattered)
        os.kill(node.pid, signal.SIGCONT)
        snapshot = cut.result()

    assert inside
    assert took < LET_GO_SECONDS
    assert "nothing cut meanwhile is good" in node.log.read_text()
    assert node.images() == sorted([f"{scattered.id}.img", f"{snapshot.id}.img"])
