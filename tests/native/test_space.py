"""Space that is given back, on this machine's kernel."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Busy
from csi_driver.host.discard import discard, held_alone
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


def test_a_range_of_a_device_is_discarded_while_nobody_else_has_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    """That range and no more; a device that is mounted is not even opened."""
    image, place = tmp_path_factory.mktemp("discard") / "image", tmp_path_factory.mktemp("place")
    image.write_bytes(os.urandom(64 * MIB))
    os.sync()
    kernel = Kernel()
    loops = LoopDevices(kernel)
    device = loops.attach(image, sector_size=4096, deadline=Deadline(10.0))
    try:
        with held_alone(kernel, device.path) as fd:
            discard(kernel, fd, device.path, 32 * MIB, 32 * MIB)
        left, end = allocated(image), image.read_bytes()[32 * MIB :]
        subprocess.run(["mkfs.ext4", "-q", device.path], check=True)
        subprocess.run(["mount", device.path, place], check=True)
        try:
            with pytest.raises(Busy, match="mounted or mapped"), held_alone(kernel, device.path):
                pass
        finally:
            subprocess.run(["umount", place], check=True)
    finally:
        loops.detach(image, Deadline(10.0))

    assert 28 * MIB < left < 40 * MIB
    assert end == bytes(32 * MIB)
