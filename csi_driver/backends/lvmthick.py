"""Thick volumes: logical volumes of their own beside the thin pool, zeroed before anybody sees them.

Their room is the group's, not the thin pool's. With several disks they are striped where all of them have room. Three
tags say how far one is, and lvm makes them durable with the group's metadata:

    sluice:zeroed=BYTES     what is surely zeros, or its user's: no more than that is ever shown
    sluice:reached=BYTES    what is zeroed of it while that takes several tries
    sluice:blank=yes        nobody was given it yet

So whatever is cut, zeroing goes on where the last try that ended had got to, and nothing is offered before it is done.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from csi_driver.backends import lvmtags
from csi_driver.backends.lvmgroup import BLANK, OF_POOL, PREFIX, REACHED, ZEROED, Lv
from csi_driver.deadline import Deadline
from csi_driver.errors import Busy, Foreign, NoSpace
from csi_driver.host import block
from csi_driver.host.zeroing import zero

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from csi_driver.backends.base import Passport
    from csi_driver.backends.lvmgroup import Group
    from csi_driver.host.block import Device
    from csi_driver.host.syscalls import Kernel

log = structlog.get_logger(__name__)

SLICE_SECONDS = 5.0
"""How long one try zeroes: between two of them the volume can be deleted, and the server stopped.

Each that doesn't come to the end runs a program, which notes how far it got.
"""


class Thick:
    """Make, grow and hand out thick volumes. What is known of the group is kept current here too."""

    def __init__(
        self,
        vg: str,
        thinpool: str,
        group: Group,
        kernel: Kernel,
        device_of: Callable[[str], Device],
    ) -> None:
        """Take what gives a logical volume's device."""
        self._vg, self._thinpool = vg, thinpool
        self._group = group
        self._kernel = kernel
        self._device_of = device_of

    def create(self, there: Lv | None, passport: Passport, size: int) -> bool:
        """Make a volume of zeros, or go on with one that was cut. False: it was made. Raises Busy until all is zero."""
        if there is None:
            there = self._allocate(passport, size)
        elif there.passport is None or there.zeroed != 0:
            return False
        self._zero(passport.id, there)
        return True

    def expand(self, record_id: str, lv: Lv, size: int) -> bool:
        """Grow a volume; what it grows by is zeroed before it is shown. Raises Busy until that is done."""
        if not lv.zeroed:
            raise Foreign(f"{self._vg}/{lv.name} has lost its tag {ZEROED}BYTES, so that nobody knows what is zeroed")
        if lv.zeroed >= size:
            return False
        if lv.size < size:
            self._group.change("lvextend", "-L", f"{size}b", f"{self._vg}/{lv.name}")
            lv = replace(lv, size=self._group.whole_extents(size))
            self._group.keep(record_id, lv)
        elif block.size_bytes(self._device_of(lv.name).dev) < size:  # a command was cut before the device had it
            self._group.change("lvchange", "--refresh", f"{self._vg}/{lv.name}")
        self._zero(record_id, lv)
        return True

    def take(self, record_id: str, lv: Lv) -> None:
        """Note, durably, that somebody is given the volume."""
        if lv.blank:
            self._group.change("lvchange", "--deltag", BLANK, f"{self._vg}/{lv.name}")
            self._group.keep(record_id, replace(lv, blank=False))

    def _allocate(self, passport: Passport, size: int) -> Lv:
        tags = (*lvmtags.write(passport), OF_POOL + self._thinpool, f"{ZEROED}0")
        words = ["-y", "-L", f"{size}b", "-Z", "n", "-W", "n", "-n", PREFIX + passport.id]
        words += [word for tag in tags for word in ("--addtag", tag)]
        try:
            self._group.change("lvcreate", *self._stripes(), *words, self._vg)
        except NoSpace:
            if not self._stripes():
                raise
            self._group.change("lvcreate", *words, self._vg)
        lv = Lv(PREFIX + passport.id, self._group.whole_extents(size), passport, thick=True, zeroed=0)
        self._group.keep(passport.id, lv)
        return lv

    def _stripes(self) -> tuple[str, ...]:
        disks = len(self._group.devices)
        return ("-i", str(disks)) if disks > 1 else ()

    def _zero(self, record_id: str, lv: Lv) -> None:
        """Zero what isn't, for a while, and say in the tags how far that got, or that all is."""
        device, old = self._device_of(lv.name), lv.zeroed or 0
        size = block.size_bytes(device.dev)
        reached = zero(self._kernel, device.path, max(old, lv.reached), size, Deadline(SLICE_SECONDS))
        gone = [f"{REACHED}{lv.reached}"] if lv.reached else []
        if reached < size:
            self._mark(record_id, replace(lv, reached=reached), gone, [f"{REACHED}{reached}"])
            log.info("zeroing", volume=record_id, bytes=reached, of=size)
            raise Busy(f"{self._vg}/{lv.name} is being zeroed: {reached} of {size} bytes are; ask again")
        done = replace(lv, size=size, zeroed=size, reached=0, blank=lv.blank or not old)
        self._mark(record_id, done, [*gone, f"{ZEROED}{old}"], [f"{ZEROED}{size}"] + ([] if old else [BLANK]))

    def _mark(self, record_id: str, lv: Lv, gone: Sequence[str], new: Sequence[str]) -> None:
        words = [("--deltag", tag) for tag in gone] + [("--addtag", tag) for tag in new]
        self._group.change("lvchange", *(word for pair in words for word in pair), f"{self._vg}/{lv.name}")
        self._group.keep(record_id, lv)
