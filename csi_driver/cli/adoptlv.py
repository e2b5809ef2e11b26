"""`sluice adopt --lv`: an administrator's thin volume gets a passport and our form of name, on his word."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from csi_driver import assemble
from csi_driver.backends import lvmtags
from csi_driver.backends.base import Passport
from csi_driver.backends.lvmgroup import PREFIX, dm_name
from csi_driver.cli import alone
from csi_driver.errors import Conflict, InUse, Invalid, NotFound, Unready
from csi_driver.host import block
from csi_driver.host.thinpool import ThinPools
from csi_driver.ids import new_id
from csi_driver.parameters import FILE_SYSTEMS
from csi_driver.records import Volume

if TYPE_CHECKING:
    from csi_driver.assemble import Machine
    from csi_driver.config import Config
    from csi_driver.host.thinpool import ThinPool


@dataclass(frozen=True, slots=True)
class Wanted:
    """Name a logical volume, VG/LV, and the volume that it becomes: its CSI name and its tier."""

    lv: str
    name: str
    tier: str


def take(config: Config, wanted: Wanted, *, yes: bool) -> str:
    """Return in words what a volume becomes; with `yes` mark and rename it, so that it is adopted as any other.

    Raises Invalid, NotFound, Conflict; InUse for one that is open, Unready for one that isn't active.
    """
    if wanted.tier not in (known := assemble.tiers_of(config)):
        raise Invalid(f"tier: there is no tier {wanted.tier!r}; there are {', '.join(sorted(known))}")
    with alone.in_place_of_a_server(config.state) as machine:
        pools = ThinPools(machine.lvm)
        pool = _pool_of(config, pools, wanted.lv)
        passport = _passport(config, machine, pool, wanted)
        became = f"{pool.vg}/{PREFIX}{passport.id}"
        if yes:
            # The passport first: cut after it, the volume has its old name still, and this can be done again.
            pools.mend(pool, ("lvchange", *_tags(pool, wanted.lv, passport), wanted.lv))
            pools.mend(pool, ("lvrename", wanted.lv, became))
        holds = passport.format_done or "no file system"
        return f"{wanted.lv}, which holds {holds}, {'is' if yes else 'would be'} {became}: volume {wanted.name}"


def _tags(pool: ThinPool, full_name: str, passport: Passport) -> list[str]:
    """Return the words that give it a passport, in the place of one that an attempt before left."""
    new = set(lvmtags.write(passport))
    old = {tag for lv in pool.lvs if full_name == f"{pool.vg}/{lv.name}" for tag in lv.tags}
    gone = {tag for tag in old if tag.startswith(lvmtags.PREFIX)} - new
    words = [("--deltag", tag) for tag in sorted(gone)] + [("--addtag", tag) for tag in sorted(new - old)]
    return [word for pair in words for word in pair]


def _pool_of(config: Config, pools: ThinPools, full_name: str) -> ThinPool:
    """Return the pool that a logical volume is in. Raises NotFound, Invalid."""
    vg, _, name = full_name.partition("/")
    mine = [pool.path.parts[1] for pool in config.pools if pool.backend == "lvm" and pool.path.parts[0] == vg]
    for thinpool in mine:
        pool = pools.look(vg, thinpool)
        found = next((lv for lv in pool.lvs if lv.name == name), None)
        if found is not None and found.pool == thinpool and not found.private:
            if name.startswith(PREFIX):
                raise Invalid(f"lv: {full_name} has our form of name already: adopt without --lv, or rename it first")
            return pool
    raise NotFound(
        f"lv: there is no thin volume {full_name} in a pool of this node; name it as VG/LV, and its pool by --pool"
    )


def _passport(config: Config, machine: Machine, pool: ThinPool, wanted: Wanted) -> Passport:
    """Return what is written on it. Its file system is told by its bytes, and never made anew."""
    record_id = new_id(config.scope, Volume.KIND, wanted.name)
    if any(lv.name == PREFIX + record_id for lv in pool.lvs):
        raise Conflict(f"as: there is a volume {wanted.name} already, {pool.vg}/{PREFIX}{record_id}")
    info = machine.mapper.info(dm_name(*wanted.lv.split("/")))
    if info is None:
        raise Unready(f"lv: {wanted.lv} is not active: lvchange -ay -K {wanted.lv}")
    if info.open_count:
        raise InUse(f"lv: {wanted.lv} is in use: unmount it everywhere first")
    kind = machine.filesystems.kind(info.device.path)
    return Passport(
        id=record_id,
        kind=Volume.KIND,
        name=wanted.name,
        tier=wanted.tier,
        parameters={"tier": wanted.tier},
        sector_size=block.sector_size(info.device.dev),
        made=datetime.now(UTC).isoformat(),
        format_done=kind if kind in FILE_SYSTEMS else "",
    )
