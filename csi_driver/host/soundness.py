"""What is unsound about a thin pool, and the command that mends it. Pure: lvm's report in, flaws out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_driver.host import thinsize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.host.thinpool import ThinPool

MIB = 1 << 20
LARGE_CHUNK = 1 << 20
AREA_LEFT = 0.1


@dataclass(frozen=True, slots=True)
class Flaw:
    """Hold what is wrong, in words, what to do, and where one lvm command does it at no risk, its words."""

    about: str
    found: str
    remedy: str
    command: tuple[str, ...] = ()
    grave: bool = False


def flaws(pool: ThinPool) -> Iterator[Flaw]:
    """Yield all flaws of a pool, the grave ones first: with those it can't be served."""
    name = pool.full_name
    if pool.health:
        yield Flaw(
            "health",
            f"lvm says {pool.health} of {name}",
            f"unstage its volumes and stop the server, then: vgchange -an {pool.vg}; lvconvert --repair {name}",
            grave=True,
        )
    if not pool.zeroes:
        yield _mended(
            "zeroing",
            f"{name} does not zero new chunks: a volume shows what another tenant deleted",
            ("lvchange", "-Z", "y", name),
            grave=True,
        )
    yield from _when_written(pool)
    if pool.twins:
        yield Flaw(
            "name",
            f"another volume group is called {pool.vg} too, {', '.join(pool.twins)}: lvm may mean it when you type",
            f"vgrename {pool.twins[0]} NEW",
        )
    yield from _autoactivation(pool)
    yield from _sizes(pool)
    if pool.area_free < pool.area / 2 * AREA_LEFT:
        yield Flaw(
            "metadata area",
            f"the text of {pool.vg} has {pool.area_free // MIB} of {pool.area // 2 // MIB} MiB left: no volume is made "
            "when they are used up",
            "sluice pool extend --device DISK --metadatasize SIZE, then pvchange --metadataignore y on the group's old "
            "disks",
        )


def _when_written(pool: ThinPool) -> Iterator[Flaw]:
    name = pool.full_name
    if pool.when_full != "error":
        yield _mended(
            "when full",
            f"{name} lets writers wait for 60 s when it is full, where the guard reckons with an error at once",
            ("lvchange", "--errorwhenfull", "y", name),
        )
    if pool.discards != "passdown":
        yield _mended(
            "discards",
            f"{name} has discards {pool.discards}: the disk never learns what is free",
            # From "ignore" lvm changes it only while the pool isn't active: then lvm says so.
            ("lvchange", "--discards", "passdown", name),
        )


def _autoactivation(pool: ThinPool) -> Iterator[Flaw]:
    if not pool.autoactivation:
        return
    found = (
        f"volumes of {pool.vg} are activated at boot, before the server has told udev to leave them alone: the host "
        "may act on what tenants wrote"
    )
    if pool.others:
        remedy = (
            f"it has logical volumes of others ({', '.join(pool.others[:3])}), so install the udev rules of deploy/udev"
        )
        yield Flaw("autoactivation", found, remedy)
    else:
        yield _mended("autoactivation", found, ("vgchange", "--setautoactivation", "n", pool.vg))


def _sizes(pool: ThinPool) -> Iterator[Flaw]:
    wanted = thinsize.least_metadata(pool.size, pool.chunk)
    if pool.metadata < wanted:
        more = wanted - pool.metadata
        yield Flaw(
            "metadata size",
            f"{pool.full_name} has {pool.metadata // MIB} MiB of metadata, less than lvm's own rule asks for: it may "
            "be full before the data are, and read-only then",
            f"lvextend --poolmetadatasize +{-(-more // MIB)}m {pool.full_name}",
        )
    if pool.spare < pool.metadata:
        yield Flaw(
            "spare",
            f"{pool.vg} has {pool.spare // MIB} MiB of spare for {pool.metadata // MIB} MiB of metadata: a repair has "
            "no room",
            f"lvextend --poolmetadatasize +{pool.extent // MIB}m {pool.full_name} makes one, if the group has room",
        )
    if pool.chunk > LARGE_CHUNK:
        yield Flaw(
            "chunk",
            f"{pool.full_name} has chunks of {pool.chunk // MIB} MiB: a write of 4 KiB to a new or just cut place may "
            "cost a whole one, which no limit sees",
            "it can't be changed: make a new pool for volumes with small writes",
        )


def _mended(about: str, found: str, command: tuple[str, ...], *, grave: bool = False) -> Flaw:
    return Flaw(about, found, " ".join(command), command, grave)
