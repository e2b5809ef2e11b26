"""Space that is given back, on this machine's kernel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.host.discard import discard_in_steps
from csi_driver.host.loopdev import LoopDevices
from csi_driver.host.syscalls import Kernel
from tests.faults.rig import create
from tests.serving import Server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.native

MIB = 1 << 20
TRIM_SECONDS = 30.0


def allocated(path: Path) -> int:
    """Return the bytes that a file has blocks for."""
    return path.stat().st_blocks * 512


def test_what_a_pod_deletes_is_given_back_to_the_pool() -> None:
    """A trim punches holes where a deleted file was, and leaves the other one alone; the log has one line of it."""
    with Server("--trim-every=1s") as server:
        volume = create(server, "a", 512 * MIB).up()
        image = server.pool / "pool/images" / f"{volume.id}.img"
        kept = volume.target / "kept"
        kept.write_bytes(os.urandom(20 * MIB))
        volume.fill(100 * MIB)
        os.sync()
        full = allocated(image)
        volume.file.unlink()
        os.sync()
        wait_for("the blocks are given back", lambda: allocated(image) < full - 90 * MIB, Deadline(TRIM_SECONDS))
        fresh = kept.read_bytes()
        wait_for("the log says it", lambda: "trimmed" in server.log.read_text(), Deadline(TRIM_SECONDS))
        volume.down()
        again = volume.up().target / "kept"
        same = again.read_bytes() == fresh
        volume.down()
        volume.delete()

    assert full > 120 * MIB
    assert same


def test_a_device_is_discarded_step_by_step_and_its_file_has_no_blocks_then(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Where one call ended, the next one begins; nothing before is left."""
    image = tmp_path_factory.mktemp("discard") / "image"
    image.write_bytes(os.urandom(64 * MIB))
    os.sync()
    kernel = Kernel()
    loops = LoopDevices(kernel)
    device = loops.attach(image, sector_size=4096, deadline=Deadline(10.0))
    try:
        size, rate = 64 * MIB, 1 << 40
        half = discard_in_steps(
            kernel, device.path, size // 2, step=4 * MIB, bytes_per_second=rate, deadline=Deadline(20.0)
        )
        left = allocated(image)
        end = discard_in_steps(
            kernel, device.path, size, step=4 * MIB, bytes_per_second=rate, deadline=Deadline(20.0), start=half
        )
    finally:
        loops.detach(image, Deadline(10.0))

    assert (half, end) == (size // 2, size)
    assert 28 * MIB < left < 40 * MIB
    assert allocated(image) < MIB
