"""A thin pool on the test machine's data disk, by lvm's own commands."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

LVM_SECONDS = 120


def lvm(*words: str) -> str:
    """Run an lvm command and return what it said; a failure is the test's."""
    argv = ("lvm", words[0], "-qq", *words[1:])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LVM_SECONDS, check=False)
    assert done.returncode == 0, f"{argv} ended with status {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def rows(*words: str) -> list[dict[str, str]]:
    """Return the rows of a report; sizes are bytes."""
    said = json.loads(lvm(*words, "--reportformat", "json", "--units", "b", "--nosuffix"))
    return [row for report in said["report"] for rows in report.values() for row in rows]


@dataclass
class ThinPool:
    """A volume group with one thin pool, there while the context lasts."""

    vg: str = "fast"
    name: str = "thin"
    chunk: str = "64k"
    disk: str = field(default_factory=lambda: os.environ["SLUICE_DISK"])
    size: tuple[str, str] = ("-l", "90%FREE")
    metadata: str = "32m"

    @property
    def words(self) -> str:
        """Return the pool as `sluice serve` takes it."""
        return f"backend=lvm,vg={self.vg},thinpool={self.name}"

    @property
    def parts(self) -> set[str]:
        """Return the logical volumes that are the pool."""
        return {self.name, f"{self.name}_tdata", f"{self.name}_tmeta", "lvol0_pmspare"}

    def check(self) -> None:
        """See that the pool's metadata are sound, by the word of who knows. Takes all volumes down for that."""
        metadata = f"{self.vg}/{self.name}_tmeta"
        lvm("vgchange", "-an", self.vg)
        lvm("lvchange", "-ay", "-y", metadata)
        try:
            done = subprocess.run(["thin_check", f"/dev/{metadata}"], capture_output=True, text=True, check=False)
        finally:
            lvm("lvchange", "-an", metadata)
        assert done.returncode == 0, f"thin_check: {done.stdout}{done.stderr}"

    def make(self) -> None:
        """Make it."""
        lvm("pvcreate", "-ff", "-y", "--metadatasize", "16m", self.disk)
        lvm("vgcreate", "--setautoactivation", "n", self.vg, self.disk)
        pool = ("--type", "thin-pool", "-c", self.chunk, "-Zy", "--poolmetadatasize", self.metadata)
        lvm("lvcreate", "-y", *pool, *self.size, "-n", self.name, self.vg)
        lvm("lvchange", "--errorwhenfull", "y", f"{self.vg}/{self.name}")

    def empty(self) -> None:
        """Remove all volumes and snapshots."""
        lvm("lvremove", "-f", "-S", "lv_name=~^sluice-", self.vg)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        lvm("vgremove", "-ff", "-y", self.vg)
        lvm("pvremove", "-y", self.disk)

    def __enter__(self) -> Self:
        self.make()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()
