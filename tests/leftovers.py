"""What a test could leave on the machine: loop devices, mapped devices, mounts, cgroups, limits and processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

SYS = Path("/sys/block")
ANCESTOR = Path("/sys/fs/cgroup/sluice.slice")


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Hold what is there now, each thing as a line that a person can act on."""

    things: frozenset[str]

    @classmethod
    def now(cls, *words: str) -> Leftovers:
        """Look. With words, only at what has one of them in its line: other programs may use this machine too."""
        found = {*_loops(), *_mapped(), *_mounts(), *_cgroups(), *_servers()}
        return cls(frozenset(thing for thing in found if not words or any(word in thing for word in words)))

    def since(self, before: Leftovers) -> list[str]:
        """Return what is there that was not there before."""
        return sorted(self.things - before.things)


AT_START = pytest.StashKey[Leftovers]()
"""What was there before the first test; kept by pytest's configuration."""


def _loops() -> set[str]:
    return {f"loop device {path.parent.parent.name} on {_read(path)}" for path in SYS.glob("loop*/loop/backing_file")}


def _mapped() -> set[str]:
    return {f"mapped device {_read(path)}" for path in SYS.glob("dm-*/dm/name")}


def _mounts() -> set[str]:
    lines = (line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return {f"mount of {after.split()[1]} at {before.split()[4]}" for before, after in lines}


def _cgroups() -> set[str]:
    limits = {f"limit {line} on {ANCESTOR.name}" for line in _read(ANCESTOR / "io.max").splitlines()}
    return limits | {f"cgroup {path.parent}" for path in ANCESTOR.glob("*/cgroup.procs")}


def _servers() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        argv = _read(path).rstrip("\0").split("\0")
        if "serve" in argv and any("csi_driver" in word or "sluice" in word for word in argv):
            found.add(f"process {path.parent.name}: {' '.join(argv)}")
    return found


def _read(path: Path) -> str:
    """Return a file of the kernel's, "" if what it tells about is gone by now."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
