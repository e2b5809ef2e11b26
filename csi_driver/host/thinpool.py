"""Thin pools as an administrator handles them: looked at, made, made larger.

What a server does with the volumes in them is backends/lvm.py.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline
from csi_driver.errors import Conflict, Foreign, NotFound, StorageError, Unready
from csi_driver.host import pvlabel, thinsize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from csi_driver.host.lvm import Lvm
    from csi_driver.host.thinsize import Sizes

    Step = Callable[[str], AbstractContextManager[object]]
    """Told in words what begins; its context lasts until that is done."""

PV_FIELDS = "pv_name,pv_uuid,pv_missing,vg_uuid,vg_name,vg_size,vg_free,vg_extent_size,vg_mda_size,vg_mda_free"
LV_FIELDS = (
    "lv_name,lv_uuid,lv_size,lv_layout,lv_role,lv_tags,pool_lv,lv_metadata_size,zero,lv_when_full,chunk_size,discards,"
    "lv_health_status,vg_autoactivation"
)
OUR_TAGS = "sluice:"
POOL_TAG = OUR_TAGS + "pool="
SECONDS = 600.0
"""For commands that may write all of a pool's metadata, 16 GiB."""


@dataclass(frozen=True, slots=True)
class NewPool:
    """Say what a new group and its thin pool shall be. Sizes in bytes; `reserve` is a part of the whole."""

    name: str
    vg: str
    thinpool: str
    devices: tuple[Path, ...]
    chunk: int = thinsize.CHUNK
    area: int = thinsize.AREA
    metadata: int = 0
    reserve: float = thinsize.RESERVE
    stripes: int = 1


@dataclass(frozen=True, slots=True)
class Lv:
    """Hold a logical volume: its name, size, the thin pool that it is in or "", whether it is lvm's own, its tags."""

    name: str
    size: int
    pool: str
    private: bool
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ThinPool:
    """Hold what lvm says of a thin pool and of its group. Sizes in bytes; `area` of the smallest metadata area.

    `twins` are the UUIDs of other groups that have the same name.
    """

    vg: str
    name: str
    identity: str
    devices: tuple[Path, ...]
    pv_uuids: tuple[str, ...]
    size: int
    metadata: int
    spare: int
    chunk: int
    zeroes: bool
    when_full: str
    discards: str
    health: str
    autoactivation: bool
    extent: int
    group_size: int
    free: int
    area: int
    area_free: int
    lvs: tuple[Lv, ...]
    twins: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """Return the name as lvm commands take it."""
        return f"{self.vg}/{self.name}"

    @property
    def others(self) -> tuple[str, ...]:
        """Return the logical volumes of the group that have nothing to do with the pool."""
        return tuple(
            lv.name
            for lv in self.lvs
            if not lv.private and self.name not in {lv.pool, lv.name} and not any(map(_is_ours, lv.tags))
        )


