"""What `sluice doctor` looks at of file systems: the kernel's part, and the programs. btrfs may be missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.cli.checks import Check, missing, ok, warning
from csi_driver.deadline import Deadline
from csi_driver.host import facts
from csi_driver.host.btrfs import copies_mount
from csi_driver.host.run import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.assemble import Machine
    from csi_driver.host.facts import Program

NEEDED = {"ext4": ("mkfs.ext4", "e2fsck", "resize2fs"), "xfs": ("mkfs.xfs", "xfs_repair")}
"""What volumes need by default, and pools. The others in PACKAGES belong to other features, or to the demo."""
OPTIONAL = {"btrfs": ("mkfs.btrfs",)}
WITHOUT = "volumes with fsType {} can't be made or used"
PROGRAM_SECONDS = 20.0


def format_checks(machine: Machine) -> Iterator[Check]:
    """Look at what each file system needs of a machine."""
    programs = {found.name: found for found in facts.programs(machine.runner, Deadline(PROGRAM_SECONDS))}
    for name, needs in (NEEDED | OPTIONAL).items():
        in_kernel = _in_kernel(name)
        yield in_kernel
        yield from (_program(programs[need], name) for need in needs)
        if name == "btrfs" and not in_kernel.remedy:
            yield _copies()


def _in_kernel(name: str) -> Check:
    label = f"{name} in the kernel"
    if name in Path("/proc/filesystems").read_text().split():
        return ok(label, "ready")
    modules = Path("/lib/modules") / facts.kernel_release() / "modules.dep"
    if modules.exists() and f"/{name}.ko" in modules.read_text():
        return ok(label, "a module, loaded by the first mount")
    found, remedy = "neither built in nor a module", f"modprobe {name}, or a kernel with CONFIG_{name.upper()}_FS"
    if name in OPTIONAL:
        return warning(label, f"{found}; {WITHOUT.format(name)}", remedy)
    return missing(label, found, remedy)


def _program(program: Program, name: str) -> Check:
    if program.path:
        return ok(program.name, program.version or program.path)
    remedy = f"apt-get install {PACKAGES[program.name]}"
    if name in OPTIONAL:
        return warning(program.name, f"not found; {WITHOUT.format(name)}", remedy)
    return missing(program.name, "not found", remedy)


def _copies() -> Check:
    if copies_mount():
        return ok("btrfs copies", "mounted beside their source")
    return warning(
        "btrfs copies",
        f"kernel {facts.kernel_release()} can't mount a btrfs and its copy at once: its clones are refused",
        "run Linux 6.7 or newer, or use ext4 or xfs",
    )
