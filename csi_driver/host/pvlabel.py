"""LVM's marks on a disk: which devices are physical volumes, and whether a volume group changed, without a program.

What is read (LVM2's text format, lib/format_text/layout.h): one of the first four sectors holds the label, "LABELONE";
behind it are the PV's UUID and the place of the metadata areas. An area begins with a header of one sector, and each
commit of the group writes it anew, with the place, length and checksum of the newest metadata. So two equal headers say
that nobody, we or an administrator, changed the group in between.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from csi_driver.host.block import DEV, SECTOR, SYS
from csi_driver.host.refusals import as_unready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LABEL_SECTORS = 4
LABEL = struct.Struct("<8sQII8s")  # LABELONE, its own sector, checksum, offset of what follows, "LVM2 001"
PV = struct.Struct("<32sQ")  # the PV's UUID without dashes, the device's bytes
AREA = struct.Struct("<QQ")  # offset and bytes; two lists, of data and of metadata, each ended by zeros
METADATA_MAGIC = b" LVM2 x[5A%r0N*>"
MAGIC_AT = 4  # behind the header's checksum
OURS = ("LVM-", "SLUICE-")
"""Mapped devices that carry volumes: what stands on them is the pods'."""
PASSED_OVER = ("ram", "zram", "loop", "sr", "fd")
"""Where no pool is looked for."""


def physical_volumes(sys: Path = SYS, dev: Path = DEV) -> tuple[Path, ...]:
    """Return the devices of this machine that have LVM's label. Logical volumes, and volumes of ours, aren't read."""
    return tuple(path for path in sorted(_candidates(sys, dev)) if _is_labelled(path))


def state(path: Path) -> bytes:
    """Return the header of a PV's metadata, equal as long as nobody changed its group. Raises Unready."""
    with as_unready(f"physical volume {path}"):
        fd = os.open(path, os.O_RDONLY)
        try:
            sectors = os.pread(fd, LABEL_SECTORS * SECTOR, 0)
            for offset in _metadata_areas(sectors):
                header = os.pread(fd, SECTOR, offset)
                if header[MAGIC_AT : MAGIC_AT + len(METADATA_MAGIC)] == METADATA_MAGIC:
                    return header
        finally:
            os.close(fd)
    return b""


def _candidates(sys: Path, dev: Path) -> Iterator[Path]:
    for disk in (sys / "block").iterdir():
        try:
            uuid = (disk / "dm/uuid").read_text()
        except OSError:
            uuid = ""
        if uuid.startswith(OURS) or disk.name.startswith(PASSED_OVER):
            continue
        if (disk / "size").read_text().strip() != "0":
            yield dev / disk.name
            yield from (dev / part.parent.name for part in disk.glob("*/partition"))


def _is_labelled(path: Path) -> bool:
    """Return whether a device has the label; one that can't be read has none that could be used."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return _label(os.pread(fd, LABEL_SECTORS * SECTOR, 0)) is not None
        finally:
            os.close(fd)
    except OSError:
        return False


def _label(sectors: bytes) -> int | None:
    """Return where the PV's description begins, None without a label."""
    for start in range(0, len(sectors) - SECTOR + 1, SECTOR):
        magic, _, _, offset, kind = LABEL.unpack_from(sectors, start)
        if magic == b"LABELONE" and kind == b"LVM2 001":
            return start + int(offset)
    return None


def _metadata_areas(sectors: bytes) -> Iterator[int]:
    start = _label(sectors)
    if start is None:
        return
    at, lists = start + PV.size, 0
    while lists < 2 and at + AREA.size <= len(sectors):  # noqa: PLR2004 - the areas of data, then those of metadata
        offset, _ = AREA.unpack_from(sectors, at)
        at += AREA.size
        if not offset:
            lists += 1
        elif lists == 1:
            yield offset
