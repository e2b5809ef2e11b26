"""One volume group: its disks, its thin pool and the logical volumes that are ours, by a report, and their changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.backends import lvmtags
from csi_driver.errors import Foreign, NotFound, StorageError, Unready
from csi_driver.host import block, pvlabel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from csi_driver.backends.base import Passport
    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Disk
    from csi_driver.host.lvm import Lvm

PREFIX = "sluice-"
VOLUME = "volume"
OF_POOL, ZEROED, REACHED, BLANK = "sluice:pool=", "sluice:zeroed=", "sluice:reached=", "sluice:blank=yes"
"""Tags of thick volumes, which are not in the thin pool themselves: whose they are, and how far (see lvmthick)."""
CONDEMNED = "sluice:condemned=yes"
"""A tag of what is being removed in pieces (see lvmemptying)."""
PV_FIELDS = "pv_name,pv_missing,vg_uuid,vg_name"
LV_FIELDS = "vg_uuid,vg_extent_size,vg_free,lv_uuid,lv_name,lv_size,lv_tags,lv_layout,pool_lv,chunk_size"


@dataclass(frozen=True, slots=True)
class Lv:
    """Hold a logical volume: its name in the group, its size in bytes, and its passport where it has one.

    Of a thick one `zeroed` bytes may be shown, None where its tag is gone; as far as `reached` it is zeroed already
    while more is; `blank` says that nobody was given it yet. Of what is `condemned` bytes are missing.
    """

    name: str
    size: int
    passport: Passport | None
    thick: bool = False
    zeroed: int | None = None
    reached: int = 0
    blank: bool = False
    condemned: bool = False


def dm_name(vg: str, lv: str) -> str:
    """Return what device-mapper calls a logical volume."""
    return f"{vg.replace('-', '--')}-{lv.replace('-', '--')}"


class Group:
    """Hold what the last report said, and change it. `lvs` has what is named PREFIX and is of this pool, by its id.

    `thick` is how many bytes the thick ones have, together, and `free` how many the group has for more of them.
    """

    def __init__(self, vg: str, thinpool: str, lvm: Lvm, tidy: Callable[[], None]) -> None:
        """Take the names, and what is to be done after a command that failed or was killed."""
        self._vg, self._thinpool = vg, thinpool
        self._lvm = lvm
        self._tidy = tidy
        self._known = b""
        self._extent = 4 << 20
        self.identity = ""
        self.chunk = 0
        self.devices: tuple[Path, ...] = ()
        self.disks: tuple[Disk, ...] = ()
        self.lvs: dict[str, Lv] = {}
        self.thick = self.free = 0

    def keep(self, record_id: str, lv: Lv | None) -> None:
        """Note what a change made of a logical volume; None that it is gone."""
        with self._lvm.lock:
            more = _thick_bytes(lv) - _thick_bytes(self.lvs.get(record_id))
            self.thick, self.free = self.thick + more, self.free - more
            if lv is None:
                self.lvs.pop(record_id, None)
            else:
                self.lvs[record_id] = lv  # in one step: who looks meanwhile never finds it missing

    def read(self, candidates: Sequence[Path], identity: str) -> None:
        """Ask lvm which of these disks are the group's, and what is on them. Nothing is taken over before all is well.

        Raises NotFound, Foreign for a group that isn't the one that `identity` names, Unready when a disk is missing.
        """
        devices = self._devices(candidates, identity)
        known = pvlabel.state(devices[0])  # before the report: what is changed meanwhile is read again
        rows = self._lvm.report(devices, "lvs", LV_FIELDS, self._vg)
        pool = next((row for row in rows if row["lv_name"] == self._thinpool), None)
        if pool is None or "pool" not in pool["lv_layout"] or "thin" not in pool["lv_layout"]:
            raise NotFound(f"volume group {self._vg} has no thin pool {self._thinpool}: make it by sluice pool create")
        found = f"{pool['vg_uuid']}@{pool['lv_uuid']}"
        if identity and found != identity:
            raise Foreign(
                f"{self._vg}/{self._thinpool} is {found}, its record says {identity}: another pool of this name; "
                "nothing is touched"
            )
        self._extent, self.chunk = int(pool["vg_extent_size"]), int(pool["chunk_size"])
        lvs = {row["lv_name"].removeprefix(PREFIX): _lv(row) for row in rows if self._is_ours(row)}
        self.lvs, self.thick, self.free = lvs, sum(map(_thick_bytes, lvs.values())), int(pool["vg_free"])
        self.disks = tuple({disk.name: disk for path in devices for disk in block.disk_under(path)}.values())
        self.devices, self.identity, self._known = devices, found, known

    def look(self) -> None:
        """See that what is known of the group is so. One report, and only when somebody else changed it."""
        if not self.identity:
            raise Unready(f"pool {self._vg}/{self._thinpool} is not open")
        # While a command of ours runs the header is on its way: then what was so before it holds.
        if self._known and (self._lvm.changing or self._known == pvlabel.state(self.devices[0])):
            return
        with self._lvm.lock:
            self._read_if_changed()

    def change(self, command: str, *words: str, deadline: Deadline | None = None) -> None:
        """Run a changing command. What a failed or killed one left is looked up before anything else is done.

        So is what others changed since the last look: after the command, its header is the one that is known.
        """
        with self._lvm.lock:
            self._read_if_changed()
            try:
                self._lvm.change(self.devices, command, *words, deadline=deadline)
            except StorageError:
                self._known = b""
                self._tidy()
                raise
            self._known = pvlabel.state(self.devices[0])

    def check_disks(self) -> None:
        """Raise Unready when a disk went away since the report: what the first one's header says is no news of it."""
        gone = [str(path) for path in self.devices if not path.is_block_device()]
        if gone:
            raise Unready(
                f"volume group {self._vg} lacks a disk: {', '.join(gone)} is gone, and what lies there fails; put it "
                f"back, stop what uses its volumes, and run vgchange -an {self._vg}: they are activated anew"
            )

    def whole_extents(self, size: int) -> int:
        """Return the bytes that lvm gives to who asks for so many."""
        return -(-size // self._extent) * self._extent

    def _read_if_changed(self) -> None:
        if not self._known or self._known != pvlabel.state(self.devices[0]):
            self.read(pvlabel.physical_volumes(), self.identity)  # a disk more, perhaps

    def _devices(self, candidates: Sequence[Path], identity: str) -> tuple[Path, ...]:
        if not candidates:
            raise Unready(f"no disk of this machine is a physical volume: {self._vg} is away, or was never made")
        rows = [row for row in self._lvm.report(candidates, "pvs", PV_FIELDS) if row["vg_name"] == self._vg]
        uuids = {row["vg_uuid"] for row in rows}
        wanted = identity.partition("@")[0]
        if wanted and uuids and wanted not in uuids:
            raise Foreign(f"volume group {self._vg} is {', '.join(sorted(uuids))}, its record says {wanted}")
        if len(uuids) > 1 and not wanted:
            raise Foreign(
                f"two volume groups are called {self._vg}: {', '.join(sorted(uuids))}; rename one by vgrename"
            )
        mine = [row for row in rows if not wanted or row["vg_uuid"] == wanted]
        if not mine:
            raise NotFound(f"there is no volume group {self._vg} on the disks of this machine")
        if any(row["pv_missing"] for row in mine):
            raise Unready(f"volume group {self._vg} lacks a disk; see pvs, and put the disk back")
        return tuple(Path(row["pv_name"]) for row in mine)

    def _is_ours(self, row: Mapping[str, str]) -> bool:
        of_pool = row["pool_lv"] == self._thinpool or OF_POOL + self._thinpool in row["lv_tags"].split(",")
        return row["lv_name"].startswith(PREFIX) and of_pool


def _thick_bytes(lv: Lv | None) -> int:
    return lv.size if lv is not None and lv.thick else 0


def _lv(row: Mapping[str, str]) -> Lv:
    tags = [tag for tag in row["lv_tags"].split(",") if tag]
    lv = Lv(row["lv_name"], int(row["lv_size"]), lvmtags.read(tags), condemned=CONDEMNED in tags)
    if row["pool_lv"]:
        return lv
    zeroed, reached = _number(tags, ZEROED), _number(tags, REACHED)
    return replace(lv, thick=True, zeroed=zeroed, reached=reached or 0, blank=BLANK in tags)


def _number(tags: Sequence[str], key: str) -> int | None:
    text = next((tag.removeprefix(key) for tag in tags if tag.startswith(key)), "")
    return int(text) if text.isdecimal() else None
