"""The only writer of io.max, io.weight, io.cost.model, io.cost.qos and of how large a disk's requests may be.

A limit stands once, on the cgroup that is the common ancestor of everything that may use the volume: there it holds for
the sum, is in place before any pod starts, and neither systemd nor the kubelet rewrites it. Kernel interface:
Documentation/admin-guide/cgroup-v2.rst; the parser's rules: tg_set_limit in block/blk-throttle.c.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from qos.errors import OFF, DeviceGone, Unenforceable, refused
from qos.iocost import Model, Qos, parse_model, parse_qos
from qos.iofiles import IoStat, format_io_max, parse_io_max, parse_io_stat, parse_io_weight
from qos.limits import UNLIMITED, DevNo, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")

MOUNTPOINT: Final = Path("/sys/fs/cgroup")
BLOCK: Final = Path("/sys/dev/block")
# io alone would not do: a buffered write is charged to its writer only where memory is controlled beside io.
CONTROLLERS: Final = ("io", "memory")


class Cgroup:
    """Read and write the I/O files of one cgroup v2 folder.

    Methods raise Unenforceable where the kernel doesn't do what was asked. Not locked: callers write one at a time.
    """

    def __init__(self, path: Path, *, make: Callable[[], None] | None = None) -> None:
        """Name the folder. `make` creates it anew and prepares it, where it is ours to create."""
        self.path = path
        self._make = make

    def __str__(self) -> str:
        return str(self.path)

    def read_limits(self) -> dict[DevNo, Limits]:
        """Return all limits of the cgroup, by one read of io.max; a device without limits has no entry."""
        return self._parse("io.max", parse_io_max)

    def write_limits(self, dev: DevNo, limits: Limits) -> Limits:
        """Set all four limits of a device in one write, read them back, and return what the kernel shows.

        One device per write: the kernel applies nothing of two lines. Raises DeviceGone, or Unenforceable if the kernel
        refuses or shows something else.
        """
        self._write("io.max", format_io_max(dev, limits))
        shown = self.read_limits().get(dev, UNLIMITED)
        if shown != limits:
            raise Unenforceable(
                f"limit {dev} in {self.path}: wrote {limits}, the kernel shows {shown}: "
                "another program writes io.max; stop it (systemctl set-property, a container runtime's blkio options)"
            )
        return shown

    def clear(self, dev: DevNo) -> None:
        """Take all limits off a device. Fine when the device, or the cgroup, is gone and its limits with it."""
        try:
            self._write("io.max", format_io_max(dev, UNLIMITED))
        except DeviceGone:
            return
        except Unenforceable:
            if self.has_io():
                raise

    def io_stat(self) -> dict[DevNo, IoStat]:
        """Return the counters of all devices that the cgroup used, by one read of io.stat."""
        return self._parse("io.stat", parse_io_stat)

    def read_weights(self) -> dict[DevNo, int]:
        """Return the cgroup's weights by disk; a disk without a line has the one that all others have."""
        return self._parse("io.weight", parse_io_weight)

    def write_weight(self, disk: DevNo, weight: int) -> None:
        """Let the cgroup count so much against its siblings on a disk where io.cost is on. Raises Unenforceable."""
        self._write("io.weight", f"{disk} {weight}\n")
        self._check_shown("io.weight", disk, weight, self.read_weights())

    def has_weights(self) -> bool:
        """Return whether it competes with its siblings: the root has none, nor what has no io of its own."""
        return (self.path / "io.weight").exists()

    def children(self) -> list[Path]:
        """Return the cgroups in this one, by name; none where it is gone."""
        try:
            return sorted(path for path in self.path.iterdir() if path.is_dir())
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno == errno.ENODEV:
                return []
            raise refused(f"list {self.path}", error) from error

    def has_io(self) -> bool:
        """Return whether limits can be written here. The root cgroup never has them."""
        return (self.path / "io.max").exists()

    def enable_io(self) -> None:
        """Enable io for this cgroup, from the root down: a controller is on only where it is on in all parents.

        Raises Unenforceable, with the level that refused.
        """
        self.enable("io")

    def enable(self, *controllers: str) -> None:
        """Enable controllers for this cgroup in every parent's subtree_control, from the root down."""
        for parent in reversed(self._parents()):
            Cgroup(parent).enable_for_children(*controllers)

    def enable_for_children(self, *controllers: str) -> None:
        """Enable controllers for the children of this cgroup, one write each. Those that are on are left alone.

        Raises Unenforceable if the kernel lacks one, or if processes sit in this cgroup itself.
        """
        enabled = self._read("cgroup.subtree_control").split()
        for name in controllers:
            if name not in enabled:
                self._write("cgroup.subtree_control", f"+{name}")

    def repair(self) -> None:
        """Make limits writable here again, after somebody took io, or the whole cgroup, away. Raises Unenforceable."""
        if self._make is not None:
            self._make()
        self.enable(*CONTROLLERS)
        if self._make is not None:
            self.enable_for_children(*CONTROLLERS)
        if not self.has_io():
            raise Unenforceable(
                f"enable io in {self.path}: there is no io.max: the kernel lacks CONFIG_BLK_DEV_THROTTLING, or the "
                f"cgroup is gone; use another kernel, name another ancestor, {OFF}"
            )

    def _check_shown(self, name: str, dev: DevNo, wrote: T, shown: Mapping[DevNo, T]) -> None:
        """Raise Unenforceable unless the kernel shows what was written."""
        if shown.get(dev) != wrote:
            raise Unenforceable(
                f"set {dev} in {self.path / name}: wrote {wrote}, the kernel shows {shown.get(dev)}: another program "
                f"writes {name}; stop it"
            )

    def _parents(self) -> list[Path]:
        """Return the cgroups above this one, the nearest first. Above the root there is no cgroup.controllers."""
        parents = []
        for parent in self.path.parents:
            if not (parent / "cgroup.controllers").exists():
                break
            parents.append(parent)
        return parents

    def _parse(self, name: str, parse: Callable[[str], T]) -> T:
        """Return one of the cgroup's files as a value."""
        try:
            return parse(self._read(name))
        except ValueError as error:
            raise Unenforceable(
                f"read {self.path / name}: {error}: this kernel has a form that is unknown here"
            ) from error

    def _read(self, name: str) -> str:
        """Return the text of one of the cgroup's files."""
        return _read(self.path / name)

    def _write(self, name: str, text: str) -> None:
        """Hand one text to the kernel, in one write(2): it judges each write by itself."""
        _write(self.path / name, text)


