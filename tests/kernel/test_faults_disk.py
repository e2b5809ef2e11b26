"""A disk that fails writes: who writes hears it, the volume's condition says it, and what was promised is kept."""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.rpc import csi_pb2 as csi
from tests.faults.rig import is_ready, until_done
from tests.kernel.images import Extent, extents
from tests.kernel.node import MIB, Node, refusal, run
from tests.kernel.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

NAME = "failing"
SIZE = 32 * MIB
SOON = 60.0
PATIENCE = 4.0


class PoolOnDisk(Node):
    """A node whose pool alone is on the disk that fails: its records are safe elsewhere."""

    def __init__(self) -> None:
        super().__init__(disk=f"/dev/mapper/{NAME}")

    def mount(self) -> None:
        """Mount the disk at the pool."""
        self.pool.mkdir(parents=True, exist_ok=True)
        run("mount", self.disk, self.pool)

    def leftovers(self) -> list[str]:
        """Return what is left besides the mount of the disk."""
        return [thing for thing in super().leftovers() if not thing.endswith(f" at {self.pool}")]


@pytest.fixture(scope="module")
def machine() -> Iterator[PoolOnDisk]:
    """Give a node whose pool is on a disk that can be made to fail writes."""
    disk = os.environ["SLUICE_DISK"]
    run("dmsetup", "create", NAME, "--table", f"0 {_sectors()} linear {disk} 0")
    run("udevadm", "settle")
    try:
        with PoolOnDisk() as running:
            yield running
    finally:
        run("dmsetup", "remove", "--retry", NAME)


def test_a_volume_whose_blocks_fail_says_so_and_hurts_no_other(node: Node) -> None:
    """Its pod gets EIO, its condition says so; with the disk well again all that was synced is there."""
    volume, other = node.up("data", SIZE), node.up("other", SIZE)
    for each in (volume, other):
        each.fill(8 * MIB)
    kept, image = volume.file.read_bytes(), node.image(volume.id)
    run("fallocate", "--length", str(SIZE), image)  # so that all that it will ever write is on blocks that fail
    with _failing(extents(image)):
        refused = partial(_write_until_refused, volume.target / "more")
        failed = refused()
        # It is the journal's write, seconds later, that stops the file system.
        wait_for("its condition says so", lambda: refused() > 0 and volume.condition_on_node() != "", Deadline(SOON))
        condition = volume.condition_on_node()
        other.fill(8 * MIB)
        well = other.condition_on_node()
    volume.down()
    volume.up()

    assert failed in {errno.EIO, errno.EROFS}
    assert ("the kernel log says" in condition, well) == (True, "")
    assert volume.file.read_bytes() == kept
    assert volume.condition_on_node() == ""


def test_a_pool_whose_disk_fails_is_left_alone_until_it_is_mounted_again(node: Node) -> None:
    """No call is answered with OK by halves; what was acknowledged is there, and the server needs no restart.

    While nothing can be read, but nothing was written either, the file system still goes on: what can't be found there
    is not lost. A write that fails stops all of it.
    """
    volume = node.up("data", SIZE)
    volume.fill(8 * MIB)
    kept = volume.file.read_bytes()
    volume.down()
    with _gone():
        stages = [refusal(volume.stage)]
        refused = [refusal(partial(_create_soon, node, f"late-{number}"))[0] for number in range(3)]
        stages += [refusal(volume.stage)]
        ready, listed = is_ready(node), node.listed()
    run("umount", node.pool)
    run("mount", node.disk, node.pool)
    until_done(volume.up, SOON)
    for number in range(3):
        until_done(partial(node.create, f"late-{number}", SIZE), SOON)

    assert set(refused) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert [(code, "LOST" in said) for code, said in stages] == [(grpc.StatusCode.UNAVAILABLE, False)] * 2, stages
    assert (ready, list(listed)) == (True, [volume.id])
    assert volume.file.read_bytes() == kept
    assert list(node.listed().values()) == [""] * 4


def _create_soon(node: Node, name: str) -> object:
    """Create a volume, with little patience."""
    request = csi.CreateVolumeRequest(
        name=name,
        capacity_range=csi.CapacityRange(required_bytes=SIZE),
        volume_capabilities=[Volume.capability(block=False, fs_type="ext4")],
        parameters={"tier": "standard"},
    )
    return node.client.controller.CreateVolume(request, timeout=PATIENCE)


def _write_until_refused(path: Path) -> int:
    """Write and sync until the kernel refuses, and return its errno."""
    try:
        with path.open("ab", buffering=0) as file:
            while True:
                file.write(os.urandom(MIB))
                os.fsync(file.fileno())
    except OSError as error:
        return error.errno or 0


def _sectors() -> int:
    return int(run("blockdev", "--getsz", os.environ["SLUICE_DISK"]))


@contextlib.contextmanager
def _failing(stretches: list[Extent]) -> Iterator[None]:
    """Let the disk fail writes to some stretches of it: dm-flakey, up for no second and down for an hour."""
    disk, lines, at = os.environ["SLUICE_DISK"], [], 0
    for start, length in sorted(stretches):
        lines += [f"{at} {start - at} linear {disk} {at}"] if start > at else []
        lines += [f"{start} {length} flakey {disk} {start} 0 3600 1 error_writes"]
        at = start + length
    lines += [f"{at} {_sectors() - at} linear {disk} {at}"] if at < _sectors() else []
    with _table("\n".join(lines)):
        yield


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    """Let the disk fail whatever it is asked, and leave as little of it in memory as the kernel can spare."""
    run("sync")
    with _table(f"0 {_sectors()} error"):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        yield


@contextlib.contextmanager
def _table(text: str) -> Iterator[None]:
    """Let the disk be what a table says, and well again afterwards."""
    _load(text)
    try:
        yield
    finally:
        _load(f"0 {_sectors()} linear {os.environ['SLUICE_DISK']} 0")


def _load(table: str) -> None:
    run("sh", "-c", f'printf "%s\\n" "$0" | dmsetup load {NAME}', table)
    run("dmsetup", "suspend", "--noflush", "--nolockfs", NAME)
    run("dmsetup", "resume", NAME)
