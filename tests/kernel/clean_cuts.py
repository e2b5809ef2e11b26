"""What cuts of mounted volumes must be, of whatever pool: bodies of tests that every kind of node has."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from tests.kernel.cutting import LET_GO_SECONDS, SIZES, Diary, busy, caught, writes
from tests.kernel.images import CHECKS, SUPERBLOCK, features, logged
from tests.kernel.node import MIB, run
from tests.kernel.pod import Pod

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.node import Node
    from tests.kernel.volume import Volume


def has_what_was_synced(node: Node, fs_type: str) -> None:
    """Cut under load, restore, mount beside the source: the diary is whole up to what was synced."""
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


def needs_no_recovery(node: Node) -> None:
    """Cut an ext4 under load; a copy of that moment without a freeze shows that the load was such that it counts."""
    volume = node.create("data", SIZES["ext4"]).up()
    volume.fill(16 * MIB)
    with Pod("a") as pod, Diary(volume.target / "diary").kept():
        load = busy(pod, volume)
        snapshot = node.cut(volume, "cut")
        with node.copied(volume) as bare:
            unfrozen = features(bare)
        load.end()
    cut = node.image(snapshot.id)

    assert "needs_recovery" in unfrozen
    assert "needs_recovery" not in features(cut)
    run("e2fsck", "-fn", cut)


def needs_nothing_of_its_log(node: Node, folder: Path) -> None:
    """Cut an XFS under load: frozen, it leaves one thing in its log, the superblock's counters.

    So a mount that doesn't read the log shows what was synced. A copy without a freeze has far more to replay.
    """
    volume = node.create("data", SIZES["xfs"], fs_type="xfs").up()
    volume.fill(16 * MIB)
    diary = Diary(volume.target / "diary")
    with Pod("a") as pod, diary.kept():
        load = busy(pod, volume)
        synced = diary.synced
        snapshot = node.cut(volume, "cut")
        wait_for("there is more to log", lambda: diary.synced > synced + 20, Deadline(30))
        with node.copied(volume) as bare:
            unfrozen = logged(bare)
        load.end()
    cut = node.image(snapshot.id)
    run("mount", "-o", "ro,norecovery,nouuid", cut, folder)
    try:
        last = Diary.last(folder / "diary")
    finally:
        run("umount", folder)

    assert unfrozen - {SUPERBLOCK}
    assert logged(cut) <= {SUPERBLOCK}
    assert last >= synced


def is_let_go_of_the_dead(node: Node, volume: Volume) -> None:
    """Kill the server in the middle of a cut: the volume's writers go on within 15 s, and nothing holds it."""
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(node.cut, volume, "cut")
        inside = caught(node, volume, signal.SIGKILL)
        took = writes(volume)
        suspended = volume.suspended
        node.stop(signal.SIGKILL)
        with pytest.raises(grpc.RpcError):
            cut.result()

    assert inside
    assert took < LET_GO_SECONDS
    assert not suspended