class ThinPools:
    """Look at thin pools, and change them."""

    def __init__(self, lvm: Lvm) -> None:
        """Take the door to lvm."""
        self._lvm = lvm

    def groups(self, devices: Sequence[Path]) -> Mapping[Path, str]:
        """Return the volume group of each of these that is a physical volume, "" where it is in none."""
        return {Path(row["pv_name"]): row["vg_name"] for row in self._lvm.report(devices, "pvs", "pv_name,vg_name")}

    def look(self, vg: str, thinpool: str, identity: str = "") -> ThinPool:
        """Return a pool; of several groups of the name the one that `identity` names.

        Raises NotFound, Foreign for two groups of which nobody can say which is meant, Unready for one without a disk.
        """
        candidates = pvlabel.physical_volumes()
        rows = self._lvm.report(candidates, "pvs", PV_FIELDS) if candidates else []
        rows = [row for row in rows if row["vg_name"] == vg]
        if not rows:
            raise NotFound(f"no disk of this machine has a volume group {vg}: see pvs; sluice pool create makes one")
        uuids = sorted({row["vg_uuid"] for row in rows})
        wanted = identity.partition("@")[0]
        if wanted in uuids:
            rows = [row for row in rows if row["vg_uuid"] == wanted]
        elif len(uuids) > 1:
            raise Foreign(
                f"two volume groups are called {vg}, {' and '.join(uuids)}: rename one, vgrename {uuids[1]} NEW"
            )
        if lacking := [row["pv_uuid"] for row in rows if row["pv_missing"]]:
            raise Unready(
                f"volume group {vg} lacks the disk {', '.join(lacking)}: put it back; what was on it is lost without it"
            )
        devices = tuple(Path(row["pv_name"]) for row in rows)
        lvs = self._lvm.report(devices, "lvs", LV_FIELDS, "-a", vg)
        twins = tuple(uuid for uuid in uuids if uuid != rows[0]["vg_uuid"])
        return replace(_pool(vg, thinpool, rows, lvs), twins=twins)

    def make(self, new: NewPool, step: Step) -> ThinPool:
        """Make group and pool on disks that are empty. What is made before something fails is removed again.

        Raises Conflict when the group's name is taken, NoSpace, ToolFailed, Unready, Unknown.
        """
        candidates = pvlabel.physical_volumes()
        if candidates and new.vg in self.groups(candidates).values():
            raise Conflict(f"vg: there is a volume group {new.vg}; give another name by --vg")
        try:
            self._make(new, step)
        except StorageError as error:
            with step("removing what was made"):
                self._unmake(new, error)
            raise
        return self.look(new.vg, new.thinpool)

    def _make(self, new: NewPool, step: Step) -> None:
        disks = [str(path) for path in new.devices]
        with step(f"marking {', '.join(disks)} as physical volumes"):
            self._change(new.devices, "pvcreate", "--metadatasize", f"{new.area}b", *disks)
        with step(f"making the volume group {new.vg}"):
            tag = POOL_TAG + new.name
            self._change(new.devices, "vgcreate", "--setautoactivation", "n", "--addtag", tag, new.vg, *disks)
        (group,) = self._lvm.report(new.devices, "vgs", "vg_free,vg_extent_size", new.vg)
        free, extent = int(group["vg_free"]), int(group["vg_extent_size"])
        sizes = thinsize.new_pool(free, new.chunk, new.reserve, extent, new.metadata)
        words = ["-c", f"{new.chunk}b", "-L", f"{sizes.data}b", "--poolmetadatasize", f"{sizes.metadata}b"]
        words += ["-Z", "y", "--discards", "passdown", "--poolmetadataspare", "y"]
        if new.stripes > 1:
            words += ["-i", str(new.stripes), "-I", "64k"]
        with step(f"making the thin pool {new.vg}/{new.thinpool}, and zeroing its metadata"):
            self._change(new.devices, "lvcreate", "-y", "--type", "thin-pool", *words, "-n", new.thinpool, new.vg)
        with step("setting what happens when it is full"):
            self._change(new.devices, "lvchange", "--errorwhenfull", "y", f"{new.vg}/{new.thinpool}")

    def _unmake(self, new: NewPool, why: StorageError) -> None:
        """Remove what a creation left. Only its own disks are shown to lvm, and they were empty."""
        made = self.groups(new.devices)
        try:
            if new.vg in made.values():
                self._change(new.devices, "vgremove", "-ff", "-y", new.vg)
            if made:
                self._change(new.devices, "pvremove", "-y", *map(str, made))
        except StorageError as error:
            disks = " ".join(map(str, new.devices))
            raise Unready(
                f"{why}; what was made before is still there ({error}): vgremove {new.vg}; pvremove {disks}"
            ) from error

    def extend(self, pool: ThinPool, sizes: Sizes, step: Step) -> ThinPool:
        """Make a pool as large as `sizes` says, its metadata first. Raises NoSpace, ToolFailed, Unready, Unknown."""
        if sizes.metadata > pool.metadata:
            with step(f"extending the metadata of {pool.full_name}"):
                more = sizes.metadata - pool.metadata
                self._change(pool.devices, "lvextend", "--poolmetadatasize", f"+{more}b", pool.full_name)
        if sizes.data > pool.size:
            with step(f"extending the data of {pool.full_name}"):
                self._change(pool.devices, "lvextend", "-L", f"{sizes.data}b", pool.full_name)
        return self.look(pool.vg, pool.name)

    def add(self, pool: ThinPool, devices: Sequence[Path], area: int, step: Step) -> ThinPool:
        """Take empty disks into a pool's group. Raises ToolFailed, Unready, Unknown."""
        disks = [str(path) for path in devices]
        every = (*pool.devices, *devices)
        with step(f"marking {', '.join(disks)} as physical volumes"):
            self._change(devices, "pvcreate", "--metadatasize", f"{area}b", *disks)
        with step(f"adding {', '.join(disks)} to the volume group {pool.vg}"):
            try:
                self._change(every, "vgextend", pool.vg, *disks)
            except StorageError:
                with contextlib.suppress(StorageError):  # the reason of the failure is worth more
                    self._change(devices, "pvremove", *disks)
                raise
        return self.look(pool.vg, pool.name)

    def mend(self, pool: ThinPool, argv: Sequence[str]) -> None:
        """Run a command that a flaw's remedy names. Raises ToolFailed, Unready, Unknown."""
        self._change(pool.devices, *argv)

    def _change(self, devices: Sequence[Path], command: str, *args: str) -> None:
        self._lvm.change(devices, command, *args, deadline=Deadline(SECONDS))


