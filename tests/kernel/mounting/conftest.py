"""Mounts in a namespace of their own. Needs root and loop devices."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.host.syscalls import MS_PRIVATE, MS_REC, Kernel
from tests.kernel.mounting.rig import Rig, soon

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNS = 0x20000


@pytest.fixture(scope="module", autouse=True)
def private_mounts() -> Iterator[None]:
    """Give this thread, and so the programs and threads that it starts, mounts of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, folder = os.open("/proc/self/ns/mnt", os.O_RDONLY), Path.cwd()
    if libc.unshare(CLONE_NEWNS) != 0:
        pytest.skip(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    Kernel().mount("none", Path("/"), "", MS_REC | MS_PRIVATE)
    yield
    libc.setns(here, CLONE_NEWNS)
    os.chdir(folder)
    os.close(here)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sluice-mounts-") as folder:
        made = Rig(Path(folder))
        yield made
        for dead_man in made.dead_men:
            dead_man.close()
        for path in sorted(made.folder.rglob("*"), key=lambda path: len(path.parts), reverse=True):
            if not path.is_symlink():
                made.mounts.unmount(path, soon())
        for attached in made.loops.list(made.folder):
            made.loops.detach(attached, soon())
