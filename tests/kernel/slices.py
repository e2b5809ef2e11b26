"""Disks that can be taken away and made to fail: parts of the data disk, as mapped devices."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline, wait_for
from tests.kernel.node import MIB, run

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTORS_IN_MIB = 2048
FIRST_MIB = 1
"""Where the first slice begins: LVM's label on it is then none of the disk's own."""


class Slice:
    """A part of the data disk, as a disk."""

    def __init__(self, name: str, start: int, size: int) -> None:
        """Take where it begins and how large it is, in MiB."""
        self.name = name
        self.path = Path("/dev/mapper") / name
        self._start = start * SECTORS_IN_MIB
        self._sectors = size * SECTORS_IN_MIB

    def make(self) -> None:
        """Plug it in."""
        run("dmsetup", "create", self.name, "--table", self._well())
        run("udevadm", "settle")

    def remove(self) -> None:
        """Pull it out."""
        run("dmsetup", "remove", "--retry", self.name)

    def wipe(self) -> None:
        """Let it be empty."""
        run("wipefs", "--all", "--quiet", self.path)

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Let every write to it fail while the body runs."""
        disk = os.environ["SLUICE_DISK"]
        self._load(f"0 {self._sectors} flakey {disk} {self._start} 0 3600 1 error_writes")
        try:
            yield
        finally:
            self._load(self._well())

    @contextlib.contextmanager
    def slow(self, ms: int) -> Iterator[None]:
        """Let every write to it take so long while the body runs; zeroes have to be written then."""
        place = f"{os.environ['SLUICE_DISK']} {self._start}"
        self._load(f"0 {self._sectors} delay {place} 0 {place} {ms}")
        try:
            yield
        finally:
            self._load(self._well())

    @contextlib.contextmanager
    def without_node(self) -> Iterator[None]:
        """Let it have no node in /dev while the body runs, as a disk that was pulled out."""
        node = self.path.resolve()
        away = node.with_name(f"{node.name}.away")
        node.rename(away)
        try:
            yield
        finally:
            away.rename(node)

    def _well(self) -> str:
        return f"0 {self._sectors} linear {os.environ['SLUICE_DISK']} {self._start}"

    def _load(self, table: str) -> None:
        run("dmsetup", "load", self.name, "--table", table)
        run("dmsetup", "suspend", "--noflush", "--nolockfs", self.name)
        run("dmsetup", "resume", self.name)


@contextlib.contextmanager
def sliced(**sizes: int) -> Iterator[dict[str, Slice]]:
    """Give slices of these sizes in MiB, one behind the other."""
    slices, start = {}, FIRST_MIB
    for name, size in sizes.items():
        slices[name] = Slice(f"slice-{name}", start, size)
        start += size
    disk = Path(os.environ["SLUICE_DISK"]).resolve().name
    assert start * MIB <= int(Path(f"/sys/class/block/{disk}/size").read_text()) * 512
    for each in slices.values():
        each.make()
    try:
        yield slices
    finally:
        for each in slices.values():
            each.wipe()
            each.remove()
        wait_for("the slices are gone", lambda: not any(each.path.exists() for each in slices.values()), Deadline(30))
