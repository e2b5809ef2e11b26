"""Which pool a folder is: a marker file of ours, and the UUID of the file system that it is on."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from csi_driver.errors import Foreign
from csi_driver.host.fsuuid import fs_uuid

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.host.syscalls import Kernel

MARKER = ".sluice-pool"


def claim(folder: Path, kernel: Kernel) -> None:
    """Make a new pool of a folder that holds nothing, or keep the marker that a cut start left. Raises Foreign."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    marker = folder / MARKER
    if marker.exists():
        return
    temporary = folder / (MARKER + ".new")
    if others := [entry.name for entry in folder.iterdir() if entry.name not in {"lost+found", temporary.name}]:
        raise Foreign(f"{folder} is no pool and holds {others[0]!r}: give an empty folder")
    fd = kernel.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        kernel.pwrite(fd, str(uuid.uuid4()).encode(), 0, path=temporary)
        kernel.fsync(fd, path=temporary)
    finally:
        os.close(fd)
    kernel.rename(temporary, marker)
    kernel.fsync_dir(folder)


def identity(folder: Path) -> str:
    """Return the identity of the pool in a folder, "" when it is none."""
    try:
        marker = (folder / MARKER).read_text().strip()
    except FileNotFoundError:
        return ""
    return f"{marker}@{fs_uuid(folder)}"


def same_pool(record: str, found: str) -> bool:
    """Compare identities: the marker always, the file system's UUID where the kernel told it both times."""
    marker, _, file_system = record.partition("@")
    found_marker, _, found_file_system = found.partition("@")
    return marker == found_marker and (file_system == found_file_system or not (file_system and found_file_system))
