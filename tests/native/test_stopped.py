"""A file system that has stopped, as XFS does when its disk fails: its pods end, and the volume comes down."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

import pytest

from csi_driver.rpc import csi_pb2 as csi
from tests.kernel.volume import Volume

if TYPE_CHECKING:
    from tests.serving import Server

pytestmark = pytest.mark.native

MIB = 1 << 20
# xfs_fs.h
XFS_IOC_GOINGDOWN, NOLOGFLUSH = 0x8004587D, 2


def test_a_file_system_that_has_stopped_is_unpublished_and_unstaged(server: Server) -> None:
    """Nothing below its mount answers a look any more; then it serves again."""
    request = csi.CreateVolumeRequest(
        name="data",
        capacity_range=csi.CapacityRange(required_bytes=320 * MIB),
        volume_capabilities=[Volume.capability(block=False, fs_type="xfs")],
    )
    made = server.client.controller.CreateVolume(request, timeout=20.0).volume
    volume = Volume(server, "data", made.volume_id, block=False, fs_type="xfs")
    volume.up()
    fd = os.open(volume.staging, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, XFS_IOC_GOINGDOWN, struct.pack("=I", NOLOGFLUSH))
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="Input/output error"):
        volume.staging.stat()
    volume.unpublish()
    volume.unstage()
    volume.up()
    written = volume.file.write_bytes(b"x")
    volume.down()
    volume.delete()

    assert written == 1
