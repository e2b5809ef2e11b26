"""The mkfs rule: what may hold data is never formatted, and what no pod ever saw is."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from csi_driver.deadline import Deadline, wait_for
from tests.kernel.images import CHECKS, digest
from tests.kernel.node import Node, number_of, refusal, run
from tests.leftovers import Leftovers
from tests.torture import pick

if TYPE_CHECKING:
    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

MIB = 1 << 20
SIZE = 16 * MIB
SIZES = {"ext4": SIZE, "xfs": 300 * MIB, "btrfs": 256 * MIB}
HELPERS = "/sys/fs/cgroup/sluice-helpers/io.max"


def _refuses_to_format(node: Node, volume: Volume) -> str:
    """Stage a raw block volume as a file system; return why that is refused, once it is sure that nothing changed."""
    before, bytes_before = Leftovers.now(), digest(node.image(volume.id))
    code, said = refusal(volume.staged_as(block=False).stage)

    assert code == grpc.StatusCode.UNAVAILABLE, said
    assert digest(node.image(volume.id)) == bytes_before
    assert Leftovers.now().since(before) == []
    return said


def _written(node: Node, offset: int, data: bytes) -> Volume:
    """Return an unstaged volume into which a pod has written, as into a raw block device."""
    volume = node.create("data", SIZE, block=True).up()
    with volume.file.open("r+b", buffering=0) as file:
        file.seek(offset)
        file.write(data)
        os.fsync(file.fileno())
    volume.down()
    return volume


@pytest.mark.parametrize("offset", pick([SIZE - 4096], [0, SIZE // 2, SIZE - 4096]))
@pytest.mark.parametrize("data", [b"\0" * 4096, b"weights " * 512], ids=["zeros", "unknown"])
def test_what_was_ever_written_to_is_never_formatted(node: Node, offset: int, data: bytes) -> None:
    """At the start, at the end, between them where no signature could be; and zeros are data too."""
    volume = _written(node, offset, data)

    assert "is not formatted" in _refuses_to_format(node, volume)
    with volume.up().file.open("rb") as file:
        file.seek(offset)
        assert file.read(4096) == data


@pytest.mark.parametrize(
    ("kind", "argv", "size"),
    [
        ("ext4", ("mkfs.ext4", "-q"), SIZE),
        ("xfs", ("mkfs.xfs", "-q"), 300 * MIB),
        ("btrfs", ("mkfs.btrfs", "-q"), 128 * MIB),
        ("swap", ("mkswap",), SIZE),
        ("LVM", ("pvcreate", "-qq", "--devices"), SIZE),
    ],
)
def test_what_somebody_else_has_formatted_is_never_formatted(
    node: Node, kind: str, argv: tuple[str, ...], size: int
) -> None:
    """The refusal says what is there, and it can still be used as what it is."""
    volume = node.create("data", size, block=True).up()
    device = volume.device
    run(*argv, *([device, device] if kind == "LVM" else [device]))
    volume.down()

    assert f"holds {kind}" in _refuses_to_format(node, volume)


@pytest.mark.parametrize("fs_type", pick(["xfs"], ["ext4", "xfs", "btrfs"]))
def test_a_file_system_whose_superblock_is_gone_is_never_made_again(node: Node, fs_type: str) -> None:
    """Even zeros from one end to the other: this volume had a file system."""
    volume = node.create("data", SIZES[fs_type], fs_type=fs_type).up()
    volume.down()
    with node.image(volume.id).open("r+b") as file:
        file.truncate(0)
        file.truncate(SIZES[fs_type])

    _refuses_to_format(node, volume)
    assert node.record(volume.id).status.history.format_done == fs_type


def test_a_volume_is_not_formatted_again_as_another_file_system(node: Node) -> None:
    """The capability that a later pod asks with decides nothing."""
    volume = node.create("data", 300 * MIB).up()
    volume.down()
    before = digest(node.image(volume.id))
    volume.fs_type = "xfs"

    code, said = refusal(volume.stage)
    volume.fs_type = "ext4"
    assert (code, "never formatted again" in said) == (grpc.StatusCode.INVALID_ARGUMENT, True), said
    assert digest(node.image(volume.id)) == before
    volume.up()


@pytest.mark.parametrize("fs_type", pick(["ext4"], ["ext4", "xfs", "btrfs"]))
def test_an_mkfs_that_was_cut_is_done_again_but_never_beside_the_one_that_still_runs(node: Node, fs_type: str) -> None:
    """The killed server's mkfs lives on. A second one beside it would mix two file systems: the next server waits."""
    volume = node.create("data", SIZES[fs_type], fs_type=fs_type)
    disk = number_of(Path(os.environ["SLUICE_DISK"]))
    with ThreadPoolExecutor(1) as pool, open(HELPERS, "w", buffering=1) as limits:  # noqa: PTH123 - a kernel file
        limits.write(f"{disk} rbps=max wbps=max riops=2 wiops=2\n")
        staged = pool.submit(refusal, volume.stage)
        wait_for("mkfs runs", lambda: _mkfs(fs_type) is not None, Deadline(30))
        orphan = _mkfs(fs_type)
        assert orphan is not None
        orphan.suspend()
        node.stop(signal.SIGKILL)
        staged.result()
        limits.write(f"{disk} rbps=max wbps=max riops=max wiops=max\n")
    history = node.record(volume.id).status.history
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(node.start)
        wait_for(
            "the next server waits", lambda: f"{orphan.pid} (mkfs.{fs_type})" in node.log.read_text(), Deadline(30)
        )
        orphan.kill()
        started.result()
    volume.up().fill(4 * MIB)

    assert (history.format_begun, history.format_done) == (fs_type, "")
    assert node.record(volume.id).status.history.format_done == fs_type
    volume.down()
    run(*CHECKS[fs_type], node.image(volume.id))


def _mkfs(fs_type: str) -> psutil.Process | None:
    running = psutil.process_iter(["name"])
    return next((process for process in running if process.info["name"] == f"mkfs.{fs_type}"), None)
