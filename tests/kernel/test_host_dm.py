"""Device-mapper, and freezing by it. Needs a kernel with device-mapper and a running udev: the VM."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Busy, Conflict, InUse, NotFound, Unready
from csi_driver.host import block
from csi_driver.host.dm import DeviceMapper
from csi_driver.host.dmtable import UDEV, request_buffer
from csi_driver.host.filesystem import Filesystems
from csi_driver.host.freeze import DeadMan, Freezer
from csi_driver.host.loopdev import LoopDevices
from csi_driver.host.mounts import Mounts
from csi_driver.host.run import Runner
from csi_driver.host.syscalls import DM_DEV_CREATE, FIFREEZE, FITHAW, Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.host.block import Device

pytestmark = pytest.mark.kernel
REPO = Path(__file__).parents[2]
MIB = 1 << 20
XFS_SIZE = 320 * MIB


def soon() -> Deadline:
    return Deadline(60)


class Rig:
    """A folder of images, and what can be built on them; everything is taken down again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel = Kernel()
        self.loops = LoopDevices(self.kernel)
        self.mapper = DeviceMapper(self.kernel)
        self.mounts = Mounts(self.kernel)
        self.filesystems = Filesystems(Runner(), self.kernel)
        self.dead_man = DeadMan()
        self.freezer = Freezer(self.kernel, self.mapper, self.dead_man)

    def image(self, name: str, size: int = 64 * MIB) -> Path:
        path = self.folder / name
        path.touch()
        os.truncate(path, size)
        return path

    def loop(self, name: str = "image", size: int = 64 * MIB) -> Device:
        return self.loops.attach(self.image(name, size), sector_size=4096, deadline=soon())

    def mapped(self, name: str = "sluice-test", size: int = 64 * MIB) -> Device:
        return self.mapper.create_linear(name, f"SLUICE-{name}", self.loop(name, size), size)

    def mounted(self, fs_type: str = "ext4", name: str = "sluice-test", size: int = 64 * MIB) -> Path:
        device = self.mapped(name, size)
        self.filesystems.make(device.path, fs_type, sector_size=4096, deadline=soon())
        target = self.folder / f"at-{name}"
        target.mkdir()
        self.mounts.mount(device.path, target, fs_type)
        return target

    def take_down(self) -> None:
        self.dead_man.close()
        self.freezer.resume_all()
        for target in self.folder.glob("at-*"):
            self.mounts.unmount(target, soon())
        for name in self.mapper.list():
            self.mapper.remove(name, soon())
        for attached in self.loops.list(self.folder):
            self.loops.detach(attached, soon())


@pytest.fixture
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sluice-dm-") as folder:
        made = Rig(Path(folder))
        yield made
        made.take_down()


def is_suspended(rig: Rig, name: str = "sluice-test") -> bool:
    info = rig.mapper.info(name)
    return info is not None and info.suspended


def needs_recovery(image: Path) -> bool:
    """Return whether an ext4 image has a log to replay (s_feature_incompat, bit 2)."""
    with image.open("rb") as file:
        superblock = os.pread(file.fileno(), 1024, 1024)
    return bool(struct.unpack_from("<I", superblock, 0x60)[0] & 4)


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


@pytest.mark.parametrize("lock_fs", [True, False])
def test_a_suspend_with_lock_fs_leaves_no_log_to_replay(rig: Rig, lock_fs: bool) -> None:
    """The image under a suspended device has a clean ext4 if the file system was locked, and only then."""
    target = rig.mounted()
    (target / "file").write_bytes(b"x" * MIB)
    rig.kernel.syncfs(target)

    rig.mapper.suspend("sluice-test", lock_fs=lock_fs)

    dirty = needs_recovery(rig.folder / "sluice-test")
    rig.mapper.resume("sluice-test")
    assert dirty is not lock_fs


def test_a_cut_inside_frozen_has_everything_that_was_written_before(rig: Rig) -> None:
    """A copy of the image made inside `frozen` is clean, and has data that nobody had synced."""
    target = rig.mounted()
    (target / "file").write_bytes(b"x" * MIB)

    with rig.freezer.frozen(target, "sluice-test"):
        copy = rig.folder / "copy"
        copy.write_bytes((rig.folder / "sluice-test").read_bytes())

    device = rig.loops.attach(copy, sector_size=4096, deadline=soon())
    at = rig.folder / "at-copy"
    at.mkdir()
    assert not needs_recovery(copy)
    rig.mounts.mount(device.path, at, "ext4", ["ro"])
    assert (at / "file").read_bytes() == b"x" * MIB


