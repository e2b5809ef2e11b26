"""A folder, images in it, and mount points."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline
from csi_driver.host.dm import DeviceMapper
from csi_driver.host.filesystem import Filesystems
from csi_driver.host.freeze import DeadMan, Freezer
from csi_driver.host.loopdev import LoopDevices
from csi_driver.host.mounts import Mounts
from csi_driver.host.run import Runner
from csi_driver.host.syscalls import Kernel

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def soon() -> Deadline:
    return Deadline(30)


class Rig:
    """A folder, images in it, and mount points."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel = Kernel()
        self.loops = LoopDevices(self.kernel)
        self.mounts = Mounts(self.kernel)
        self.filesystems = Filesystems(Runner(), self.kernel)
        self.dead_men = [DeadMan()]
        self.freezer = Freezer(self.kernel, DeviceMapper(self.kernel), self.dead_men[0])

    def freezer_with(self, dead_man: DeadMan) -> Freezer:
        self.dead_men.append(dead_man)
        return Freezer(self.kernel, DeviceMapper(self.kernel), dead_man)

    def place(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    def image(self, name: str, fs_type: str = "ext4", size: int = 32 * MIB) -> Path:
        """Return the device of a new file system."""
        path = self.folder / f"{name}.img"
        path.touch()
        os.truncate(path, size)
        self.filesystems.make(path, fs_type, sector_size=4096, deadline=soon())
        return self.loops.attach(path, sector_size=4096, deadline=soon()).path

    def mounted(self, name: str = "volume", fs_type: str = "ext4", size: int = 32 * MIB) -> Path:
        place = self.place(name)
        self.mounts.mount(self.image(name, fs_type, size), place, fs_type, ["noatime"])
        return place
