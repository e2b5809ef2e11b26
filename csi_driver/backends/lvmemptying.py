"""Large thin volumes lose their chunks a few at a time before they are removed.

The kernel removes a thin device in one go, and nobody in its pool reads or writes meanwhile, the longer the more chunks
are mapped. Discards cost fifty times as much, but each holds the others up for no longer than itself. So all chunks but
AT_ONCE are discarded first, in steps of a tenth of a second, with pauses. Decision 0014 has the figures.

What is discarded is a volume without some of its bytes. So the first thing is a tag, which lvm makes durable:

    sluice:condemned=yes    never to be shown again, also where its record was lost
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from csi_driver.backends.lvmgroup import CONDEMNED, Lv
from csi_driver.deadline import Deadline
from csi_driver.errors import Busy, Unsupported
from csi_driver.host import block
from csi_driver.host.discard import discard, held_alone, next_step
from qos.quantity import format_bytes

if TYPE_CHECKING:
    from csi_driver.backends.lvmdevices import LvDevices
    from csi_driver.backends.lvmgroup import Group
    from csi_driver.host.block import Device
    from csi_driver.host.syscalls import Kernel

log = structlog.get_logger(__name__)

AT_ONCE = 1 << 18
"""How many chunks are left to the removal: 16 GiB of 64 KiB each. Some tenths of a second at worst."""
SMALLEST_STEP, LARGEST_STEP = 16, 1024
"""Chunks. The kernel makes no larger one of a discard than LARGEST_STEP (dm-bio-prison-v1.h)."""
PAUSES = 3.0
"""How long the pause after a step is, in times what it took: so long the pool's one worker is for the others."""
SLICE_SECONDS = 1.0
"""How long one try discards: between two of them the agent can do something else, or be stopped."""


class Emptying:
    """Take chunks away from volumes of one pool that are to be removed, one volume at a time."""

    def __init__(self, vg: str, group: Group, devices: LvDevices, kernel: Kernel) -> None:
        """Take the group's name, and what to ask and to change."""
        self._vg = vg
        self._group = group
        self._devices = devices
        self._kernel = kernel
        self._one = threading.Lock()
        self._reached: dict[str, int] = {}
        self._step = LARGEST_STEP

    def empty(self, record_id: str, lv: Lv) -> None:
        """Discard what a volume has mapped, but for what its removal may do at once. Raises Busy until that is done.

        Nothing is done with what isn't active, such as a snapshot, or may share chunks with another: the removal lets
        go of what they share in one step, while discards would first give each metadata of its own for it.
        """
        device = self._devices.of(lv.name)
        enough = AT_ONCE * self._group.chunk
        if lv.thick or device is None or self._devices.mapped(lv.name).bytes <= enough or block.read_only(device.dev):
            return
        if self._may_share(record_id, lv):
            return
        if not self._one.acquire(blocking=False):
            raise Busy(f"{self._vg}/{lv.name} is removed when another large volume of the pool is; ask again")
        try:
            self._condemn(record_id, lv)
            left = self._discard(lv.name, device, enough)
        except Unsupported as error:  # a pool that passes none on, and takes none
            log.info("not discarded before it is removed", volume=record_id, reason=str(error))
            return
        finally:
            self._one.release()
        if left > enough:
            log.debug("emptying", volume=record_id, mapped=left)
            raise Busy(
                f"{self._vg}/{lv.name} is emptied before it is removed: {format_bytes(left)} of it are mapped still; "
                "ask again"
            )
        self._reached.pop(lv.name, None)

    def _may_share(self, record_id: str, lv: Lv) -> bool:
        """Return whether a volume was copied, or is a copy, as far as is known: the source of another may be gone."""
        lvs = self._group.lvs.copy()  # others change it meanwhile
        parents = {each.passport.parent for each in lvs.values() if each.passport} - {""}
        copy = bool(lv.passport and lv.passport.parent)
        return copy or any(parent == record_id or parent not in lvs for parent in parents)

    def _condemn(self, record_id: str, lv: Lv) -> None:
        if not lv.condemned:
            self._group.change("lvchange", "--addtag", CONDEMNED, f"{self._vg}/{lv.name}")
            self._group.keep(record_id, replace(lv, condemned=True))

    def _discard(self, name: str, device: Device, enough: int) -> int:
        """Discard from the end down for a while, one step at least, and return how many bytes are mapped then.

        From the end, since the kernel says where that is: what was never written there is skipped.
        """
        deadline, chunk = Deadline(SLICE_SECONDS), self._group.chunk
        whole = block.size_bytes(device.dev) // chunk * chunk  # no part of a chunk is ever discarded
        with held_alone(self._kernel, device.path) as fd:
            if self._devices.openers(name) > 1:
                raise Busy(f"{self._vg}/{name} is removed when nobody has it open any more; ask again")
            took = 0.0
            while True:
                mapped = self._devices.mapped(name)
                end = min(mapped.end, self._reached.get(name, whole))
                if mapped.bytes <= enough or end <= 0:
                    return min(mapped.bytes, enough)
                if took and deadline.passed():
                    return mapped.bytes
                start, began = max(0, end - self._step * chunk), time.monotonic()
                discard(self._kernel, fd, device.path, start, end - start)
                self._reached[name] = start
                took = time.monotonic() - began
                self._step = next_step(self._step, took, SMALLEST_STEP, LARGEST_STEP)
                time.sleep(min(took * PAUSES, deadline.left()))
