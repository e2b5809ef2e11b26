"""What tenants may write to raw volumes: bytes that LVM, md and btrfs act on, were it a disk of the host's."""

from __future__ import annotations

import contextlib
import os
import struct
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kernel.node import MIB, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 128 * MIB
GROUP = "tenant"
LVM_STATE = Path("/run/lvm")
MD_MAGIC, MD_PLACE = 0xA92B4EFC, 4096


TOLD_BY_CONTENT = {"by-uuid", "by-label", "by-partuuid", "by-partlabel", "by-id"}
"""The names that follow from what stands on a device."""


def lvm(image: Path) -> None:
    """Make a volume group with a logical volume that wants to be activated wherever it is seen."""
    device = run("losetup", "--find", "--show", image).strip()
    try:
        run("pvcreate", "-q", "-y", device)
        run("vgcreate", "-q", "-y", GROUP, device)
        run("lvcreate", "-q", "-y", "-an", "-Zn", "-l4", "-nlv", GROUP)
    finally:
        run("losetup", "--detach", device)


def md(image: Path) -> None:
    """Make the one member of a RAID 1, by its superblock of format 1.2 (linux/raid/md_p.h)."""
    sectors = SIZE // 512
    data_start, size = 2048, sectors - 2048
    array = struct.pack("<IIII16s32sQIIQII", MD_MAGIC, 1, 0, 0, uuid.uuid4().bytes, b"tenant:0", 0, 1, 0, size, 0, 1)
    array += bytes(32)  # no bitmap, no reshape
    device = struct.pack("<QQQQII16sBBHI", data_start, size, MD_PLACE // 512, 0, 0, 0, uuid.uuid4().bytes, 0, 0, 0, 0)
    state = struct.pack("<QQQII32x", 0, 1, 2**64 - 1, 0, 1)
    superblock = bytearray(array + device + state + struct.pack("<H", 0))
    superblock += bytes(-len(superblock) % 4)
    total = sum(struct.unpack(f"<{len(superblock) // 4}I", superblock))
    struct.pack_into("<I", superblock, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
    with image.open("r+b") as file:
        file.seek(MD_PLACE)
        file.write(superblock)


def btrfs(image: Path) -> None:
    """Make the first of two devices of a btrfs: the kernel remembers it, waiting for the other one."""
    other = image.with_suffix(".other")
    with other.open("wb") as file:
        file.truncate(SIZE)
    run("mkfs.btrfs", "-q", "-f", "-d", "single", "-m", "single", image, other)
    other.unlink()


MAKERS: dict[str, Callable[[Path], None]] = {"LVM2_member": lvm, "linux_raid_member": md, "btrfs": btrfs}
"""By the name that libblkid has for it."""


def make(kind: str, folder: Path) -> Path:
    """Make such bytes in a file. udev doesn't get to see them meanwhile, so nothing of them is known on the host."""
    image = folder / f"{kind}.disk"
    with image.open("wb") as file:
        file.truncate(SIZE)
    run("udevadm", "control", "--stop-exec-queue")
    try:
        MAKERS[kind](image)
    finally:
        run("udevadm", "control", "--start-exec-queue")
    run("udevadm", "settle")
    return image


@contextlib.contextmanager
def disk_of_the_host(image: Path) -> Iterator[str]:
    """Make a disk of a file while the body runs; then take it away, with all that the host made of it."""
    device = run("losetup", "--find", "--show", image).strip()
    try:
        yield device
    finally:
        run("udevadm", "settle")
        if Path(f"/dev/{GROUP}").exists():
            run("vgchange", "-q", "-an", GROUP)
        run("losetup", "--detach", device)
        run("udevadm", "settle")
        # As after a boot: LVM and btrfs remember which devices they have seen.
        for path in LVM_STATE.glob("*s_*/*"):
            path.unlink()
        run("btrfs", "device", "scan", "--forget")
        run("dmesg", "--clear")


def copy(image: Path, device: Path) -> None:
    """Write what is in a file to a device, as a pod would."""
    source, target = os.open(image, os.O_RDONLY), os.open(device, os.O_WRONLY)
    try:
        at = 0
        while (at := _data(source, at)) >= 0:
            piece = os.pread(source, MIB, at)
            os.pwrite(target, piece, at)
            at += len(piece)
        os.fsync(target)
    finally:
        os.close(source)
        os.close(target)


def _data(fd: int, at: int) -> int:
    """Return where data begins at or behind an offset, in whole blocks; -1 when there is nothing but a hole."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError:  # ENXIO
        return -1


def below(mapped: Path) -> Path:
    """Return the device that a mapped device stands on."""
    (slave,) = (Path("/sys/block") / mapped.name / "slaves").iterdir()
    return Path("/dev") / slave.name


def acted_on(device: str) -> set[str]:
    """Return what the host has done about a device: what udev found on it, names for it, and who holds it."""
    name = Path(device).name
    found = {
        line for line in run("udevadm", "info", "-q", "property", device).splitlines() if line.startswith("ID_FS_")
    }
    links = (path for folder in Path("/dev/disk").glob("by-*") for path in folder.iterdir())
    found |= {str(path) for path in links if path.resolve().name == name and path.parent.name in TOLD_BY_CONTENT}
    holders = (Path("/sys/block") / name / "holders").iterdir()
    found |= {f"held by {_mapped(holder.name)}" for holder in holders}
    return found | {line for line in run("dmesg").splitlines() if "BTRFS" in line and f"{device} " in line}


def _mapped(name: str) -> str:
    path = Path("/sys/block") / name / "dm/name"
    return path.read_text().strip() if path.exists() else name
