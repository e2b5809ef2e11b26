"""Linear devices of device-mapper. Needs a kernel with device-mapper and a running udev: the VM."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csi_driver.deadline import Deadline
from csi_driver.errors import Conflict, InUse, NotFound, Unready
from csi_driver.host import block
from csi_driver.host.dmtable import UDEV, request_buffer
from csi_driver.host.syscalls import DM_DEV_CREATE
from tests.kernel.mapping.rig import MIB, XFS_SIZE, Rig, soon
from tests.torture import pick

pytestmark = pytest.mark.kernel


def test_a_linear_device_shows_the_size_and_the_device_below(rig: Rig) -> None:
    """A new mapping has the size asked for, a node of its own, our uuid, and one line that leads to what is below."""
    below = rig.loop()

    device = rig.mapper.create_linear("sluice-test", "SLUICE-1", below, 32 * MIB)

    info = rig.mapper.info("sluice-test")
    assert info is not None
    assert (info.uuid, info.below, info.size_bytes) == ("SLUICE-1", below.dev, 32 * MIB)
    assert (info.suspended, info.read_only) == (False, False)
    assert block.size_bytes(device.dev) == 32 * MIB
    assert block.sector_size(device.dev) == 4096
    assert block.holders(below.dev) == (device.path.name,)
    assert block.device_at(device.path) == device


def test_the_disk_under_a_mapping_is_the_one_that_carries_the_image(rig: Rig) -> None:
    """The way down leads through the mapping, the loop device and the file to a disk."""
    device = rig.mapped()

    disks = block.disk_under(device.path)

    assert disks
    assert disks == block.disk_under(rig.folder)


def test_creating_again_gives_the_same_device(rig: Rig) -> None:
    """A retry after a crash finds its own device."""
    below = rig.loop()

    made = [rig.mapper.create_linear("sluice-test", "SLUICE-1", below, 32 * MIB) for _ in range(2)]

    assert made[0] == made[1]


def test_a_device_without_a_table_is_finished(rig: Rig) -> None:
    """A crash between DM_DEV_CREATE and DM_TABLE_LOAD leaves a half that the retry completes."""
    below = rig.loop()
    with Path("/dev/mapper/control").open("rb+", buffering=0) as control:
        request = request_buffer("sluice-test", "SLUICE-1", 0, b"", cookie=UDEV)
        rig.kernel.ioctl(control.fileno(), DM_DEV_CREATE, request)

    device = rig.mapper.create_linear("sluice-test", "SLUICE-1", below, 32 * MIB)

    assert block.size_bytes(device.dev) == 32 * MIB


def test_a_name_that_maps_something_else_is_a_conflict(rig: Rig) -> None:
    """Neither another device below nor another size nor another uuid passes for the same mapping."""
    below, other = rig.loop("one"), rig.loop("other")
    rig.mapper.create_linear("sluice-test", "SLUICE-1", below, 32 * MIB)

    for uuid, wanted, size in (("SLUICE-1", other, 32), ("SLUICE-1", below, 16), ("SLUICE-2", below, 32)):
        with pytest.raises(Conflict):
            rig.mapper.create_linear("sluice-test", uuid, wanted, size * MIB)


def test_a_device_that_cant_be_made_leaves_nothing(rig: Rig) -> None:
    """A table longer than the device below is refused, and the half-made device is removed."""
    below = rig.loop()

    with pytest.raises(Unready):
        rig.mapper.create_linear("sluice-test", "SLUICE-1", below, 640 * MIB)

    assert rig.mapper.info("sluice-test") is None


def test_a_read_only_mapping_refuses_writes(rig: Rig) -> None:
    """Read-only is the device's, not only the mount's."""
    device = rig.mapper.create_linear("sluice-test", "SLUICE-1", rig.loop(), 32 * MIB, read_only=True)

    assert block.read_only(device.dev)
    with pytest.raises(PermissionError), device.path.open("rb+", buffering=0) as file:
        file.write(bytes(4096))


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_a_device_grows_under_a_mounted_file_system_that_is_written_to(rig: Rig, fs_type: str) -> None:
    """Backend, mapping and file system grow in turn while a writer goes on, and what it wrote is there afterwards."""
    target = rig.mounted(fs_type, size=XFS_SIZE)
    stop = threading.Event()

    def write() -> int:
        lines = 0
        with (target / "log").open("wb", buffering=0) as file:
            while not stop.is_set():
                file.write(b"%9d\n" % lines)
                os.fsync(file.fileno())
                lines += 1
        return lines

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            os.truncate(rig.folder / "sluice-test", 2 * XFS_SIZE)
            below = rig.loops.find(rig.folder / "sluice-test")
            assert below is not None
            rig.loops.grow(below)
            device = rig.mapper.reload_linear("sluice-test", below, 2 * XFS_SIZE)
            grown = rig.filesystems.grow(device, fs_type, mounted=target, deadline=soon())
            again = rig.filesystems.grow(device, fs_type, mounted=target, deadline=soon())
        finally:
            stop.set()

    assert grown
    assert not again
    assert block.size_bytes(device.dev) == 2 * XFS_SIZE
    assert rig.filesystems.size(target, device, fs_type) == 2 * XFS_SIZE
    assert (target / "log").read_bytes() == b"".join(b"%9d\n" % line for line in range(writer.result()))


def test_an_unmounted_ext4_grows_by_its_program(rig: Rig) -> None:
    """Offline, e2fsck and resize2fs do it; a second time nothing has to be done."""
    below = rig.loop(size=128 * MIB)
    device = rig.mapper.create_linear("sluice-test", "SLUICE-1", below, 64 * MIB)
    rig.filesystems.make(device.path, "ext4", sector_size=4096, deadline=soon())
    rig.mapper.reload_linear("sluice-test", below, 128 * MIB)

    grown = [rig.filesystems.grow(device, "ext4", mounted=None, deadline=soon()) for _ in range(2)]

    assert grown == [True, False]


def test_the_mapping_can_be_moved_to_another_device(rig: Rig) -> None:
    """The hinge: what lies below is swapped under an open device, whose reads then come from the new one."""
    device = rig.mapped()
    other = rig.loop("other")
    other.path.write_bytes(b"new" * 4096)
    os.sync()

    with device.path.open("rb", buffering=0):
        rig.mapper.reload_linear("sluice-test", other, 64 * MIB)

    info = rig.mapper.info("sluice-test")
    assert info is not None
    assert info.below == other.dev
    assert device.path.read_bytes()[:3] == b"new"


def test_removing_again_and_again_beside_udev_leaves_nothing(rig: Rig) -> None:
    """A removal waits for udev, which opens new devices when it likes, and is done when it returns."""
    below = rig.loop()
    slowest = 0.0
    for _ in range(pick(8, 50)):
        device = rig.mapper.create_linear("sluice-test", "SLUICE-1", below, 32 * MIB)
        started = time.monotonic()
        assert rig.mapper.remove("sluice-test", soon())
        slowest = max(slowest, time.monotonic() - started)
        assert not block.exists(device.dev)

    assert slowest < 10
    assert rig.mapper.list() == ()
    assert not rig.mapper.remove("sluice-test", soon())


def test_eight_threads_create_format_and_remove_without_a_failure(rig: Rig) -> None:
    """Concurrent callers on distinct volumes never fail each other, and leave nothing."""

    def one(worker: int) -> None:
        for turn in range(pick(1, 12)):
            name = f"sluice-{worker}-{turn}"
            image = rig.image(name, 16 * MIB)
            below = rig.loops.attach(image, sector_size=4096, deadline=soon())
            device = rig.mapper.create_linear(name, f"SLUICE-{name}", below, 16 * MIB)
            rig.filesystems.make(device.path, "ext4", sector_size=4096, deadline=soon())
            rig.mapper.remove(name, soon())
            rig.loops.detach(image, soon())

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(one, worker) for worker in range(8)]:
            done.result(300)

    assert rig.mapper.list() == ()
    assert rig.loops.list(rig.folder) == ()


def test_a_mounted_device_is_in_use(rig: Rig) -> None:
    """Neither the mapping nor the loop device below a mount can be taken away, and the message says why."""
    rig.mounted()

    with pytest.raises(InUse, match="mounted"):
        rig.mapper.remove("sluice-test", Deadline(0.2))
    with pytest.raises(InUse, match="dm-"):
        rig.loops.detach(rig.folder / "sluice-test", Deadline(0.2))
    assert rig.loops.find(rig.folder / "sluice-test")


def test_a_device_that_is_open_is_in_use(rig: Rig) -> None:
    """A program that has the device open keeps it."""
    device = rig.mapped()

    with device.path.open("rb"), pytest.raises(InUse, match="open"):
        rig.mapper.remove("sluice-test", Deadline(0.2))


def test_what_is_not_there_is_not_found(rig: Rig) -> None:
    """Suspending, resuming and reloading an unknown name says so."""
    below = rig.loop()

    assert rig.mapper.info("sluice-none") is None
    with pytest.raises(NotFound):
        rig.mapper.suspend("sluice-none")
    with pytest.raises(NotFound):
        rig.mapper.resume("sluice-none")
    with pytest.raises(NotFound):
        rig.mapper.reload_linear("sluice-none", below, MIB)


def test_read_ahead_is_set_once(rig: Rig) -> None:
    """Setting the value that is there already changes nothing."""
    device = rig.mapped()

    changed = [block.set_read_ahead(rig.kernel, device.dev, kib) for kib in (256, 256, 128)]

    assert changed == [True, False, True]


def test_udev_leaves_the_device_alone(rig: Rig) -> None:
    """The flags in event_nr reach udev's rules, so that nobody probes what a tenant wrote."""
    device = rig.mapped()
    subprocess.run(["udevadm", "settle"], check=True)

    said = subprocess.run(
        ["udevadm", "info", "-q", "property", str(device.path)], check=True, capture_output=True, text=True
    ).stdout

    assert "DM_UDEV_DISABLE_OTHER_RULES_FLAG=1" in said
    assert "DM_UDEV_DISABLE_DISK_RULES_FLAG=1" in said
    assert "ID_FS_TYPE" not in said
