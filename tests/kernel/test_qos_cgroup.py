"""Limits on a real kernel: root, cgroup v2 with io, loop devices and device-mapper. Run by hack/vm."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qos.ancestor import find_ancestor
from qos.cgroup import CONTROLLERS, MOUNTPOINT, Cgroup, HelperCgroup
from qos.enforce import Enforcer
from qos.errors import DeviceGone, Unenforceable
from qos.iofiles import IoStat
from qos.limits import UNLIMITED, DevNo, Limits
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

MIB = 2**20
SLOW = Limits(rbps=8 * MIB, wbps=4 * MIB, riops=100, wiops=200)


def run(*argv: str) -> str:
    """Run a program and return what it says; its complaint is the test's."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout.strip()


def number(path: str) -> DevNo:
    """Return the number of a device node."""
    rdev = os.stat(path).st_rdev  # noqa: PTH116 - the string came from a program
    return DevNo(os.major(rdev), os.minor(rdev))


@pytest.fixture(autouse=True)
def _machine() -> None:
    """Say why where these tests can't run."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    controllers = MOUNTPOINT / "cgroup.controllers"
    if not controllers.exists() or not set(CONTROLLERS) <= set(controllers.read_text().split()):
        pytest.skip("needs cgroup v2 with io and memory")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """Attach a loop device to a file of 64 MiB."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    path = run("losetup", "--find", "--show", str(image))
    yield path
    run("losetup", "--detach", path)


@pytest.fixture(params=pick(["dm"], ["loop", "dm"]))
def device(request: pytest.FixtureRequest, loop: str) -> Iterator[DevNo]:
    """Give a loop device, then a dm-linear on one."""
    if request.param == "loop":
        yield number(loop)
        return
    run("dmsetup", "create", "sluice-test", "--table", f"0 {64 * MIB // 512} linear {loop} 0")
    yield number("/dev/mapper/sluice-test")
    with suppress(AssertionError):  # a test may have removed it
        run("dmsetup", "remove", "--retry", "sluice-test")


on_dm = pytest.mark.parametrize("device", ["dm"], indirect=True)
"""For what is about systemd, which takes seconds, and the same on every device."""


@pytest.fixture
def ancestor() -> Iterator[Cgroup]:
    """Give a cgroup of the test's own, two levels down so that io can be taken from it alone."""
    path = MOUNTPOINT / "sluice-test" / "ancestor"
    path.mkdir(parents=True)
    yield find_ancestor("sluice-test/ancestor")
    with suppress(FileNotFoundError):
        path.rmdir()
    path.parent.rmdir()


@pytest.fixture
def enforcer(ancestor: Cgroup) -> Enforcer:
    return Enforcer(ancestor)


def test_the_kernel_shows_what_was_written_and_lift_takes_it_off(enforcer: Enforcer, device: DevNo) -> None:
    """Set, changed, without limits, set again, lifted: no key of an older line remains."""
    for limits in (SLOW, Limits(riops=7), UNLIMITED, Limits(wbps=2**40, rbps=2)):
        assert enforcer.apply(device, limits) == limits

    enforcer.lift(device)

    assert device not in enforcer.seen()


def test_drift_is_repaired_within_one_pass(enforcer: Enforcer, ancestor: Cgroup, device: DevNo) -> None:
    """Whoever writes behind our back is found by one look."""
    enforcer.apply(device, SLOW)
    (ancestor.path / "io.max").write_text(f"{device} riops=max wbps=123456")

    assert enforcer.reconcile() == 1
    assert enforcer.seen() == {device: SLOW}
    assert enforcer.reconcile() == 0


def test_io_taken_from_the_ancestor_comes_back_with_its_limits(
    enforcer: Enforcer, ancestor: Cgroup, device: DevNo
) -> None:
    """-io on a parent loses every line without a word."""
    enforcer.apply(device, SLOW)
    (ancestor.path.parent / "cgroup.subtree_control").write_text("-io")
    assert not ancestor.has_io()

    assert enforcer.reconcile() == 1
    assert enforcer.seen() == {device: SLOW}


def test_an_ancestor_that_is_gone_is_loud(enforcer: Enforcer, ancestor: Cgroup, device: DevNo) -> None:
    """A cgroup that was named by the operator is not ours to make."""
    enforcer.apply(device, SLOW)
    ancestor.path.rmdir()

    assert enforcer.reconcile() == 0
    assert enforcer.failures == 1
    enforcer.lift(device)


@pytest.mark.parametrize("value", [0, 1])
def test_what_the_kernel_refuses_is_refused_by_us_before(ancestor: Cgroup, device: DevNo, value: int) -> None:
    """Both agree that 0 and 1 are no limits."""
    with pytest.raises(ValueError, match=f"riops={value} "):
        Limits(riops=value)

    with pytest.raises(OSError, match=r"Invalid argument|Numerical result"):
        (ancestor.path / "io.max").write_text(f"{device} riops={value}")


def test_the_kernel_still_takes_one_device_per_write(ancestor: Cgroup, device: DevNo) -> None:
    """Two lines in one write are refused as a whole, which is why each device has its own."""
    with pytest.raises(OSError, match="Invalid argument"):
        (ancestor.path / "io.max").write_text(f"{device} riops=100\n{device} wiops=100\n")

    assert device not in ancestor.read_limits()


def test_the_largest_limits_are_shown_as_they_are(ancestor: Cgroup, device: DevNo) -> None:
    """One more, and the kernel would show max."""
    largest = Limits(rbps=2**64 - 2, riops=2**32 - 2)

    assert ancestor.write_limits(device, largest) == largest
    ancestor.clear(device)


