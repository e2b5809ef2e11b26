"""Facts about this machine, found by trying rather than by asking for versions. `sluice doctor` prints them."""

from __future__ import annotations

import errno
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.errors import StorageError
from csi_driver.host import mountinfo
from csi_driver.host.run import PACKAGES
from csi_driver.host.syscalls import FICLONE

if TYPE_CHECKING:
    from csi_driver.deadline import Deadline
    from csi_driver.host.dm import DeviceMapper
    from csi_driver.host.run import Runner
    from csi_driver.host.syscalls import Kernel

CGROUP = Path("/sys/fs/cgroup")
# How each program tells its version; some say it on stderr.
VERSION_OPTION = {
    "mkfs.ext4": "-V",
    "e2fsck": "-V",
    "mkfs.xfs": "-V",
    "xfs_repair": "-V",
    "lvm": "version",
    "nvme": "version",
    "thin_check": "-V",
}
# resize2fs knows no option for its version: without arguments it says it, and fails.
WITHOUT_OPTION = frozenset({"resize2fs"})


@dataclass(frozen=True, slots=True)
class Fact:
    """Hold whether something works here, and the reason or the version."""

    name: str
    holds: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Program:
    """Hold a program's path and version, both empty if it is missing, and the Debian package to install."""

    name: str
    path: str
    version: str
    package: str


def kernel_release() -> str:
    """Return the kernel's release, such as 6.12.48+deb13-cloud-amd64."""
    return platform.release()


def device_mapper(mapper: DeviceMapper) -> Fact:
    """Return whether this kernel has device-mapper."""
    reason = mapper.why_not()
    return Fact("device-mapper", reason is None, reason or "its control device answers")


def loop_devices() -> Fact:
    """Return whether loop devices can be made."""
    try:
        os.close(os.open("/dev/loop-control", os.O_RDWR))
    except OSError as error:
        return Fact("loop devices", holds=False, detail=f"/dev/loop-control: {error.strerror}; try modprobe loop")
    return Fact("loop devices", holds=True, detail="/dev/loop-control can be opened")


def cgroup_io(root: Path = CGROUP) -> Fact:
    """Return whether the io controller of cgroup v2 is there."""
    try:
        controllers = (root / "cgroup.controllers").read_text().split()
    except OSError:
        return Fact(
            "cgroup v2 io", holds=False, detail=f"{root} is not a cgroup v2 tree: boot with the unified hierarchy"
        )
    has = "io" in controllers
    return Fact("cgroup v2 io", has, f"controllers: {' '.join(controllers)}")


def reflinks(kernel: Kernel, folder: Path) -> Fact:
    """Return whether files in a folder can share blocks (FICLONE), as snapshots of loop volumes need."""
    try:
        with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as clone:
            source.write(b"x" * 4096)
            source.flush()
            kernel.ioctl(clone.fileno(), FICLONE, source.fileno(), path=folder)
    except OSError as error:
        return Fact("reflinks", holds=False, detail=f"{folder}: {error.strerror}; xfs and btrfs have them")
    return Fact("reflinks", holds=True, detail=f"{folder}: files can share blocks")


def one_log(folder: Path) -> bool:
    """Return whether the file system has one log, which a flush of a folder writes out as far as that was changed.

    XFS says so (Documentation/filesystems/xfs: delayed logging): what is replayed after a power cut is a beginning of
    what was done. btrfs has a log for each flush, ext4 may have none.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mount = mountinfo.of_descriptor(fd)
    finally:
        os.close(fd)
    return mount is not None and mount.fstype == "xfs"


def extended_attributes(kernel: Kernel, folder: Path) -> Fact:
    """Return whether files in a folder can carry a passport of trusted and user attributes."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            kernel.setxattr(file.fileno(), "user.sluice.try", b"x")
    except OSError as error:
        hint = "this file system has none" if error.errno == errno.EOPNOTSUPP else str(error.strerror)
        return Fact("extended attributes", holds=False, detail=f"{folder}: {hint}")
    return Fact("extended attributes", holds=True, detail=f"{folder}: can be set")


def programs(runner: Runner, deadline: Deadline) -> tuple[Program, ...]:
    """Return every program that some feature needs, present or not."""
    return tuple(_program(runner, name, package, deadline) for name, package in sorted(PACKAGES.items()))


def _program(runner: Runner, name: str, package: str, deadline: Deadline) -> Program:
    try:
        path = runner.find(name)
    except StorageError:
        return Program(name, "", "", package)
    argv = [name] if name in WITHOUT_OPTION else [name, VERSION_OPTION.get(name, "--version")]
    try:
        output = runner.run(argv, deadline=deadline, accept=range(256))
    except StorageError as error:
        return Program(name, path, str(error), package)
    said = (output.stdout or output.stderr).strip().splitlines()
    return Program(name, path, said[0].strip() if said else "", package)
