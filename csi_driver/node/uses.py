"""How callers mean to use a volume, and what they are told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_driver.errors import Invalid, NotFound
from csi_driver.host.mountinfo import real_target
from csi_driver.ids import is_id
from csi_driver.parameters import SMALLEST, check_mount_options

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.host.filesystem import Usage
    from csi_driver.records import Volume


@dataclass(frozen=True, slots=True)
class Use:
    """Say how a caller means to use a volume. `shared`: by several pods of this node at once."""

    block: bool = False
    fs_type: str = ""
    mount_flags: tuple[str, ...] = ()
    read_only: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """Hold what a published volume uses. `usage` is None for a raw block volume, of which only `size` is known."""

    size: int
    usage: Usage | None
    abnormal: str


def fs_type_for(record: Volume, use: Use) -> str:
    """Return the file system that a volume has, or is to get, when it is used so. Raises Invalid."""
    done = record.status.history.format_done
    fs_type = use.fs_type or done or record.spec.file_system.type
    if not use.block and done and fs_type != done:
        raise Invalid(f"fs_type: volume {record.id} holds {done}, not {fs_type}, and is never formatted again")
    size = record.status.history.size
    if not use.block and not done and size < SMALLEST.get(fs_type, 0):
        raise Invalid(f"fs_type: volume {record.id} has {size} bytes, too few for {fs_type}: {SMALLEST[fs_type]}")
    check_mount_options(fs_type, use.mount_flags, "mount_flags")
    return fs_type


def place(path: Path, field: str) -> Path:
    """Return a path as the kernel shows it: links in its folders followed. Raises Invalid, naming the field."""
    try:
        return real_target(path)
    except Invalid as error:
        raise Invalid(f"{field}: {error}") from error


def known_id(volume_id: str) -> str:
    """Return the id. Raises NotFound for anything that isn't one: no volume can have it."""
    if not is_id(volume_id):
        raise NotFound(f"volume_id: there is no volume {volume_id[:128]!r}")
    return volume_id
