"""What `sluice pool` prints: pools as the records have them, and what was made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_driver import assemble
from csi_driver.cli import poolfile, show
from csi_driver.disks import promised
from csi_driver.host.soundness import flaws
from csi_driver.records import Pool, PoolStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from csi_driver.config import Config, PoolConfig
    from csi_driver.host.thinpool import ThinPool

NOT_SERVED = "not served yet: start the server, or restart it"
COLUMNS = ("POOL", "BACKEND", "WHERE", "NODE", "SIZE", "PROMISED", "DATA", "METADATA", "LEVEL", "CONDITION")


@dataclass(frozen=True, slots=True)
class Line:
    """Hold what is shown of a pool. `node` is "" and `status` empty for one that no server has opened yet."""

    name: str
    backend: str
    where: str
    node: str
    status: PoolStatus
    condition: str


def lines(config: Config) -> list[Line]:
    """Return the pools of the records, and those of the configuration that have none yet."""
    records: Sequence[Pool] = ()
    if (config.state / assemble.DATABASE).exists():
        store = assemble.open_store(config)
        try:
            records = store.list(Pool)
        finally:
            store.close()
    found = [
        Line(each.spec.name, each.spec.backend, each.spec.path, each.spec.node, each.status, each.status.abnormal)
        for each in records
    ]
    known = {line.name for line in found}
    found += [_unserved(pool) for pool in config.pools if pool.name not in known]
    return sorted(found, key=lambda line: (line.name, line.node))


def as_dict(line: Line) -> dict[str, object]:
    """Return a pool for programs."""
    status = line.status
    return {
        "name": line.name,
        "backend": line.backend,
        "where": line.where,
        "node": line.node,
        "identity": status.identity,
        "size": status.total,
        "used": status.used,
        "metadataSize": status.metadata_total,
        "metadataUsed": status.metadata_used,
        "promised": status.promised,
        "left": status.left,
        "leftThick": status.left_thick,
        "level": status.guard,
        "condition": line.condition,
        "disks": [dataclasses.asdict(disk) for disk in status.disks],
    }


def print_table(found: Sequence[Line]) -> None:
    """Print a row a pool, and below the table what doesn't fit in it."""
    table = show.table("", *COLUMNS, right=("SIZE", "PROMISED", "DATA", "METADATA"))
    for line in found:
        status = line.status
        show.row(
            table,
            (
                line.name,
                line.backend,
                line.where,
                line.node or "-",
                show.human(status.total) if status.total else "-",
                show.human(status.promised) if status.total else "-",
                _percent(status.used, status.total),
                _percent(status.metadata_used, status.metadata_total),
                status.guard or "-",
                "see below" if line.condition else "well",
            ),
        )
    out = show.console()
    out.print(table)
    for line in found:
        if line.condition:
            out.print(show.plain(f"{line.name}: {line.condition}"), markup=False, style="red")
        for disk in line.status.disks:
            if disk.cost is not None:
                said = f"{line.name}: of disk {disk.key} {promised(disk, disk.cost)}"
                out.print(show.plain(said), markup=False)


def made(pool: PoolConfig, now: ThinPool, file: Path, *, as_json: bool) -> None:
    """Print a pool that was made or taken over, what is unsound about it, and how it is served."""
    unsound = tuple(flaws(now))
    if as_json:
        show.as_json(
            {
                "pool": dict(part.split("=", 1) for part in poolfile.words(pool).split(",")),
                **_sizes(now),
                "kept": str(file),
                "flaws": [{"about": flaw.about, "found": flaw.found, "remedy": flaw.remedy} for flaw in unsound],
            }
        )
        return
    out = show.console()
    table = show.table("", "POOL", "BACKEND", "WHERE", "SIZE", "METADATA", "SPARE", "CHUNK", "FREE", "DISKS")
    cells = (now.size, now.metadata, now.spare, now.chunk, now.free)
    disks = ", ".join(map(str, now.devices))
    show.row(table, (pool.name, pool.backend, str(pool.path), *map(show.human, cells), disks))
    out.print(table)
    for flaw in unsound:
        out.print(f"\nUNSOUND: {flaw.found}.\n    {flaw.remedy}", markup=False, style="yellow")
    if any(flaw.command for flaw in unsound):
        out.print("\nWhat has a command here, --fix would have mended.", markup=False)
    said = f"\nKept in {file}: the next `sluice serve` with this state folder serves it; restart one that runs."
    out.print(f"{said} The same elsewhere:\n\n    --pool {poolfile.words(pool)}\n", markup=False, soft_wrap=True)
    out.print("".join(f"    {line}\n" for line in poolfile.toml(pool).splitlines()), markup=False, end="")


def extended(pool: PoolConfig, before: ThinPool, after: ThinPool, *, as_json: bool) -> None:
    """Print what a pool was and is."""
    if as_json:
        show.as_json({"name": pool.name, "before": _sizes(before), "after": _sizes(after)})
        return
    show.console().print(
        f"Pool {pool.name}: data {show.human(before.size)} -> {show.human(after.size)}, metadata "
        f"{show.human(before.metadata)} -> {show.human(after.metadata)}; {show.human(after.free)} of {after.vg} are "
        "free. A server that runs sees it by itself.",
        markup=False,
    )


def _sizes(pool: ThinPool) -> dict[str, object]:
    names = ("identity", "size", "metadata", "spare", "chunk", "free")
    return {**{name: getattr(pool, name) for name in names}, "devices": [str(path) for path in pool.devices]}


def _unserved(pool: PoolConfig) -> Line:
    return Line(pool.name, pool.backend, str(pool.path), "", PoolStatus(), NOT_SERVED)


def _percent(used: int, total: int) -> str:
    return f"{100 * used / total:.0f} %" if total else "-"
