"""New image files: what `create` has answered outlives a file system that stops at once, whatever it flushed for it."""

from __future__ import annotations

import fcntl
import os
import struct
import uuid
from typing import TYPE_CHECKING, TypeVar

import pytest

from csi_driver.assemble import Machine
from csi_driver.backends.base import Passport
from csi_driver.backends.image import PoolImage
from csi_driver.backends.loop import LoopBackend
from csi_driver.host.syscalls import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

pytestmark = pytest.mark.native

MIB = 1 << 20
# xfs_fs.h: the file system stops, and what of its log is only in memory is lost, as by a power cut.
XFS_IOC_GOINGDOWN, NOLOGFLUSH = 0x8004587D, 2


class Noted(Kernel):
    """Note the effects on the way, and leave out what a test leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.effects: list[str] = []
        self.left_out = ""

    def _effect(self, name: str, path: object, call: Callable[[], T]) -> T:
        self.effects.append(name)
        return super()._effect(name, path, (lambda: None) if name == self.left_out else call)  # type: ignore[return-value]


class XfsPool:
    """A pool in an XFS of its own, which can be cut off."""

    def __init__(self, folder: Path) -> None:
        machine = Machine()
        self.kernel = Noted()
        self._folder = folder / "pool"
        self._image = PoolImage(
            folder / "pool.xfs", 400 * MIB, machine.kernel, machine.loops, machine.filesystems, machine.mounts
        )
        self._machine = machine
        self.backend = self._open("")

    def cut(self) -> None:
        """Lose what is in memory, and open the pool again."""
        fd = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, XFS_IOC_GOINGDOWN, struct.pack("=I", NOLOGFLUSH))
        finally:
            os.close(fd)
        self.close()
        self.backend = self._open(self.backend.identity)

    def _open(self, identity: str) -> LoopBackend:
        machine = self._machine
        backend = LoopBackend(self._folder, self.kernel, machine.loops, machine.filesystems, self._image)
        backend.open(identity)
        return backend

    def close(self) -> None:
        """Take it down."""
        self._image.unmount(self._folder)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[XfsPool]:
    """Give an open pool."""
    made = XfsPool(tmp_path)
    yield made
    made.close()


def a_passport() -> Passport:
    """Return the passport of a new volume."""
    return Passport(id=str(uuid.uuid4()), kind="volume", name="data", parameters={"pool": "x" * 600})


def test_a_new_image_outlives_a_cut(pool: XfsPool) -> None:
    """One flush, and each has its name, its size and its passport; nothing half made is left."""
    made = []
    for number in range(12):
        passport = a_passport()
        pool.kernel.effects.clear()
        assert pool.backend.create(passport, (number + 1) * MIB)
        flushes = [name for name in pool.kernel.effects if name.startswith("fsync")]
        made.append((passport, (number + 1) * MIB))
        pool.cut()

        assert flushes == ["fsync_dir"]
        found = [pool.backend.find(passport.id) for passport, _ in made]
        assert [(each.passport, each.size) for each in found if each] == made


def test_without_its_flush_a_new_image_would_be_lost(pool: XfsPool) -> None:
    """So the cut above is one."""
    passport = a_passport()
    pool.kernel.left_out = "fsync_dir"
    pool.backend.create(passport, MIB)
    pool.kernel.left_out = ""
    pool.cut()

    assert pool.backend.find(passport.id) is None


def test_where_there_is_no_one_log_the_file_is_flushed_first(tmp_path: Path) -> None:
    """A name must not be durable before what it names."""
    machine, kernel = Machine(), Noted()
    pool = LoopBackend(tmp_path, kernel, machine.loops, machine.filesystems)
    pool.open("")
    pool._one_log = False
    kernel.effects.clear()
    pool.create(a_passport(), MIB)

    assert [name for name in kernel.effects if name in {"fsync", "rename", "fsync_dir"}] == [
        "fsync",
        "rename",
        "fsync_dir",
    ]
