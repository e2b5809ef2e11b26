"""Mounts and file systems of a fake machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from csi_driver.errors import Foreign, InUse, NotFound, OutOfRange, Unready
from csi_driver.host.block import dev_number
from csi_driver.host.filesystem import SMALLEST, XFS, Filesystems, Usage
from csi_driver.host.mountinfo import Mount, is_read_only, real_target
from csi_driver.host.mounts import Mounts, split_options
from csi_driver.host.syscalls import MS_RDONLY
from tests.fakes.machine import SUPERBLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device
    from qos.limits import DevNo
    from tests.fakes.life import Life
    from tests.fakes.machine import FakeMachine


class FakeMounts(Mounts):
    """Mount on the fake machine; the folders that are mounted on are real."""

    def __init__(self, machine: FakeMachine, life: Life) -> None:
        self._machine = machine
        self._life = life

    def at(self, target: Path) -> Mount | None:
        """Return the topmost mount at a path."""
        self._life.check()
        place = real_target(target)
        found = [mount for mount in self._machine.mounts if mount.target == place]
        return found[-1] if found else None

    def of(self, *devs: DevNo) -> tuple[Mount, ...]:
        """Return the mounts of these devices' file systems."""
        self._life.check()
        return tuple(mount for dev in devs for mount in self._machine.mounted_from(dev))

    def mounted(self, place: Path) -> bool:
        """Return whether something is mounted at a path."""
        return self.at(place) is not None

    def topmost(self, place: Path, among: Iterable[Mount]) -> Mount | None:
        """Return the one of these mounts that is the topmost at a path."""
        there = self.at(place)
        return there if there in tuple(among) else None

    def mount(self, source: Path | str, target: Path, fstype: str, options: Sequence[str] = ()) -> bool:
        """Mount, unless it is mounted there already."""
        flags, data = split_options(options)
        dev = self._machine.at_node(self._machine.dev / str(source).rpartition("/")[2])
        if there := self.at(target):
            if there.dev != dev:
                raise InUse(f"{target} is taken: {there.source} is mounted there, not {source}")
            return False
        if not target.is_dir():
            raise NotFound(f"can't mount {source} at {target} as {fstype}: the target is not there")
        self._check_superblock(dev, fstype, data)
        mode = frozenset({"ro" if flags & MS_RDONLY else "rw"})
        with self._life.effect(f"mount {source} at {target}"):
            self._add(dev, "/", target, fstype, str(source), mode)
        return True

    def bind(self, source: Path, target: Path, *, read_only: bool = False) -> bool:
        """Show a mounted folder, or a device node, at another path."""
        if not target.exists():
            raise NotFound(f"can't bind {source} to {target}: the target is not there")
        under = self.at(source)
        dev = under.dev if under else dev_number(source.stat().st_dev)
        root = under.root if under else f"/{source.name}"
        if there := self.at(target):
            if read_only and not is_read_only(there):
                raise InUse(f"{target} has a writable mount already: unmount it first")
            if (there.dev, there.root) != (dev, root):
                raise InUse(f"{target} is taken: {there.source} is mounted there, not {source}")
            return False
        options = frozenset({"ro"}) if read_only else under.options if under else frozenset({"rw"})
        with self._life.effect(f"bind {source} to {target}"):
            named = (under.fstype, under.source) if under else ("devtmpfs", "devtmpfs")
            self._add(dev, root, target, *named, options)
        return True

    def unmount(self, target: Path, deadline: Deadline) -> bool:  # noqa: ARG002 - busy stays busy here
        """Unmount all that is at a path, one by one."""
        place, changed = real_target(target), False
        while (there := self.at(place)) is not None:
            if place in self._machine.busy:
                raise InUse(f"can't unmount {target}: in use by process 1 (fake)")
            with self._life.effect(f"umount {place}"):
                self._machine.mounts.remove(there)
            changed = True
        return changed

    def _add(self, dev: DevNo, root: str, target: Path, fstype: str, source: str, options: frozenset[str]) -> None:
        number = next(self._machine.numbers)
        mount = Mount(number, 1, dev, root, real_target(target), fstype, source, options, options, ())
        if root != "/" or source == "devtmpfs":
            mount = replace(mount, super_options=frozenset({"rw"}))
        elif others := self._machine.mounted_from(dev):
            mount = replace(mount, super_options=others[0].super_options)
        self._machine.mounts.append(mount)

    def _check_superblock(self, dev: DevNo, fstype: str, data: str) -> None:
        """Refuse as the kernel does: another file system, one that is larger than its device, an XFS mounted twice."""
        words = self._machine.image(dev).data.get(SUPERBLOCK, b"").decode().split()
        if words[:1] != [fstype] or int(words[1]) > self._machine.size(dev):
            raise Unready(f"can't mount {dev} as {fstype}: the superblock makes no sense to the kernel: {words}")
        if fstype == "xfs" and "nouuid" not in data.split(","):
            for mount in self._machine.mounts:
                if mount.fstype == "xfs" and mount.dev != dev and self._identity(mount.dev) == words[2]:
                    raise Unready(f"can't mount {dev}: its UUID is mounted already")

    def _identity(self, dev: DevNo) -> str:
        return self._machine.image(dev).data[SUPERBLOCK].decode().split()[2]


