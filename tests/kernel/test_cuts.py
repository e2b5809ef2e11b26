"""Snapshots of volumes that are mounted and written to, and what happens when the server ends in the middle of one."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from tests.kernel.cutting import LET_GO_SECONDS, SIZES, Diary, busy, caught, writes
from tests.kernel.images import CHECKS, SUPERBLOCK, extents, features, logged, synced_writes
from tests.kernel.node import MIB, Node, run
from tests.kernel.pod import Pod

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

LEAST_EXTENTS = 2000

each = pytest.mark.parametrize("fs_type", list(SIZES))


@each
def test_what_was_synced_before_a_cut_is_in_it_and_the_load_goes_on(node: Node, fs_type: str) -> None:
    """Cut under load, restored, mounted: the diary is whole up to what was synced, and its volume saw no error."""
    volume = node.create("data", SIZES[fs_type], fs_type=fs_type).up()
    volume.fill(16 * MIB)
    diary = Diary(volume.target / "diary")
    with Pod("a") as pod, diary.kept():
        load = busy(pod, volume)
        synced = diary.synced
        snapshot = node.cut(volume, "cut")
        after = diary.synced
        wait_for("the load goes on", lambda: diary.synced > after + 3, Deadline(30))
        load.end()
    restored = node.create("restored", SIZES[fs_type], fs_type=fs_type, source=snapshot).up()

    assert Diary.last(restored.target / "diary") >= synced
    assert Diary.last(volume.target / "diary") == diary.synced
    restored.down()
    run(*CHECKS[fs_type], node.image(restored.id))


def test_a_cut_of_a_mounted_ext4_needs_no_recovery(node: Node) -> None:
    """A copy of the same moment without a freeze does: so the load was such that it would show."""
    volume = node.create("data", SIZES["ext4"]).up()
    volume.fill(16 * MIB)
    bare = node.pool / "bare"
    with Pod("a") as pod, Diary(volume.target / "diary").kept():
        load = busy(pod, volume)
        snapshot = node.cut(volume, "cut")
        run("cp", "--reflink=always", node.image(volume.id), bare)
        load.end()
    unfrozen = features(bare)
    bare.unlink()

    assert "needs_recovery" in unfrozen
    assert "needs_recovery" not in features(node.image(snapshot.id))
    run("e2fsck", "-fn", node.image(snapshot.id))


def test_a_cut_of_a_mounted_xfs_needs_nothing_of_its_log(node: Node, tmp_path: Path) -> None:
    """XFS leaves one thing in its log when it is frozen, the superblock's counters; nothing else is to be replayed.

    So a mount that doesn't read the log shows what was synced. A copy without a freeze has far more to replay.
    """
    volume = node.create("data", SIZES["xfs"], fs_type="xfs").up()
    volume.fill(16 * MIB)
    diary, bare = Diary(volume.target / "diary"), node.pool / "bare"
    with Pod("a") as pod, diary.kept():
        load = busy(pod, volume)
        synced = diary.synced
        snapshot = node.cut(volume, "cut")
        wait_for("there is more to log", lambda: diary.synced > synced + 20, Deadline(30))
        run("cp", "--reflink=always", node.image(volume.id), bare)
        load.end()
    unfrozen = logged(bare)
    bare.unlink()
    run("mount", "-o", "ro,norecovery,nouuid,loop", node.image(snapshot.id), tmp_path)
    try:
        last = Diary.last(tmp_path / "diary")
    finally:
        run("umount", tmp_path)

    assert unfrozen - {SUPERBLOCK}
    assert logged(node.image(snapshot.id)) <= {SUPERBLOCK}
    assert last >= synced


def test_a_cut_of_a_mounted_btrfs_has_no_log_to_replay(node: Node) -> None:
    """A copy of the same moment without a freeze has one: what was synced since the last transaction is there alone."""
    volume = node.create("data", SIZES["btrfs"], fs_type="btrfs").up()
    volume.fill(16 * MIB)
    diary, bare = Diary(volume.target / "diary"), node.pool / "bare"
    with Pod("a") as pod, diary.kept():
        load = busy(pod, volume)
        snapshot = node.cut(volume, "cut")
        synced = diary.synced
        wait_for("there is more to log", lambda: diary.synced > synced + 20, Deadline(30))
        run("cp", "--reflink=always", node.image(volume.id), bare)
        load.end()
    unfrozen = synced_writes(bare)
    bare.unlink()

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
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(node.cut, scattered, "cut")
        inside = caught(node, scattered, signal.SIGKILL)
        took = writes(scattered)
        suspended = scattered.suspended
        node.stop(signal.SIGKILL)
        with pytest.raises(grpc.RpcError):
            cut.result()
    images = node.images()
    node.start()
    made_again = node.cut(scattered, "cut")

    assert inside
    assert took < LET_GO_SECONDS
    assert not suspended
    assert [name for name in images if name.startswith(made_again.id)] in ([], [f"{made_again.id}.img"])
    assert node.images() == sorted([f"{scattered.id}.img", f"{made_again.id}.img"])


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
