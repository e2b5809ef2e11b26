"""What the kernel says of loop devices: which file is behind which, and whether it is going."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.errors import NotFound
from csi_driver.host import block
from csi_driver.host.block import Device, Inode, inode_of, loop_status
from csi_driver.host.syscalls import LO_FLAGS_AUTOCLEAR

if TYPE_CHECKING:
    from collections.abc import Iterator

DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Attached:
    """Hold a loop device and the file behind it. `image` is the name it had last; `deleted` says that it is gone."""

    device: Device
    inode: Inode
    image: Path
    deleted: bool


def bound() -> Iterator[tuple[str, Path]]:
    """Yield each loop device that has a file, by kernel name, with the file's last name."""
    for name in os.listdir("/sys/block"):  # noqa: PTH208 -- names are all that is wanted, of thousands of devices
        if name.startswith("loop"):
            try:
                text = (block.SYS / "block" / name / "loop/backing_file").read_bytes()
            except OSError:
                continue
            yield name, Path(os.fsdecode(text.removesuffix(b"\n")))


def attached(name: str, last_name: Path) -> Attached | None:
    """Return what a bound loop device has, None if it was freed meanwhile."""
    try:
        device = block.named(name)
        with opened(device, os.O_RDONLY) as fd:
            inode = loop_status(fd)[0]
    except (OSError, NotFound):
        return None
    # A file may really be called so; then its name leads to it.
    deleted = last_name.name.endswith(DELETED) and inode_if_there(last_name) != inode
    image = last_name.with_name(last_name.name.removesuffix(DELETED)) if deleted else last_name
    return Attached(device, inode, image, deleted)


def inode_if_there(path: Path) -> Inode | None:
    """Return the inode that a name leads to, None if it leads nowhere."""
    try:
        return inode_of(path)
    except OSError:
        return None


def backing(device: Device) -> str | None:
    """Return the name of the file behind a loop device, None if it has none."""
    try:
        return (block.sysfs(device.dev) / "loop/backing_file").read_text(errors="surrogateescape").rstrip("\n")
    except (OSError, NotFound):
        return None


def status(device: Device) -> tuple[Inode, int] | None:
    """Return the inode behind a loop device and its LO_FLAGS, None if it is free."""
    try:
        with opened(device, os.O_RDONLY) as fd:
            inode, _, _, flags = loop_status(fd)
    except OSError:
        return None
    return inode, flags


def has(device: Device, inode: Inode) -> bool:
    """Return whether a loop device has this very file."""
    found = status(device)
    return found is not None and found[0] == inode


def going(device: Device) -> bool:
    """Return whether the device frees itself at its last close: somebody's LOOP_CLR_FD came while it was open."""
    found = status(device)
    return found is not None and bool(found[1] & LO_FLAGS_AUTOCLEAR)


@contextlib.contextmanager
def opened(device: Device, flags: int) -> Iterator[int]:
    """Open a device while the body runs, without waiting for a medium. Raises OSError."""
    fd = os.open(device.path, flags | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)