class FakeFilesystems(Filesystems):
    """Make and grow file systems that are one line in block 0. An mkfs has a middle, as the real one."""

    def __init__(self, machine: FakeMachine, life: Life) -> None:
        self._machine = machine
        self._life = life

    def kind(self, path: Path, *, brief: bool = False) -> str | None:  # noqa: ARG002
        """Return what is on a device."""
        self._life.check()
        data = self._machine.image(self._machine.at_node(path)).data
        words = data.get(SUPERBLOCK, b"").decode().split()
        return words[0] if words else "unknown data" if data else None

    def make(
        self,
        path: Path,
        fs_type: str,
        *,
        options: Sequence[str] = (),  # noqa: ARG002 - the surface is the real one's
        sector_size: int,  # noqa: ARG002
        blank: bool = False,
        deadline: Deadline,  # noqa: ARG002
        prefix: Sequence[str] = (),  # noqa: ARG002
    ) -> None:
        """Make a file system, in two effects. What it overwrites without being told, it notes as a fault."""
        dev = self._machine.at_node(path)
        image, size = self._machine.image(dev), self._machine.size(dev)
        if size < SMALLEST[fs_type]:
            raise OutOfRange(f"{path} has {size} bytes; {fs_type} needs {SMALLEST[fs_type]}")
        if self._machine.mounted_from(dev):
            raise Unready(f"{path} is mounted")
        lost = [offset for offset in image.data if offset != SUPERBLOCK]
        if lost or (blank and image.data):
            self._machine.faults.append(f"mkfs of {image.passport.id} overwrites {sorted(image.data)}, blank={blank}")
        with self._life.effect(f"mkfs begins on {path}"):
            image.data = {SUPERBLOCK: b"half-made"}
        with self._life.effect(f"mkfs ends on {path}"):
            image.data = {SUPERBLOCK: f"{fs_type} {size} {image.passport.id}".encode()}

    def check_alone(self, path: Path) -> None:
        """Do nothing: programs end with their server here."""

    def mount_options(self, fs_type: str) -> tuple[str, ...]:
        """Return the one option without which a mount fails here: an XFS's."""
        return ("nouuid",) if fs_type == XFS else ()

    def check(self, path: Path, fs_type: str, *, deadline: Deadline, prefix: Sequence[str] = ()) -> bool:  # noqa: ARG002
        """Look at the superblock; nothing needs repair here."""
        if (found := self.kind(path)) != fs_type:
            raise Unready(f"{path} needs repair by hand: it has {found}, not {fs_type}")
        return False

    def grow(
        self,
        device: Device,
        fs_type: str,
        *,
        mounted: Path | None,
        deadline: Deadline,  # noqa: ARG002
        prefix: Sequence[str] = (),  # noqa: ARG002
    ) -> bool:
        """Let the file system fill its device."""
        if mounted is None or not any(mount.target == mounted for mount in self._machine.mounted_from(device.dev)):
            raise Unready(f"can't grow the file system at {mounted}: {device.path} is not mounted there")
        image, size = self._machine.image(device.dev), self._machine.size(device.dev)
        kind, had, identity = image.data[SUPERBLOCK].decode().split()
        if kind != fs_type:
            raise Foreign(f"{device.path} has {kind}, not {fs_type}")
        if int(had) >= size:
            return False
        with self._life.effect(f"grow file system of {device.path}"):
            image.data[SUPERBLOCK] = f"{kind} {size} {identity}".encode()
        return True

    def usage(self, path: Path) -> Usage:
        """Return the file system's size, and a block for each that was written."""
        mount = next((mount for mount in self._machine.mounts if mount.target == path), None)
        if mount is None:
            raise NotFound(f"no such path: {path}")
        data = self._machine.image(mount.dev).data
        total, used = int(data[SUPERBLOCK].decode().split()[1]), 4096 * len(data)
        return Usage(total, used, total - used, 1000, len(data), 1000 - len(data))