def test_a_device_that_went_is_forgotten(enforcer: Enforcer, loop: str) -> None:
    """Its line went with it; to write another would meet the number's next owner."""
    run("dmsetup", "create", "sluice-test", "--table", f"0 2048 linear {loop} 0")
    device = number("/dev/mapper/sluice-test")
    enforcer.apply(device, SLOW)
    run("dmsetup", "remove", "--retry", "sluice-test")

    assert device not in enforcer.seen()
    assert enforcer.reconcile() == 0
    assert enforcer.wanted() == {}
    enforcer.lift(device)


@pytest.fixture
def partition(tmp_path: Path) -> Iterator[DevNo]:
    """Give the only partition of a disk: an entry of type 83 from sector 2048, and the mark of a table (MBR)."""
    image = tmp_path / "partitioned"
    table = struct.pack("<446xB3xB3xII", 0, 0x83, 2048, 4096)
    image.write_bytes(table.ljust(510, b"\0") + b"\x55\xaa")
    os.truncate(image, 8 * MIB)
    disk = Path(run("losetup", "--find", "--show", "--partscan", str(image)))
    run("udevadm", "settle")  # udev reads the table once more, and the partition is gone for a moment
    yield DevNo.parse((Path("/sys/block") / disk.name / f"{disk.name}p1" / "dev").read_text().strip())
    run("losetup", "--detach", str(disk))


def test_a_partition_can_not_be_limited(enforcer: Enforcer, partition: DevNo) -> None:
    """The message says what can."""
    with pytest.raises(DeviceGone, match="whole disk"):
        enforcer.apply(partition, SLOW)

    assert enforcer.wanted() == {}


@on_dm
def test_auto_starts_a_slice_whose_children_have_io_and_memory(device: DevNo) -> None:
    """Limits and controllers are there after systemd reads its units anew, and for each new unit in the slice."""
    slice_ = find_ancestor("auto")
    enforcer = Enforcer(slice_)
    enforcer.apply(device, SLOW)
    enabled = slice_.path / "cgroup.subtree_control"

    assert slice_.path == MOUNTPOINT / "sluice.slice"
    assert set(CONTROLLERS) <= set(enabled.read_text().split())

    run("systemctl", "daemon-reload")
    run("systemd-run", "--slice=sluice.slice", "--unit=sluice-test", "sleep", "60")
    run("systemctl", "daemon-reexec")

    child = (slice_.path / "sluice-test.service" / "cgroup.controllers").read_text().split()
    assert set(CONTROLLERS) <= set(child)
    assert enforcer.reconcile() == 0
    assert enforcer.seen() == {device: SLOW}

    run("systemctl", "stop", "sluice-test.service")
    assert enforcer.reconcile() == 0
    enforcer.lift(device)


@on_dm
def test_a_slice_that_was_stopped_is_started_again(device: DevNo) -> None:
    """It is ours: a pass brings it back, with its limits."""
    enforcer = Enforcer(find_ancestor("auto"))
    enforcer.apply(device, SLOW)
    run("systemctl", "stop", "sluice.slice")

    assert enforcer.reconcile() == 1
    assert enforcer.seen() == {device: SLOW}
    enforcer.lift(device)


def timed_write(dev: DevNo, *dd: str) -> tuple[float, int]:
    """Write in the slice under 4 MiB/s; return the seconds, and the bytes that the kernel counted for the slice."""
    slice_ = find_ancestor("auto")
    enforcer = Enforcer(slice_)
    enforcer.apply(dev, Limits(wbps=4 * MIB))
    before = slice_.io_stat().get(dev, IoStat())
    began = time.monotonic()
    run("systemd-run", "--wait", "--slice=sluice.slice", "dd", "if=/dev/zero", "bs=1M", "count=12", *dd)
    took = time.monotonic() - began
    enforcer.lift(dev)
    return took, slice_.io_stat()[dev].wbytes - before.wbytes


def test_a_direct_write_in_the_slice_keeps_to_its_limit(loop: str) -> None:
    """12 MiB at 4 MiB/s take three seconds, less the throttle's first slice."""
    took, written = timed_write(number(loop), f"of={loop}", "oflag=direct", "conv=nocreat")

    assert written >= 12 * MIB
    assert took >= 2.8


def test_a_buffered_write_in_the_slice_keeps_to_its_limit(loop: str, tmp_path: Path) -> None:
    """The kernel's writeback is charged to whom it writes for; that takes a file system and the memory controller."""
    run("mkfs.ext4", "-q", loop)
    mount = tmp_path / "mount"
    mount.mkdir()
    run("mount", loop, str(mount))
    try:
        took, written = timed_write(number(loop), f"of={mount}/file", "conv=fsync")
    finally:
        run("umount", str(mount))

    assert written >= 12 * MIB
    assert took >= 2.8


def test_a_helper_runs_outside_the_ancestor_with_limits_of_its_own(device: DevNo) -> None:
    """What makes a file system is not held to the volume's ceiling, but to the helpers'."""
    cgroup = Cgroup(MOUNTPOINT / "sluice-test-helpers")
    helper = HelperCgroup(cgroup)
    helper.ensure([device], SLOW)
    helper.ensure([device], SLOW)

    where = run(*helper.prefix(), "cat", "/proc/self/cgroup")
    limits = cgroup.read_limits()
    cgroup.clear(device)
    cgroup.path.rmdir()

    assert where == "0::/sluice-test-helpers"
    assert limits == {device: SLOW}
    with pytest.raises(Unenforceable, match="the cgroup is gone"):
        cgroup.read_limits()
