"""The only writer of io.max, and the only file of this package that touches the machine.

A limit stands once, on the cgroup that is the common ancestor of everything that may use the volume: there it holds for
the sum, is in place before any pod starts, and neither systemd nor the kubelet rewrites it. Kernel interface:
Documentation/admin-guide/cgroup-v2.rst; the parser's rules: tg_set_limit in block/blk-throttle.c.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from qos.errors import OFF, DeviceGone, Unenforceable, refused
from qos.iofiles import IoStat, format_io_max, parse_io_max, parse_io_stat
from qos.limits import UNLIMITED, DevNo, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

__all__ = ["MOUNTPOINT", "Cgroup", "DeviceGone", "HelperCgroup", "IoStat", "Unenforceable", "find_ancestor"]

MOUNTPOINT: Final = Path("/sys/fs/cgroup")
# io alone would not do: a buffered write is charged to its writer only where memory is controlled beside io.
CONTROLLERS: Final = ("io", "memory")
# Slices are the only units that may stand above others. Accounting is what makes systemd enable a controller.
_UNIT: Final = """\
[Unit]
Description=Programs whose I/O Sluice limits
Documentation=https://docs.kernel.org/admin-guide/cgroup-v2.html

[Slice]
IOAccounting=yes
MemoryAccounting=yes
"""
_SYSTEMCTL_SECONDS: Final = 30.0


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
        try:
            return (self.path / name).read_text()
        except OSError as error:
            raise refused(f"read {self.path / name}", error) from error

    def _write(self, name: str, text: str) -> None:
        """Hand one text to the kernel, in one write(2): it judges each write by itself."""
        path = self.path / name
        try:
            # No O_CREAT: where the file is missing, a regular file must not take its place.
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise refused(f"write {text.strip()!r} to {path}", error) from error


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
        _mkdir(self._cgroup.path)
        self._cgroup.enable(*CONTROLLERS)
        for disk in disks:
            self._cgroup.write_limits(disk, limits)

    def prefix(self) -> tuple[str, ...]:
        """Return the words to put before a program's argv so that it runs in this cgroup.

        A shell moves itself and becomes the program: code between fork and exec (preexec_fn) is not safe in a process
        with threads. If it can't move, it must not run the program: `&&`. 0 stands for the process that writes.
        """
        return ("sh", "-c", 'echo 0 > "$0" && exec "$@"', str(self._cgroup.path / "cgroup.procs"))


@dataclass(frozen=True, slots=True)
class Init:
    """Say where a machine keeps what tells of its init system and of our place in it. Tests have other places."""

    own: Path = Path("/proc/self/cgroup")
    systemd: Path = Path("/run/systemd/system")  # there only where systemd runs: sd_booted(3)
    systemctl: tuple[str, ...] = ("systemctl",)

    def make_slice(self) -> None:
        """Start sluice.slice as a runtime unit, which is gone after a reboot. Raises Unenforceable."""
        unit = self.systemd / "sluice.slice"
        try:
            unit.write_text(_UNIT)
            # Without the reload, start would make a slice from its name alone, without accounting, and say nothing.
            self._systemctl("daemon-reload")
            self._systemctl("start", unit.name)
        except (OSError, subprocess.SubprocessError) as error:
            last_words = getattr(error, "stderr", "") or ""
            raise Unenforceable(
                f"start sluice.slice: {error} {last_words}".strip() + f": run as root, {OFF}"
            ) from error

    def _systemctl(self, *words: str) -> None:
        """Ask systemd for something, and wait until it is done."""
        argv = (*self.systemctl, "--no-ask-password", *words)
        subprocess.run(argv, check=True, capture_output=True, text=True, timeout=_SYSTEMCTL_SECONDS)


def find_ancestor(choice: str, mountpoint: Path = MOUNTPOINT, init: Init | None = None) -> Cgroup:
    """Return the cgroup that stands above everything that is to be limited, ready for limits.

    "auto" takes the one above all pods, as seen above our own pod or at the root; without Kubernetes, sluice.slice,
    which it starts; without systemd, a plain cgroup `sluice`. Anything else is a path, absolute or from the mount
    point, to a cgroup that exists. Raises Unenforceable with the reason.
    """
    _check_mount(mountpoint)
    init = init or Init()
    if choice != "auto":
        ancestor = Cgroup(_chosen(choice, mountpoint))
    elif (pods := above_pods(mountpoint, init)) is not None:
        ancestor = Cgroup(pods)
    elif init.systemd.is_dir():
        ancestor = Cgroup(mountpoint / "sluice.slice", make=init.make_slice)
    else:
        plain = mountpoint / "sluice"
        ancestor = Cgroup(plain, make=partial(_mkdir, plain))
    ancestor.repair()
    return ancestor


def _check_mount(mountpoint: Path) -> None:
    """Accept a mount of cgroup v2 whose kernel has the controllers that limits need."""
    if not (mountpoint / "cgroup.controllers").exists():
        raise Unenforceable(
            f"no cgroup v2 at {mountpoint}: cgroup v1 is in use, or it is mounted elsewhere; boot with "
            f"systemd.unified_cgroup_hierarchy=1, {OFF}"
        )
    here = (mountpoint / "cgroup.controllers").read_text().split()
    for name in CONTROLLERS:
        if name not in here:
            raise Unenforceable(
                f"no {name} controller on cgroup v2 at {mountpoint} (it has: {' '.join(here) or 'none'}): kernel "
                "without CONFIG_BLK_CGROUP, CONFIG_BLK_DEV_THROTTLING or CONFIG_MEMCG, started with "
                f"cgroup_disable={name}, or cgroup v1 holds it; use another kernel, {OFF}"
            )


def _chosen(choice: str, mountpoint: Path) -> Path:
    """Return the folder that the operator named, if it is a cgroup below the root."""
    path = Path(os.path.normpath(mountpoint / choice))
    if mountpoint not in path.parents:
        raise Unenforceable(
            f"take {choice!r} as ancestor: not below {mountpoint}, and the root has no io.max: name another"
        )
    if not (path / "cgroup.controllers").exists():
        raise Unenforceable(f"take {choice!r} as ancestor: {path} is no cgroup: create it first, or choose auto")
    return path


def above_pods(mountpoint: Path, init: Init) -> Path | None:
    """Return the kubelet's cgroup of all pods: one of our own parents, else one at the root; None without Kubernetes.

    The own one comes first, since a kubelet with a cgroup root of its own (kind) has it elsewhere in the tree.
    """
    # One line on cgroup v2, "0::/kubepods.slice/..."; "/" where our cgroup namespace hides the parents.
    lines = init.own.read_text().splitlines() if init.own.exists() else []
    own = Path(next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), ""))
    above = [path for path in (own, *own.parents) if path.name == "kubepods" or path.name.endswith("kubepods.slice")]
    candidates = [mountpoint / path for path in (*above, Path("kubepods.slice"), Path("kubepods"))]
    return next((path for path in candidates if (path / "cgroup.controllers").exists()), None)


def _mkdir(path: Path) -> None:
    """Make a cgroup where it is missing."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise refused(f"make {path}", error) from error