class RootCgroup(Cgroup):
    """Read and write io.cost of whole disks, which only the root cgroup has. Each change stops a disk for a moment."""

    def __init__(self, path: Path = MOUNTPOINT, *, block: Path = BLOCK) -> None:
        """Name the root, and the folder with a link for each block device's number."""
        super().__init__(path)
        self._block = block

    def read_models(self) -> dict[DevNo, Model]:
        """Return what io.cost was told that disks do."""
        return self._parse("io.cost.model", parse_model)

    def write_model(self, disk: DevNo, model: Model) -> None:
        """Tell io.cost what a disk does, and read it back. Raises Unenforceable, DeviceGone."""
        self._write("io.cost.model", model.line(disk))
        self._check_shown("io.cost.model", disk, model, self.read_models())

    def read_qos(self) -> dict[DevNo, Qos]:
        """Return at which rate io.cost lets requests through, on the disks where it is on at a fixed one."""
        return self._parse("io.cost.qos", parse_qos)

    def write_qos(self, disk: DevNo, qos: Qos) -> None:
        """Turn io.cost on for a disk, and read it back. Raises Unenforceable, DeviceGone."""
        self._write("io.cost.qos", qos.line(disk))
        self._check_shown("io.cost.qos", disk, qos, self.read_qos())

    def read_largest(self, disk: DevNo) -> int:
        """Return the bytes of the largest request that a disk sees. Raises DeviceGone, Unenforceable."""
        return int(_read(self._largest(disk))) << 10

    def write_largest(self, disk: DevNo, largest: int) -> None:
        """Let a disk see no larger request than so many bytes; gone after a reboot. Raises as `read_largest`."""
        path = self._largest(disk)
        _write(path, f"{largest >> 10}\n")
        if (shown := self.read_largest(disk)) > largest:
            raise Unenforceable(
                f"set {path}: wrote {largest >> 10}, the kernel shows {shown >> 10}: run another kernel"
            )

    def _largest(self, disk: DevNo) -> Path:
        """Return the file that bounds a disk's requests, in KiB."""
        if not (path := self._block / str(disk) / "queue/max_sectors_kb").exists():
            raise DeviceGone(f"no {path}: the disk is gone, or a partition, which has no queue: use the whole disk")
        return path


class HelperCgroup:
    """Hold programs that do I/O for the driver (mkfs, fsck, growfs), with limits of their own.

    It lies outside the limited ancestor: a mkfs held to its volume's ceiling could not end in time, and without any
    limit it could take the disk away from every pod.
    """

    def __init__(self, cgroup: Cgroup | None = None) -> None:
        """Name the cgroup, by default /sys/fs/cgroup/sluice-helpers; `ensure` makes it."""
        self._cgroup = cgroup or Cgroup(MOUNTPOINT / "sluice-helpers")

    def ensure(self, disks: Iterable[DevNo], limits: Limits) -> None:
        """Make the cgroup where it is missing, and put the limits on each disk. Whole disks only.

        Raises Unenforceable, or DeviceGone for a partition.
        """
        make_cgroup(self._cgroup.path)
        self._cgroup.enable(*CONTROLLERS)
        for disk in disks:
            self._cgroup.write_limits(disk, limits)

    def prefix(self) -> tuple[str, ...]:
        """Return the words to put before a program's argv so that it runs in this cgroup.

        A shell moves itself and becomes the program: code between fork and exec (preexec_fn) is not safe in a process
        with threads. If it can't move, it must not run the program: `&&`. 0 stands for the process that writes.
        """
        return ("sh", "-c", 'echo 0 > "$0" && exec "$@"', str(self._cgroup.path / "cgroup.procs"))


def make_cgroup(path: Path) -> None:
    """Make a cgroup where it is missing."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise refused(f"make {path}", error) from error


def _read(path: Path) -> str:
    """Return the text of a file of the kernel's."""
    try:
        return path.read_text()
    except OSError as error:
        raise refused(f"read {path}", error) from error


def _write(path: Path, text: str) -> None:
    """Hand one text to the kernel, in one write(2)."""
    try:
        # No O_CREAT: where the file is missing, a regular file must not take its place.
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise refused(f"write {text.strip()!r} to {path}", error) from error
