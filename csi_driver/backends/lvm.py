"""Volumes as logical volumes of one thin pool, and thick ones beside it (see lvmthick).

VG/THINPOOL           the pool
VG/sluice-ID          a volume, active from its lvcreate on, or a snapshot, never active; its passport is in its tags

What stands in the pool is known from one report, and kept current by what this process does. That nobody else changed
the group since is read from its header (`pvlabel.state`): so no verb but a changing one starts a program.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from csi_driver.backends import lvmtags
from csi_driver.backends.base import Fill, Found, Passport
from csi_driver.backends.lvmdevices import LvDevices
from csi_driver.backends.lvmemptying import Emptying
from csi_driver.backends.lvmgroup import PREFIX, VOLUME, Group, Lv
from csi_driver.backends.lvmthick import Thick
from csi_driver.errors import Foreign, Lost, NotFound, Unready, Unsupported
from csi_driver.host import block, pvlabel
from csi_driver.ids import is_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from csi_driver.backends.base import Frozen
    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device, Disk
    from csi_driver.host.dm import DeviceMapper
    from csi_driver.host.lvm import Lvm
    from csi_driver.host.syscalls import Kernel


class LvmBackend:
    """Keep one thin pool; its logical volumes are devices from the start."""

    amends_at_once = False
    cuts_are_whole = False

    def __init__(self, vg: str, thinpool: str, lvm: Lvm, mapper: DeviceMapper, kernel: Kernel) -> None:
        """Take the names of the volume group and of the thin pool in it."""
        self._vg, self._thinpool = vg, thinpool
        self._lvm = lvm
        self._devices = LvDevices(vg, thinpool, mapper, lvm.lock)
        self._group = Group(vg, thinpool, lvm, self._devices.resume_all)
        self._thick = Thick(vg, thinpool, self._group, kernel, self._active)
        self._emptying = Emptying(vg, self._group, self._devices, kernel)
        self._chunk = 0
        self._sector_size = 512

    # the pool

    @property
    def identity(self) -> str:
        """Return the UUIDs of the volume group and of the pool, "" before it is open."""
        return self._group.identity

    @property
    def splits_at(self) -> int:
        """Return the size of the pool's chunks: what crosses a border between two is split there."""
        return self._chunk

    @property
    def sector_size(self) -> int:
        """Return the sector size of the disks: it can't be chosen."""
        return self._sector_size

    @property
    def clones(self) -> bool:
        """Return that snapshots and clones can be made."""
        return True

    def alone(self) -> AbstractContextManager[object]:
        """Keep other commands out."""
        return self._lvm.lock

    def open(self, identity: str) -> None:
        """Find the group's disks, check who it is, and activate the volumes that aren't.

        Raises Foreign for another group or pool of the same name, Unready when a disk is missing or the pool is broken.
        """
        with self._lvm.lock:
            self._group.read(pvlabel.physical_volumes(), identity)
            self._devices.check_below()
            self._devices.resume_all()
            inactive = [
                lv for lv in self._group.lvs.values() if self._is_volume(lv) and self._devices.of(lv.name) is None
            ]
            if inactive or not self._devices.pool_words():
                # The pool too: without it nobody can say how full it is.
                names = [self._thinpool, *(lv.name for lv in inactive)]
                self._group.change("lvchange", "-ay", *(f"{self._vg}/{name}" for name in names))
            self._chunk = self._group.chunk
            self._sector_size = max(block.sector_size(block.device_at(path).dev) for path in self._group.devices)
            self._devices.pool_state()

    def look(self) -> str:
        """Return the identity of the pool that has these names now, "" when none does. Changes nothing."""
        try:
            self._group.read(pvlabel.physical_volumes(), "")
        except NotFound:
            return ""
        return self._group.identity

    def claimed(self) -> bool:
        """Return whether there is a pool of these names: the server makes none."""
        return bool(self.look())

    def fill(self) -> Fill:
        """Return how full data and metadata are, in bytes, by the kernel's word. Raises Unready when it can't write."""
        self._group.check_disks()  # first, for the one whose header tells of changes may be gone
        self._group.look()
        state, thick = self._devices.pool_state(), self._group.thick
        return Fill(
            state.chunks_total * self._chunk + thick,
            state.chunks_used * self._chunk + thick,
            state.metadata_total,
            state.metadata_used,
            thick,
            self._group.free,
        )

    def disks(self) -> tuple[Disk, ...]:
        """Return the disks under the group."""
        return self._group.disks

    def create(self, passport: Passport, size: int) -> bool:
        """Make a thin volume by one lvcreate, which makes it durable and active. False: it was there."""
        there = self._found(passport.id)
        if there is not None and not there.thick:
            return False
        if passport.sector_size != self._sector_size:
            raise Unsupported(
                f"sectorSize: pool {self._vg}/{self._thinpool} stands on disks with sectors of {self._sector_size} "
                f"bytes, and can't have volumes with {passport.sector_size}"
            )
        if passport.thick:
            return self._thick.create(there, passport, size)
        lv = Lv(PREFIX + passport.id, size, passport)
        self._make(lv, "-V", f"{size}b", "-T", f"{self._vg}/{self._thinpool}", "-W", "n")
        return True

    def cut(self, source: str, passport: Passport, size: int, frozen: Frozen) -> bool:
        """Make a thin snapshot: read-only records of a moment stay inactive. False: it was there."""
        if self._found(passport.id) is not None:
            return False
        origin = self._must(source)
        lv = Lv(PREFIX + passport.id, origin.size, passport)
        active = ("-ay", "-kn") if passport.kind == VOLUME else ("-an", "-ky")
        try:
            with frozen as by:
                self._make(lv, "-s", f"{self._vg}/{origin.name}", *active, deadline=by)
        except BaseException:
            self.delete(passport.id)
            raise
        if passport.kind == VOLUME:
            self.expand(passport.id, size)
        return True

    def expand(self, record_id: str, size: int) -> bool:
        """Grow a volume; the new part reads as zeros. False: it was that large."""
        lv = self._must(record_id)
        if lv.thick:
            return self._thick.expand(record_id, lv, size)
        if lv.size >= size:
            return False
        with self._lvm.lock:
            self._group.change("lvextend", "-L", f"{size}b", f"{self._vg}/{lv.name}")
            self._group.keep(record_id, replace(lv, size=self._group.whole_extents(size)))
        return True

    def delete(self, record_id: str) -> bool:
        """Remove a volume or snapshot. False: there was none. Raises Foreign for what isn't ours by its passport.

        Raises Busy while a large volume is being emptied.
        """
        lv = self._found(record_id)
        if lv is None:
            return False
        if lv.passport is None or lv.passport.id != record_id:
            raise Foreign(
                f"{self._vg}/{lv.name} has no passport of ours: it is not removed; look at it with lvs -o+tags"
            )
        self._emptying.empty(record_id, lv)
        with self._lvm.lock:
            self._group.change("lvremove", "-f", f"{self._vg}/{lv.name}")
            self._group.keep(record_id, None)
        return True

    def amend(self, record_id: str, passport: Passport) -> None:
        """Replace the tags, by one lvchange. Raises Lost."""
        lv = self._must(record_id)
        before = set(lvmtags.write(lv.passport)) if lv.passport else set()
        after = set(lvmtags.write(passport))
        words = [word for tag in sorted(before - after) for word in ("--deltag", tag)]
        words += [word for tag in sorted(after - before) for word in ("--addtag", tag)]
        with self._lvm.lock:
            if words:
                self._group.change("lvchange", *words, f"{self._vg}/{lv.name}")
            self._group.keep(record_id, replace(lv, passport=passport))

    def never_written(self, record_id: str) -> bool:
        """Return whether no chunk is mapped, by the kernel's word. Raises Unready when the volume isn't active."""
        lv = self._must(record_id)
        if lv.thick:
            return lv.blank
        if self._devices.of(lv.name) is None:
            raise Unready(f"{self._vg}/{lv.name} is not active: lvchange -ay {self._vg}/{lv.name}")
        return self._devices.allocated(lv.name) == 0

    def take(self, record_id: str) -> None:
        """Note it in the tags of a thick volume, once: of thin ones the kernel knows what was written."""
        self._thick.take(record_id, self._must(record_id))

    def find(self, record_id: str) -> Found | None:
        """Return what stands under this id, None when the group surely has none."""
        lv = self._found(record_id)
        return self._told(record_id, lv) if lv else None

    def list(self) -> Iterator[Found]:
        """Return all logical volumes of the pool that have our form of name."""
        self._group.look()
        for record_id, lv in sorted(self._group.lvs.items()):
            if is_id(record_id):
                yield self._told(record_id, lv)

    # devices

    def attach(self, record_id: str, sector_size: int, deadline: Deadline) -> Device:
        """Return the volume's device, activating it when somebody deactivated it. Raises Lost."""
        device = self._active(self._must(record_id).name, deadline)
        if sector_size != self._sector_size:
            raise Foreign(
                f"volume {record_id} has sectors of {sector_size} bytes, the disks of {self._vg} {self._sector_size}: "
                "it would read as something else"
            )
        return device

    def _active(self, name: str, deadline: Deadline | None = None) -> Device:
        device = self._devices.of(name)
        if device is None:
            self._group.change("lvchange", "-ay", "-K", f"{self._vg}/{name}", deadline=deadline)
            device = self._devices.of(name)
        if device is None:
            raise Unready(f"{self._vg}/{name} has no device though lvchange -ay says so: see the kernel log")
        return device

    def attached(self, record_id: str) -> Device | None:
        """Return the volume's device when it is active."""
        lv = self._group.lvs.get(record_id)
        return self._devices.of(lv.name) if lv else None

    def resize(self, record_id: str, deadline: Deadline) -> None:
        """Do nothing where lvextend has done it; one that was killed may have committed it and no more."""
        lv = self._must(record_id)
        device = self._devices.of(lv.name)
        if device is not None and block.size_bytes(device.dev) != lv.size:
            self._group.change("lvchange", "--refresh", f"{self._vg}/{lv.name}", deadline=deadline)

    def detach(self, record_id: str, deadline: Deadline) -> bool:  # noqa: ARG002 - the contract's
        """Do nothing: a volume stays active until it is deleted."""
        return False

    # what is known

    def _found(self, record_id: str) -> Lv | None:
        self._group.look()
        return self._group.lvs.get(record_id)

    def _must(self, record_id: str) -> Lv:
        lv = self._found(record_id)
        if lv is None:
            raise Lost(f"{record_id} is LOST: {self._vg} has no {PREFIX}{record_id}")
        return lv

    def _told(self, record_id: str, lv: Lv) -> Found:
        kind = lv.passport.kind if lv.passport else ""
        if lv.thick:
            return Found(record_id, kind, lv.zeroed or 0, lv.size, lv.passport if lv.zeroed else None)
        shown = None if lv.condemned else lv.passport
        return Found(record_id, kind, lv.size, self._devices.allocated(lv.name), shown)

    @staticmethod
    def _is_volume(lv: Lv) -> bool:
        return lv.passport is not None and lv.passport.kind == VOLUME

    # what is changed

    def _make(self, lv: Lv, *words: str, deadline: Deadline | None = None) -> None:
        tags = [word for tag in lvmtags.write(lv.passport) for word in ("--addtag", tag)] if lv.passport else []
        with self._lvm.lock:
            self._group.change("lvcreate", "-y", *words, "-n", lv.name, *tags, deadline=deadline)
            size = self._group.whole_extents(lv.size)
            self._group.keep(lv.name.removeprefix(PREFIX), replace(lv, size=size))
