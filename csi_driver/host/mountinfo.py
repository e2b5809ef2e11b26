"""What is mounted where: /proc/self/mountinfo as values (Documentation/filesystems/proc.rst, section 3.5).

With ten thousand mounts the file has megabytes. So `at` asks the path itself for the number of its mount, reads the
file only if something is mounted there, and parses one line of it.

A btrfs has a number of its own, since it may have several devices. Here its mounts have that of the device they were
made from, which their source names.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.errors import Invalid, NotFound, Unready
from csi_driver.host import block
from csi_driver.host.statx import root_of
from qos.limits import DevNo

if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNTINFO = Path("/proc/self/mountinfo")
# The kernel writes space, tab, newline, backslash and, as a first letter, '#' as three octal digits.
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_MOUNT_ID = re.compile(rb"^mnt_id:\s*(\d+)", re.MULTILINE)
_ID, _PARENT, _DEV, _ROOT, _TARGET, _OPTIONS, _TAGS = range(7)
BTRFS = "btrfs"


@dataclass(frozen=True, slots=True)
class Mount:
    """Hold one mount. `propagation` has tags such as shared:5; it is empty for a private mount."""

    id: int
    parent: int
    dev: DevNo
    root: str
    target: Path
    fstype: str
    source: str
    options: frozenset[str]
    super_options: frozenset[str]
    propagation: tuple[str, ...]


def is_read_only(mount: Mount) -> bool:
    """Return whether writes through this mount fail, by the mount's own word or its file system's."""
    return "ro" in mount.options or "ro" in mount.super_options


def parse_line(line: bytes) -> Mount:
    """Turn a line of mountinfo into a Mount. Raises ValueError if it isn't one."""
    # Not split(): a source may be empty, which shows as two spaces.
    fields = line.split(b" ")
    separator = fields.index(b"-", _TAGS)
    fstype, source, super_options = fields[separator + 1 : separator + 4]
    return Mount(
        id=int(fields[_ID]),
        parent=int(fields[_PARENT]),
        dev=DevNo.parse(fields[_DEV].decode()),
        root=unescape(fields[_ROOT]),
        target=Path(unescape(fields[_TARGET])),
        fstype=unescape(fstype),
        source=unescape(source),
        options=frozenset(unescape(fields[_OPTIONS]).split(",")),
        super_options=frozenset(unescape(super_options).split(",")),
        propagation=tuple(tag.decode() for tag in fields[_TAGS:separator]),
    )


def unescape(field: bytes) -> str:
    """Undo the octal escapes. Bytes that aren't UTF-8 become surrogates, as in every path that Python gives."""
    if b"\\" not in field:
        return os.fsdecode(field)
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def all_mounts() -> Iterator[Mount]:
    """Yield every mount of this mount namespace, in the kernel's order. Raises Unready."""
    yield from (_with_device(parse_line(line)) for line in _read(MOUNTINFO).splitlines())


def of(*devs: DevNo) -> tuple[Mount, ...]:
    """Return the mounts of these devices' file systems, of each in the kernel's order. Raises Unready."""
    data = _read(MOUNTINFO)
    of_btrfs = [_with_device(parse_line(line)) for line in _lines_with(data, b" - btrfs ")]
    found: list[Mount] = []
    for dev in devs:
        found += [parse_line(line) for line in _lines_of(data, str(dev).encode())]
        found += [mount for mount in of_btrfs if mount.dev == dev]
    return tuple(found)


def of_descriptor(fd: int) -> Mount | None:
    """Return the mount that an open file is on, None if it isn't in this mount namespace. Raises Unready."""
    number = _number_of(fd)
    return None if number is None else _by_id(number)


def _lines_of(data: bytes, number: bytes) -> Iterator[bytes]:
    """Yield a device's lines, without a look at the others."""
    for line in _lines_with(data, b" %b " % number):
        if line.split(b" ", _DEV + 1)[_DEV] == number:
            yield line


def _lines_with(data: bytes, words: bytes) -> Iterator[bytes]:
    """Yield the lines with these words. A path can't have them, since its own spaces are escaped."""
    start = 0
    while (found := data.find(words, start)) >= 0:
        end = data.index(b"\n", found)
        yield data[data.rfind(b"\n", 0, found) + 1 : end]
        start = end


def _with_device(mount: Mount) -> Mount:
    """Return a mount of a btrfs with the number of its device, any other as it is.

    Who has its device renamed by a scan could let the source be any path: none but those in /dev is looked at.
    """
    if mount.fstype != BTRFS or not mount.source.startswith("/dev/"):
        return mount
    try:
        return replace(mount, dev=block.device_at(Path(mount.source)).dev)
    except (NotFound, Invalid):
        return mount


def at(target: Path) -> Mount | None:
    """Return the topmost mount exactly at this path, None if there is none. Raises Invalid for a symbolic link."""
    return topmost(real_target(target))


def topmost(place: Path) -> Mount | None:
    """Return the topmost mount exactly at this path, which real_target() gave; None if there is none."""
    number = own_mount(place)
    found = None if number is None else _by_id(number)
    return found if found and found.target == place else None


def mounted(place: Path) -> bool:
    """Return whether something is mounted at exactly this path, which real_target() gave. Reads no list of mounts."""
    return own_mount(place) is not None


def own_mount(place: Path) -> int | None:
    """Return the id of the mount whose root a path is, None if it is none.

    A file system that has stopped answers nothing, and must be found and unmounted all the same: then the descriptors
    of the path and of its folder are asked. O_PATH opens nothing of it.
    """
    try:
        return root_of(place)
    except OSError:
        number = _mount_id(place)
        return None if number == _mount_id(place.parent) else number


def _mount_id(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return _number_of(fd)
    finally:
        os.close(fd)


def real_target(target: Path) -> Path:
    """Return an absolute path, links in its folders followed. Raises Invalid if its last part is a link or `..`."""
    if target.name in {"", ".."} or not target.is_absolute():
        raise Invalid(f"{target} can't be a mount point: give an absolute path with a name at its end")
    place = Path(_resolved(target.parent), target.name)
    with contextlib.suppress(OSError):  # it is none, or isn't there; a look at it would fail where a disk did
        place.readlink()
        raise Invalid(f"{target} is a symbolic link; mounts are neither made nor removed through one")
    return place


def _resolved(folder: Path) -> str:
    """Return a folder's path as the kernel shows it, which saves a look at each of its parts. O_PATH opens nothing."""
    try:
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except OSError:  # of a path that isn't there, as much as is
        return os.path.realpath(folder)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - a Path costs as much as the call
    finally:
        os.close(fd)


def _number_of(fd: int) -> int | None:
    found = _MOUNT_ID.search(_read(f"/proc/self/fdinfo/{fd}"))
    return int(found[1]) if found else None


def _by_id(number: int) -> Mount | None:
    data = b"\n" + _read(MOUNTINFO)
    start = data.find(b"\n%d " % number)
    if start < 0:
        return None
    return _with_device(parse_line(data[start + 1 : data.index(b"\n", start + 1)]))


def _read(path: Path | str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - half of what Path.read_bytes costs, several a call
            return file.read()
    except OSError as error:
        raise Unready(f"{path} can't be read: {error.strerror}") from error
