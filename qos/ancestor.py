"""Where limits stand: the cgroup above everything that may use a volume, found or made.

In Kubernetes the kubelet's own; on a machine without, a slice that systemd starts for us, or a plain cgroup.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from qos.cgroup import CONTROLLERS, MOUNTPOINT, Cgroup, make_cgroup
from qos.errors import OFF, Unenforceable

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
        ancestor = Cgroup(plain, make=partial(make_cgroup, plain))
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
