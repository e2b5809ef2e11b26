"""Disks under pools, and what floors have of them. Budgets are kept by disk, since two pools may share one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qos.iocost import PROMISABLE, RATE, WHOLE, Cost, Floor

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Disk:
    """Name a disk under a pool. `device` is its number, `size` in bytes.

    `cost` says what I/O costs on it, None where nobody knows; `promised`, in millionths, what floors have of it.
    """

    name: str
    device: str
    serial: str = ""
    model: str = ""
    size: int = 0
    cost: Cost | None = None
    promised: int = 0

    @property
    def key(self) -> str:
        """Return what the disk is called in the configuration: its serial number, which lasts, else its name."""
        return self.serial or self.name

    @property
    def free(self) -> int:
        """Return how many millionths can still be promised."""
        return max(0, PROMISABLE - self.promised)

    def with_promised(self, cost: Cost | None, promised: int) -> Disk:
        """Return the same disk with other figures."""
        return dataclasses.replace(self, cost=cost, promised=promised)


def lacking(disks: Sequence[Disk], floor: Floor) -> str:
    """Return why these disks can't give a floor beside what was promised, with the arithmetic; "" when they can.

    It counts in full on each disk of a pool, since nobody knows where on them the next request goes.
    """
    if floor and not disks:
        return f"a floor of {floor}: no disk is known below the pool, and a floor is promised of a disk"
    return next(filter(None, (_lacking(disk, floor) for disk in disks)), "") if floor else ""


def _lacking(disk: Disk, floor: Floor) -> str:
    if disk.cost is None:
        return (
            f"a floor of {floor}: nobody knows what disk {disk.key} can do; write [disks.{disk.key!r}] with readIOPS, "
            "writeIOPS, readBPS and writeBPS into the server's configuration"
        )
    share = disk.cost.share(floor)
    if share <= disk.free:
        return ""
    return (
        f"a floor of {floor} takes {_percent(share)} of disk {disk.key}, of which {promised(disk, disk.cost)}: ask for "
        f"at most {int(disk.cost.iops_of(disk.free))} IOPS, or another pool"
    )


def promised(disk: Disk, cost: Cost) -> str:
    """Return what floors have of a disk on which I/O costs so much, and what is free, for people."""
    most = f"{_percent(PROMISABLE)} can be promised of {RATE} % of its {cost.iops} IOPS"
    return f"{_percent(disk.promised)} is promised and {_percent(disk.free)} free ({most})"


def _percent(share: int) -> str:
    return f"{share * 100 / WHOLE:.1f} %"
