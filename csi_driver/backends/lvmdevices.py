"""What device-mapper has of a thin pool: its own state, the devices of its volumes, and what was left suspended."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import structlog

from csi_driver.backends.lvmgroup import dm_name
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Unknown, Unready
from csi_driver.host import block
from csi_driver.host.thin import OUT_OF_SPACE, Mapped, mapped, pool_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import RLock

    from csi_driver.host.block import Device
    from csi_driver.host.dm import DeviceMapper, Info
    from csi_driver.host.thin import PoolState

OTHERS_SECONDS = 3.0
"""How long a command of somebody else's may keep a device suspended."""

log = structlog.get_logger(__name__)


class LvDevices:
    """Ask the kernel about the logical volumes of one group, and its thin pool."""

    def __init__(self, vg: str, thinpool: str, mapper: DeviceMapper, changes: RLock) -> None:
        """Take the names, device-mapper, and the lock that who changes the group holds."""
        self._vg, self._thinpool = vg, thinpool
        self._mapper = mapper
        self._changes = changes

    def of(self, name: str) -> Device | None:
        """Return a logical volume's device when it is active."""
        info = self._mapper.info(dm_name(self._vg, name))
        return info.device if info and info.targets else None

    def allocated(self, name: str) -> int:
        """Return the bytes of mapped chunks; 0 for what isn't active, as a snapshot: the kernel knows nothing of it."""
        return self.mapped(name).bytes

    def mapped(self, name: str) -> Mapped:
        """Return what is mapped of a thin volume, nothing for what isn't active. Raises Unready."""
        words = self._mapper.status(dm_name(self._vg, name))
        return Mapped(0, 0) if words is None else mapped(name, words)

    def openers(self, name: str) -> int:
        """Return how often a logical volume's device is open."""
        info = self._mapper.info(dm_name(self._vg, name))
        return info.open_count if info else 0

    def pool_words(self) -> str:
        """Return what the pool's target says, "" while it isn't active. Without volumes its own name has the target."""
        name = dm_name(self._vg, self._thinpool)
        return self._mapper.status(name + "-tpool") or self._mapper.status(name) or ""

    def pool_state(self) -> PoolState:
        """Return the pool's state. Raises Unready when it takes no writes but for want of space."""
        name = f"{self._vg}/{self._thinpool}"
        words = self.pool_words()
        if not words:  # the first volume of a pool has its device made anew
            with self._changes:
                words = self.pool_words()
        if not words:
            raise Unready(f"thin pool {name} is not active: vgchange -ay {self._vg}")
        state = pool_state(name, words)
        if state.needs_check:
            raise Unready(
                f"thin pool {name} must be repaired: unstage its volumes, stop the server, then vgchange -an "
                f"{self._vg} and lvconvert --repair {name}"
            )
        if state.mode not in {"rw", OUT_OF_SPACE}:
            full = 100 * state.metadata_used // state.metadata_total
            raise Unready(
                f"thin pool {name} is in mode {state.mode}, its metadata {full}% full: where that is much, "
                f"sluice pool extend --metadata; else see the kernel log, and lvconvert --repair {name}"
            )
        return state

    def check_below(self) -> None:
        """Raise Unready while a device stands on a disk that was pulled out: put back, it is another device."""
        for info in self._mapped():
            if pulled := block.pulled_below(info.device.dev):
                raise Unready(
                    f"disk {', '.join(pulled)} was pulled out from under {info.name}, which fails though the disk is "
                    f"back: unstage the pool's volumes, then vgchange -an {self._vg}: they are activated anew"
                )

    def resume_all(self) -> None:
        """Resume what a command that was killed left suspended, what is below first: pods hang on it.

        With the tables that they had: new ones may be of a change that was never committed. An administrator's command
        resumes its own.
        """
        if not self._suspended():
            return
        with contextlib.suppress(Unknown):
            wait_for("nothing is suspended", lambda: not self._suspended(), Deadline(OTHERS_SECONDS))
        suspended = self._suspended()
        for name in sorted(suspended, key=self._height):
            self._mapper.forget_table(name)
            self._mapper.resume(name)
        if suspended:
            log.warning("resumed devices that a command of lvm left suspended", devices=sorted(suspended))

    def _suspended(self) -> list[str]:
        return [info.name for info in self._mapped() if info.suspended]

    def _mapped(self) -> Iterator[Info]:
        """Yield the group's active devices.

        By the uuid, too: in a group that is called sluice, mapped devices of ours have names that begin like its own.
        And a dash more is part of another group's name: that of "fast-b", beside "fast".
        """
        prefix = dm_name(self._vg, "")
        for name in self._mapper.list(prefix):
            info = self._mapper.info(name)
            if info and info.uuid.startswith("LVM-") and not name.startswith(f"{prefix}-"):
                yield info

    def _height(self, name: str) -> int:
        """Return how far up a device stands: the pool's data and metadata, the pool, its own name, volumes."""
        pool = dm_name(self._vg, self._thinpool)
        return next((at for at, word in enumerate(("_t", "-tpool", "")) if name.startswith(pool + word)), 3)