def test_writers_wait_while_frozen_and_go_on_after(rig: Rig) -> None:
    """A write that comes during the freeze ends after it."""
    target = rig.mounted()
    with ThreadPoolExecutor(1) as pool:
        with rig.freezer.frozen(target, "sluice-test"):
            writing = pool.submit((target / "file").write_bytes, b"x")
            time.sleep(0.3)
            done_inside = writing.done()
        writing.result(10)

    assert not done_inside


DIE_INSIDE = """
import os, signal, sys
from pathlib import Path
from csi_driver.host.dm import DeviceMapper
from csi_driver.host.freeze import DeadMan, Freezer
from csi_driver.host.syscalls import Kernel
kernel = Kernel()
freezer = Freezer(kernel, DeviceMapper(kernel), DeadMan())
with freezer.frozen(Path(sys.argv[1]), sys.argv[2] or None):
    print("inside", flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("name", ["sluice-test", ""])
def test_a_dead_man_lets_go_when_we_die_inside(rig: Rig, name: str) -> None:
    """After SIGKILL to the process that froze it, a volume can be written again within 10 s, by dm and by FITHAW."""
    target = rig.mounted()
    command = [sys.executable, "-c", DIE_INSIDE, str(target), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": str(REPO)}) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"inside\n"
        suspended_inside = is_suspended(rig)
        started = time.monotonic()
        child.send_signal(signal.SIGKILL)
    wait_for("the volume can be written", lambda: not is_suspended(rig), Deadline(15))
    (target / "file").write_bytes(b"x")
    took = time.monotonic() - started

    assert suspended_inside is bool(name)
    assert took < 10


def test_a_freeze_that_lasts_too_long_is_ended_and_said(rig: Rig) -> None:
    """The dead man undoes a freeze at its limit, and `frozen` raises, so that the cut is thrown away."""
    target = rig.mounted()
    dead_man = DeadMan(limit=0.5)
    freezer = Freezer(rig.kernel, rig.mapper, dead_man)

    def cut_slowly() -> None:
        with freezer.frozen(target, "sluice-test"):
            wait_for("the dead man resumes", lambda: not is_suspended(rig), Deadline(5))

    with pytest.raises(Unready, match=r"more than 0\.5 s"):
        cut_slowly()
    dead_man.close()


def test_an_error_inside_resumes_and_comes_through(rig: Rig) -> None:
    """What goes wrong during a cut reaches the caller, and the volume goes on."""
    target = rig.mounted()

    with pytest.raises(ZeroDivisionError), rig.freezer.frozen(target, "sluice-test"):
        raise ZeroDivisionError

    assert not is_suspended(rig)


def test_an_administrators_freeze_outlasts_our_cut(rig: Rig) -> None:
    """A file system that somebody else froze can be cut by suspending, and stays frozen afterwards."""
    target = rig.mounted()
    fd = os.open(target, os.O_RDONLY)
    rig.kernel.ioctl(fd, FIFREEZE)
    try:
        with rig.freezer.frozen(target, "sluice-test"):
            pass
        with pytest.raises(OSError, match="FIFREEZE"):
            rig.kernel.ioctl(fd, FIFREEZE)
    finally:
        rig.kernel.ioctl(fd, FITHAW)
        os.close(fd)


def test_a_device_that_somebody_else_suspended_is_busy(rig: Rig) -> None:
    """Another's suspend is not taken for ours: it may not have locked the file system, and isn't ours to end."""
    target = rig.mounted()
    rig.mapper.suspend("sluice-test")

    with pytest.raises(Busy), rig.freezer.frozen(target, "sluice-test"):
        pass

    assert is_suspended(rig)


def test_a_device_without_a_file_system_is_held_still(rig: Rig) -> None:
    """A raw volume is cut by suspending alone."""
    rig.mapped()

    with rig.freezer.frozen(None, "sluice-test"):
        inside = is_suspended(rig)

    assert inside
    assert not is_suspended(rig)


def test_a_start_resumes_what_was_left_suspended(rig: Rig) -> None:
    """Every suspended device of ours is resumed, and the others are left alone."""
    rig.mapped("sluice-a")
    rig.mapped("sluice-b")
    rig.mapper.suspend("sluice-b")

    assert rig.freezer.resume_all() == ("sluice-b",)
    assert not is_suspended(rig, "sluice-b")


def test_removing_fifty_times_beside_udev_leaves_nothing(rig: Rig) -> None:
    """A removal waits for udev, which opens new devices when it likes, and is done when it returns."""
    below = rig.loop()
    slowest = 0.0
    for _ in range(50):
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
        for turn in range(6):
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
