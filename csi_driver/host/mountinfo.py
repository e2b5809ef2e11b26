"""What is mounted where: /proc/self/mountinfo as values (Documentation/filesystems/proc.rst, section 3.5).

With ten thousand mounts the file has megabytes. So `at` asks the path itself for the number of its mount, reads the
file only if something is mounted there, and parses one line of it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.errors import Invalid, Unready
from qos.limits import DevNo

if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNTINFO = Path("/proc/self/mountinfo")
# The kernel writes space, tab, newline, backslash and, as a first letter, '#' as three octal digits.
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_ID, _PARENT, _DEV, _ROOT, _TARGET, _OPTIONS, _TAGS = range(7)


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
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def all_mounts() -> Iterator[Mount]:
    """Yield every mount of this mount namespace, in the kernel's order. Raises Unready."""
    yield from map(parse_line, _read().splitlines())


def of(dev: DevNo) -> tuple[Mount, ...]:
    """Return the mounts of a device's file system. Raises Unready."""
    number = f" {dev} ".encode()
    # The cheap look first; a path can't contain the number between spaces, since its own spaces are escaped.
    return tuple(
        parse_line(line) for line in _read().splitlines() if number in line and line.split(b" ")[_DEV] in number
    )


def at(target: Path) -> Mount | None:
    """Return the topmost mount exactly at this path, None if there is none. Raises Invalid for a symbolic link."""
    place = real_target(target)
    number = mount_id(place)
    if number is None or number == mount_id(place.parent):
        return None
    found = _by_id(number)
    return found if found and found.target == place else None


def real_target(target: Path) -> Path:
    """Return an absolute path, links in its folders followed. Raises Invalid if its last part is a link or `..`."""
    if target.name in {"", ".."} or not target.is_absolute():
        raise Invalid(f"{target} can't be a mount point: give an absolute path with a name at its end")
    place = Path(os.path.realpath(target.parent)) / target.name
    if place.is_symlink():
        raise Invalid(f"{target} is a symbolic link; mounts are neither made nor removed through one")
    return place


def mount_id(path: Path) -> int | None:
    """Return the id of the mount that a path is on, None if the path isn't there.

    O_PATH opens nothing below the mount, so that a dead file system can't hang or fail it.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
            if line.startswith("mnt_id:"):
                return int(line.removeprefix("mnt_id:"))
    finally:
        os.close(fd)
    return None


def _by_id(number: int) -> Mount | None:
    data = b"\n" + _read()
    start = data.find(b"\n%d " % number)
    if start < 0:
        return None
    return parse_line(data[start + 1 : data.index(b"\n", start + 1)])


def _read() -> bytes:
    try:
        return MOUNTINFO.read_bytes()
    except OSError as error:
        raise Unready(f"{MOUNTINFO} can't be read: {error.strerror}") from error