def _pool(vg: str, thinpool: str, pvs: Sequence[Mapping[str, str]], rows: Sequence[Mapping[str, str]]) -> ThinPool:
    """Put a group's reports together. lvm writes the names of its own volumes in brackets."""
    pool = next((row for row in rows if row["lv_name"].strip("[]") == thinpool), None)
    if pool is None or not {"thin", "pool"} <= set(pool["lv_layout"].split(",")):
        pools = [row["lv_name"] for row in rows if {"thin", "pool"} <= set(row["lv_layout"].split(","))]
        raise NotFound(f"volume group {vg} has no thin pool {thinpool}; it has {', '.join(pools) or 'none'}")
    group = pvs[0]
    return ThinPool(
        vg=vg,
        name=thinpool,
        identity=f"{group['vg_uuid']}@{pool['lv_uuid']}",
        devices=tuple(Path(row["pv_name"]) for row in pvs),
        pv_uuids=tuple(row["pv_uuid"] for row in pvs),
        size=int(pool["lv_size"]),
        metadata=int(pool["lv_metadata_size"]),
        spare=max((int(row["lv_size"]) for row in rows if "spare" in row["lv_role"].split(",")), default=0),
        chunk=int(pool["chunk_size"]),
        zeroes=pool["zero"] == "zero",
        when_full=pool["lv_when_full"],
        discards=pool["discards"],
        health=pool["lv_health_status"],
        autoactivation=pool["vg_autoactivation"] != "",
        extent=int(group["vg_extent_size"]),
        group_size=int(group["vg_size"]),
        free=int(group["vg_free"]),
        area=int(group["vg_mda_size"]),
        area_free=int(group["vg_mda_free"]),
        lvs=tuple(_lv(row) for row in rows),
    )


def _is_ours(tag: str) -> bool:
    return tag.startswith(OUR_TAGS)


def _lv(row: Mapping[str, str]) -> Lv:
    private = row["lv_name"].startswith("[") or "private" in row["lv_role"].split(",")
    tags = tuple(filter(None, row["lv_tags"].split(",")))
    return Lv(row["lv_name"].strip("[]"), int(row["lv_size"]), row["pool_lv"].strip("[]"), private, tags)
