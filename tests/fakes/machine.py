"""What a kernel and a disk would remember: a plain object that outlives the processes which change it."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csi_driver.backends.sim import SIM_MAJOR, SimPool
from csi_driver.errors import NotFound
from csi_driver.host.block import Device, dev_number
from qos.limits import UNLIMITED, DevNo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from csi_driver.backends.sim import SimImage
    from csi_driver.host.mounts import Mount
    from qos.iocost import Measured
    from qos.limits import Limits

DM_MAJOR = 253
SUPERBLOCK = 0
"""The offset in an image at which mkfs writes what it made: type, size and identity."""


@dataclass(slots=True)
class Mapped:
    """Hold one mapped device. `below` is None until a table was loaded."""

    uuid: str
    device: Device
    below: DevNo | None = None
    size: int = 0
    loaded: tuple[DevNo, int] | None = None
    suspended: bool = False


@dataclass(slots=True)
class FakeMachine:
    """Hold all that a node's kernel and disk know. Its folder has /dev, and room for the paths that kubelet would name.

    `busy` are mount points that somebody has files open in, `opened` counts openers of bare devices; tests set both.
    `no_copies_of` are file systems that it can't mount beside a copy. `faults` are things that no driver may do.
    `known` is what its owner says of its disks. `dead_men` False: they die with the driver, as in a killed container.
    """

    folder: Path
    pool: SimPool = field(default_factory=SimPool)
    mapper: bool = True
    dead_men: bool = True
    known: Mapping[str, Measured] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    mapped: dict[str, Mapped] = field(default_factory=dict)
    sizes: dict[DevNo, int] = field(default_factory=dict)
    read_ahead: dict[DevNo, int] = field(default_factory=dict)
    limits: dict[DevNo, Limits] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    busy: set[Path] = field(default_factory=set)
    opened: Counter[DevNo] = field(default_factory=Counter)
    no_copies_of: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(100))
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def dev(self) -> Path:
        """Return the folder of device nodes."""
        return self.folder / "dev"

    def dev_folder(self) -> DevNo:
        """Return the number of the file system that holds the device nodes."""
        return dev_number(self.folder.stat().st_dev)

    def new_device(self, prefix: str, major: int) -> Device:
        """Make a device node with the lowest free number, as the kernel does: numbers are used again at once."""
        taken = {dev.minor for dev in self.devices() if dev.major == major}
        number = DevNo(major, next(minor for minor in itertools.count() if minor not in taken))
        self.dev.mkdir(exist_ok=True)
        path = self.dev / f"{prefix}{number.minor}"
        path.touch()
        return Device(path, number)

    def new_loop(self) -> Device:
        """Make a device below the mapped ones."""
        return self.new_device("sim", SIM_MAJOR)

    def gone(self, device: Device) -> None:
        """Forget a device; its limits and its read-ahead go with it, as in the kernel."""
        device.path.unlink(missing_ok=True)
        for book in (self.limits, self.read_ahead, self.sizes):
            book.pop(device.dev, None)

    def devices(self) -> Iterable[DevNo]:
        """Return the numbers of all devices."""
        return (*(one.dev for one in self.pool.devices.values()), *(one.device.dev for one in self.mapped.values()))

    def size(self, dev: DevNo) -> int:
        """Return the bytes of a device. Raises NotFound."""
        with self.lock:
            found = next((one for one in self.mapped.values() if one.device.dev == dev), None)
            if found is not None:
                return found.size
            if dev in self.sizes:
                return self.sizes[dev]
        raise NotFound(f"the kernel has no block device {dev}")

    def image(self, dev: DevNo) -> SimImage:
        """Return the image under a device. Raises NotFound."""
        with self.lock:
            mapped = next((one for one in self.mapped.values() if one.device.dev == dev), None)
            below = mapped.below if mapped else dev
            for record_id, device in self.pool.devices.items():
                if device.dev == below and record_id in self.pool.images:
                    return self.pool.images[record_id]
        raise NotFound(f"no image lies under {dev}")

    def at_node(self, path: Path) -> DevNo:
        """Return the number of the device whose node a path is. Raises NotFound."""
        for device in (*self.pool.devices.values(), *(one.device for one in self.mapped.values())):
            if device.path == path:
                return device.dev
        raise NotFound(f"no block device at {path}")

    def node_of(self, dev: DevNo) -> Path:
        """Return the path of a device's node. Raises NotFound."""
        for device in (*self.pool.devices.values(), *(one.device for one in self.mapped.values())):
            if device.dev == dev:
                return device.path
        raise NotFound(f"the kernel has no block device {dev}")

    def mounted_from(self, dev: DevNo) -> list[Mount]:
        """Return the mounts of a device's file system."""
        return [mount for mount in self.mounts if mount.dev == dev]

    def write(self, path: Path, block: int, data: bytes) -> None:
        """Write as a pod does, into the file system mounted at a path, or the device shown there; block 0 is its own.

        Raises OSError where nothing is mounted, or only to be read.
        """
        with self.lock:
            mount = self._at(path)
            if "ro" in mount.options:
                raise OSError(f"{path} is read-only")
            self.image(self._dev_of(mount)).data[(block + 1) * 4096] = data

    def read(self, path: Path, block: int) -> bytes:
        """Read as a pod does; zeros are b"". Raises OSError where nothing is mounted."""
        with self.lock:
            return self.image(self._dev_of(self._at(path))).data.get((block + 1) * 4096, b"")

    def reboot(self) -> None:
        """Lose all that is not on the disk."""
        with self.lock:
            devices = (*self.pool.devices.values(), *(one.device for one in self.mapped.values()))
            for device in devices:
                self.gone(device)
            for state in (self.mounts, self.mapped, self.pool.devices, self.frozen, self.busy, self.opened):
                state.clear()

    def things(self) -> list[str]:
        """Return all that is there and could be left behind, each as a line that a person can act on."""
        with self.lock:
            by_number = {device.dev: name for name, device in self.pool.devices.items()}
            by_number |= {one.device.dev: name for name, one in self.mapped.items()}
            limited = {dev: limit for dev, limit in self.limits.items() if limit != UNLIMITED}
            return sorted(
                [
                    *(f"image {name}" for name in self.pool.images),
                    *(f"device of {name}" for name in self.pool.devices),
                    *(f"mapped {name}{' suspended' * one.suspended}" for name, one in self.mapped.items()),
                    *(f"mount of {by_number.get(one.dev, one.root)} at {one.target}" for one in self.mounts),
                    *(f"limits on {by_number.get(dev, dev)}: {limit}" for dev, limit in limited.items()),
                    *(f"frozen {path}" for path in self.frozen),
                ]
            )

    def _at(self, path: Path) -> Mount:
        found = [mount for mount in self.mounts if mount.target == path]
        if not found:
            raise OSError(f"nothing is mounted at {path}")
        return found[-1]

    def _dev_of(self, mount: Mount) -> DevNo:
        return self.at_node(self.dev / mount.root[1:]) if mount.dev == self.dev_folder() else mount.dev
