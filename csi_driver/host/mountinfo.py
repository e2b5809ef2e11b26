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
_MOUNT_ID = re.compile(rb"^mnt_id:\s*(\d+)", re.MULTILINE)
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
    yield from map(parse_line, _read(MOUNTINFO).splitlines())


def of(*devs: DevNo) -> tuple[Mount, ...]:
    """Return the mounts of these devices' file systems, of each in the kernel's order. Raises Unready."""
    data = _read(MOUNTINFO)
    return tuple(parse_line(line) for dev in devs for line in _lines_of(data, str(dev).encode()))


def _lines_of(data: bytes, number: bytes) -> Iterator[bytes]:
    """Yield a device's lines, without a look at the others."""
    start = 0
    # A path can't contain the number between spaces, since its own spaces are escaped.
    while (found := data.find(b" %b " % number, start)) >= 0:
        end = data.index(b"\n", found)
        line = data[data.rfind(b"\n", 0, found) + 1 : end]
        if line.split(b" ", _DEV + 1)[_DEV] == number:
            yield line
        start = end


def at(target: Path) -> Mount | None:
    """Return the topmost mount exactly at this path, None if there is none. Raises Invalid for a symbolic link."""
    place = real_target(target)
    number = _own_mount(place)
    found = None if number is None else _by_id(number)
    return found if found and found.target == place else None


def mounted(place: Path) -> bool:
    """Return whether something is mounted at exactly this path, which real_target() gave. Reads no list of mounts."""
    return _own_mount(place) is not None


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
        found = _MOUNT_ID.search(_read(f"/proc/self/fdinfo/{fd}"))
    finally:
        os.close(fd)
    return int(found[1]) if found else None


def _own_mount(place: Path) -> int | None:
    """Return the id of the mount whose root a path is, None if it is none."""
    number = mount_id(place)
    return None if number is None or number == mount_id(place.parent) else number


def _by_id(number: int) -> Mount | None:
    data = b"\n" + _read(MOUNTINFO)
    start = data.find(b"\n%d " % number)
    if start < 0:
        return None
    return parse_line(data[start + 1 : data.index(b"\n", start + 1)])


def _read(path: Path | str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - half of what Path.read_bytes costs, several a call
            return file.read()
    except OSError as error:
        raise Unready(f"{path} can't be read: {error.strerror}") from error
