"""A folder of images, and mapped devices on them."""

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

    from csi_driver.host.block import Device

MIB = 1 << 20

XFS_SIZE = 320 * MIB


def soon() -> Deadline:
    return Deadline(60)


class Rig:
    """A folder of images, and what can be built on them; everything is taken down again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel = Kernel()
        self.loops = LoopDevices(self.kernel)
        self.mapper = DeviceMapper(self.kernel)
        self.mounts = Mounts(self.kernel)
        self.filesystems = Filesystems(Runner(), self.kernel)
        self.dead_man = DeadMan()
        self.freezer = Freezer(self.kernel, self.mapper, self.dead_man)

    def image(self, name: str, size: int = 64 * MIB) -> Path:
        path = self.folder / name
        path.touch()
        os.truncate(path, size)
        return path

    def loop(self, name: str = "image", size: int = 64 * MIB) -> Device:
        return self.loops.attach(self.image(name, size), sector_size=4096, deadline=soon())

    def mapped(self, name: str = "sluice-test", size: int = 64 * MIB) -> Device:
        return self.mapper.create_linear(name, f"SLUICE-{name}", self.loop(name, size), size)

    def mounted(self, fs_type: str = "ext4", name: str = "sluice-test", size: int = 64 * MIB) -> Path:
        device = self.mapped(name, size)
        self.filesystems.make(device.path, fs_type, sector_size=4096, deadline=soon())
        target = self.folder / f"at-{name}"
        target.mkdir()
        self.mounts.mount(device.path, target, fs_type)
        return target

    def take_down(self) -> None:
        self.dead_man.close()
        self.freezer.resume_all()
        for target in self.folder.glob("at-*"):
            self.mounts.unmount(target, soon())
        for name in self.mapper.list():
            self.mapper.remove(name, soon())
        for attached in self.loops.list(self.folder):
            self.loops.detach(attached, soon())


def is_suspended(rig: Rig, name: str = "sluice-test") -> bool:
    info = rig.mapper.info(name)
    return info is not None and info.suspended
