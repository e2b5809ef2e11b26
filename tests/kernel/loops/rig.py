"""A folder of images and their loop devices, behind a door that counts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from csi_driver.deadline import Deadline
from csi_driver.host.filesystem import Filesystems
from csi_driver.host.loopdev import LoopDevices
from csi_driver.host.run import Runner
from csi_driver.host.syscalls import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from csi_driver.host.block import Device

MIB = 1 << 20

T = TypeVar("T")


def soon() -> Deadline:
    return Deadline(60)


class Counting(Kernel):
    """A door to the kernel that remembers what went through, and refuses what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.effects: list[str] = []
        self.refuse: list[tuple[str, int]] = []
        self.before: Callable[[str], None] = lambda _name: None

    def _effect(self, name: str, path: object, call: Callable[[], T]) -> T:
        self.effects.append(name)
        self.before(name)
        if self.refuse and self.refuse[0][0] == name:
            number = self.refuse.pop(0)[1]
            raise OSError(number, f"{name}: injected", str(path))
        return super()._effect(name, path, call)


class Rig:
    """A folder of images and their loop devices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel = Counting()
        self.loops = LoopDevices(self.kernel)
        self.filesystems = Filesystems(Runner(), self.kernel)

    def image(self, name: str = "image", size: int = 64 * MIB) -> Path:
        path = self.folder / name
        path.touch()
        os.truncate(path, size)
        return path

    def attach(self, image: Path, sector_size: int = 4096) -> Device:
        return self.loops.attach(image, sector_size=sector_size, deadline=soon())
