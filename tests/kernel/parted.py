"""The data disk in three parts, each as good as a disk, and the `sluice` command."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tests import warm
from tests.kernel.node import MIB, run

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 120
SECTOR = 512
LINUX = 0x83
SIZES = (1400 * MIB, 800 * MIB, 1000 * MIB)


def sluice(*words: str | Path, status: int = 0) -> tuple[str, str]:
    """Run a command of `sluice`, and return what it said on both channels."""
    argv = [sys.executable, "-m", "csi_driver", *map(str, words)]
    done = warm.run(argv, SECONDS)
    assert done.returncode == status, f"{argv} ended with status {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout, done.stderr


def sluice_json(*words: str | Path, status: int = 0) -> Any:  # noqa: ANN401 - JSON
    """Run a command of `sluice` and return the JSON that it printed."""
    return msgspec.json.decode(sluice(*words, "--json", status=status)[0])


@contextlib.contextmanager
def parts() -> Iterator[tuple[str, ...]]:
    """Give the data disk's parts while the body runs; then it is empty again."""
    disk = os.environ["SLUICE_DISK"]
    table, start = b"", MIB
    for size in SIZES:
        table += struct.pack("<8B2I", 0, 0, 0, 0, LINUX, 0, 0, 0, start // SECTOR, size // SECTOR)
        start += size
    _write(disk, bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa")
    try:
        run("blockdev", "--rereadpt", disk)
        run("udevadm", "settle")
        yield tuple(f"{disk}{number}" for number in range(1, len(SIZES) + 1))
    finally:
        _write(disk, bytes(MIB))
        run("udevadm", "settle")
        run("blockdev", "--rereadpt", disk)


def clean(*paths: str) -> None:
    """Let nothing stand at the ends of devices."""
    for path in paths:
        _write(path, bytes(MIB))
        with Path(path).open("r+b") as file:
            file.seek(-MIB, os.SEEK_END)
            file.write(bytes(MIB))


def _write(path: str, data: bytes) -> None:
    with Path(path).open("r+b", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
