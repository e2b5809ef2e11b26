"""What csi_driver.host promises, on a fake machine: the same errors, and every change an effect of a life."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from csi_driver.errors import Conflict, InUse, Invalid, NotFound, Unready, Unsupported
from csi_driver.host.dm import DeviceMapper, Info, Target
from csi_driver.host.freeze import LIMIT_S, DeadMan
from csi_driver.host.syscalls import FIFREEZE, FITHAW, Kernel
from csi_driver.stack import Stack
from qos.cgroup import Cgroup
from qos.errors import DeviceGone
from qos.limits import UNLIMITED
from tests.fakes.machine import DM_MAJOR, FakeMachine, Mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device
    from csi_driver.host.freeze import Freezer
    from csi_driver.host.mounts import Mounts
    from qos.limits import DevNo, Limits
    from tests.fakes.life import Life

T = TypeVar("T")


class FakeKernel(Kernel):
    """Make and remove files and folders for real; freeze on the fake machine."""

    def __init__(self, machine: FakeMachine, life: Life) -> None:
        self._machine = machine
        self._life = life

    def _effect(self, name: str, path: object, call: Callable[[], T]) -> T:
        with self._life.effect(f"{name} {path}"):
            return call()

    def syncfs(self, path: Path) -> None:
        """Count it; hang, which here is a fault, where the real one would."""
        self._effect("syncfs", path, lambda: self._refuse_still(path))

    def ioctl(self, fd: int, request: int, argument: int | bytearray = 0, *, path: object = "") -> int:  # noqa: ARG002
        """Freeze and thaw."""
        name = str(path)
        match request:
            case _ if request == FIFREEZE:
                if name in self._machine.frozen:
                    raise OSError(16, "busy", name)
                self._effect("FIFREEZE", path, lambda: self._machine.frozen.add(name))
            case _ if request == FITHAW:
                if name not in self._machine.frozen:
                    raise OSError(22, "invalid", name)
                self._effect("FITHAW", path, lambda: self._machine.frozen.remove(name))
            case _:
                raise AssertionError(f"the fake kernel has no ioctl {request:#x}")
        return 0

    def _refuse_still(self, path: Path) -> None:
        suspended = {one.device.dev for one in self._machine.mapped.values() if one.suspended}
        still = any(mount.target == path and mount.dev in suspended for mount in self._machine.mounts)
        if still or str(path) in self._machine.frozen:
            self._machine.faults.append(f"syncfs of {path} hangs: it is suspended or frozen")


class FakeDeadMan(DeadMan):
    """Undo a freeze when the driver dies inside, unless it dies with the driver."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine
        self.limit = LIMIT_S

    @contextlib.contextmanager
    def armed(self, kind: str, what: str) -> Iterator[None]:
        """Be armed while the body runs."""
        try:
            yield
        except BaseException:
            if self._machine.dead_men:
                self._undo(kind, what)
            raise

    def close(self) -> None:
        """Do nothing: there is no process."""

    def _undo(self, kind: str, what: str) -> None:
        with self._machine.lock:
            if kind == "fs":
                self._machine.frozen.discard(what)
            elif what in self._machine.mapped:
                self._machine.mapped[what].suspended = False


