"""Freezing by device-mapper. Needs a kernel with device-mapper: the VM."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Busy, Unready
from csi_driver.host.freeze import DeadMan, Freezer
from csi_driver.host.syscalls import FIFREEZE, FITHAW
from tests.kernel.mapping.rig import MIB, Rig, is_suspended, soon

pytestmark = pytest.mark.kernel

REPO = Path(__file__).parents[3]


def needs_recovery(image: Path) -> bool:
    """Return whether an ext4 image has a log to replay (s_feature_incompat, bit 2)."""
    with image.open("rb") as file:
        superblock = os.pread(file.fileno(), 1024, 1024)
    return bool(struct.unpack_from("<I", superblock, 0x60)[0] & 4)


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
