"""What stands on a block device: partitions, mappings, mounts, swap. A disk with any of these is nobody's to take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.errors import InUse, Invalid, NotFound
from csi_driver.host import block, mountinfo
from csi_driver.host.pvlabel import OURS, PASSED_OVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.host.block import Device
    from qos.limits import DevNo

SWAPS = Path("/proc/swaps")


def check_free(device: Device, sys: Path = block.SYS, swaps: Path = SWAPS) -> None:
    """Raise InUse, saying what stands on a device, or Invalid where a server would look for no pool."""
    name = block.sysfs(device.dev, sys).name
    uuid = _text(sys / "block" / name / "dm/uuid")
    if name.startswith(PASSED_OVER):
        raise Invalid(f"device {device.path}: a server looks for no pool on {name}; give a disk, or a partition")
    if uuid.startswith(OURS):
        raise InUse(f"device {device.path} is a logical volume, or a volume of a pool's: give a disk")
    if block.read_only(device.dev, sys):
        raise Invalid(f"device {device.path} is read-only")
    if carried := [*standing(device.dev, sys, swaps)]:
        raise InUse(f"device {device.path} is in use: it carries {', '.join(carried)}; give a disk that is empty")
    if block.claimed(device):
        raise InUse(f"device {device.path} is in use by a program: fuser -v {device.path} says by which")


def standing(dev: DevNo, sys: Path = block.SYS, swaps: Path = SWAPS) -> Iterator[str]:
    """Yield in words what stands on a device, also on its partitions and mappings."""
    folder = block.sysfs(dev, sys)
    for mount in mountinfo.of(dev):
        yield f"the mount {mount.target}"
    if dev in swapped_on(swaps):
        yield "swap"
    for part in sorted(path.parent for path in folder.glob("*/partition")):
        yield from _below(f"partition {part.name}", part, sys, swaps)
    for holder in block.holders(dev, sys):
        of = (sys / "block" / holder).resolve()
        yield from _below(_text(of / "dm/name") or holder, of, sys, swaps)


def swapped_on(swaps: Path = SWAPS) -> frozenset[DevNo]:
    """Return the devices that the machine swaps to; of a swap file its file system's."""
    paths = [Path(line.split()[0]) for line in _text(swaps).splitlines()[1:]]
    found = set()
    for path in paths:
        try:
            found.add(block.device_at(path).dev)
        except Invalid:
            found.add(block.inode_of(path).dev)
        except NotFound:  # an octal escape, or gone meanwhile
            continue
    return frozenset(found)


def _below(what: str, folder: Path, sys: Path, swaps: Path) -> Iterator[str]:
    more = ", ".join(standing(block.device_number(folder), sys, swaps))
    yield f"{what} ({more})" if more else what


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