class FakeMapper(DeviceMapper):
    """Map devices on the fake machine. Creating has the real one's three effects."""

    def __init__(self, machine: FakeMachine, life: Life) -> None:
        self._machine = machine
        self._life = life

    def why_not(self) -> str | None:
        """Return that there is device-mapper, or that there isn't."""
        return None if self._machine.mapper else "the fake machine has none"

    def info(self, name: str) -> Info | None:
        """Return what the machine knows."""
        self._life.check()
        with self._machine.lock:
            found = self._machine.mapped.get(name)
            if found is None:
                return None
            targets = (Target(0, found.size, "linear", f"{found.below} 0"),) if found.below else ()
            openers = bool(self._machine.mounted_from(found.device.dev)) + self._machine.opened[found.device.dev]
            return Info(name, found.uuid, found.device, found.suspended, False, openers, targets)

    def list(self, prefix: str = "sluice-") -> tuple[str, ...]:
        """Return names."""
        self._life.check()
        return tuple(sorted(name for name in self._machine.mapped if name.startswith(prefix)))

    def create_linear(self, name: str, uuid: str, below: Device, size_bytes: int, *, read_only: bool = False) -> Device:  # noqa: ARG002
        """Map, or finish what a cut left half made."""
        found = self.info(name)
        if found is None:
            with self._life.effect(f"DM_DEV_CREATE {name}"):
                self._machine.mapped[name] = Mapped(uuid, self._machine.new_device("dm-", DM_MAJOR))
        elif found.uuid != uuid or (found.targets and (found.below, found.size_bytes) != (below.dev, size_bytes)):
            raise Conflict(f"device {name} ({found.uuid}) already maps {found.below}, {found.size_bytes} bytes")
        elif found.targets:
            return found.device
        try:
            self._load(name, below, size_bytes, 0)
            self.resume(name)
        except BaseException:
            with contextlib.suppress(OSError, Unready), self._life.effect(f"DM_DEV_REMOVE {name}"):
                self._machine.gone(self._machine.mapped.pop(name).device)
            raise
        return self._machine.mapped[name].device

    def reload_linear(self, name: str, below: Device, size_bytes: int) -> Device:
        """Swap the table."""
        self._load(name, below, size_bytes, 0)
        self.resume(name)
        return self._machine.mapped[name].device

    def suspend(self, name: str, *, lock_fs: bool = True) -> bool:  # noqa: ARG002 - the surface is the real one's
        """Hold back."""
        mapped = self._must(name)
        if mapped.suspended:
            return False
        with self._life.effect(f"DM_DEV_SUSPEND {name}"):
            mapped.suspended = True
        return True

    def resume(self, name: str) -> None:
        """Let go, with the newest table."""
        mapped = self._must(name)
        with self._life.effect(f"resume {name}"):
            mapped.suspended = False
            if mapped.loaded:
                (mapped.below, mapped.size), mapped.loaded = mapped.loaded, None

    def remove(self, name: str, deadline: Deadline) -> bool:  # noqa: ARG002 - nobody has it open for a moment only
        """Remove, unless it is in use."""
        found = self.info(name)
        if found is None:
            return False
        if found.open_count:
            raise InUse(f"can't remove {name}: {found.device.path} is open {found.open_count} times")
        with self._life.effect(f"DM_DEV_REMOVE {name}"):
            self._machine.gone(self._machine.mapped.pop(name).device)
        return True

    def _must(self, name: str) -> Any:  # noqa: ANN401 - a Mapped, where the real one has an Info
        if name not in self._machine.mapped:
            raise NotFound(f"there is no mapped device {name}")
        return self._machine.mapped[name]

    def _load(self, name: str, below: Device, size_bytes: int, flags: int) -> None:  # noqa: ARG002
        if size_bytes <= 0 or size_bytes % 512:
            raise Invalid(f"can't map {name}: {size_bytes} bytes is not a positive multiple of 512")
        if size_bytes > self._machine.size(below.dev):
            raise Unready(f"device-mapper refuses: {below.path} has {self._machine.size(below.dev)} bytes only")
        with self._life.effect(f"DM_TABLE_LOAD {name}"):
            self._must(name).loaded = (below.dev, size_bytes)


class FakeCgroup(Cgroup):
    """Keep the limits of the ancestor. A device that went took its line with it."""

    def __init__(self, machine: FakeMachine, life: Life) -> None:
        self._machine = machine
        self._life = life

    def __str__(self) -> str:
        return "the fake ancestor"

    def read_limits(self) -> dict[DevNo, Limits]:
        """Return all lines."""
        self._life.check()
        return dict(self._machine.limits)

    def write_limits(self, dev: DevNo, limits: Limits) -> Limits:
        """Write a line. The same line again, as each look from time to time writes it, is no effect."""
        self._life.check()
        if dev not in self._machine.devices():
            raise DeviceGone(f"limit {dev}: no such device")
        if self._machine.limits.get(dev) == limits:
            return limits
        with self._life.effect(f"limit {dev}: {limits}"):
            self._machine.limits[dev] = limits
        return limits

    def clear(self, dev: DevNo) -> None:
        """Take a line off."""
        if self._machine.limits.get(dev, UNLIMITED) != UNLIMITED:
            with self._life.effect(f"unlimit {dev}"):
                self._machine.limits.pop(dev, None)

    def has_io(self) -> bool:
        """Return that io is there."""
        return True

    def repair(self) -> None:
        """Do nothing: io is there."""


class FakeStack(Stack):
    """Ask the fake machine where the real one reads sysfs."""

    def __init__(self, machine: FakeMachine, life: Life, mapper: FakeMapper, mounts: Mounts, freezer: Freezer) -> None:
        super().__init__(mapper if mapper.available() else None, mounts, freezer)
        self._machine = machine
        self._life = life

    def check_copies(self, fs_type: str) -> None:
        """Refuse by the machine's word."""
        if fs_type in self._machine.no_copies_of:
            raise Unsupported(f"the fake kernel can't mount a {fs_type} beside its copy")

    def size(self, device: Device) -> int:
        """Return the machine's word."""
        return self._machine.size(device.dev)

    def keep_bytes(self, kernel: Kernel, device: Device) -> None:
        """Do nothing: no volume here discards anything."""

    def set_read_ahead(self, kernel: Kernel, device: Device, kib: int) -> None:  # noqa: ARG002 - as the real one
        """Set it if it differs."""
        if self._machine.read_ahead.get(device.dev) != kib:
            with self._life.effect(f"read-ahead of {device.path}"):
                self._machine.read_ahead[device.dev] = kib
