"""`sluice adopt`: records for bytes that have none, from the passports on them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from csi_driver import adopting, assemble
from csi_driver.adopting import Action, Rules
from csi_driver.cli import adoptlv, alone, options, show
from csi_driver.config import Config
from csi_driver.errors import Invalid, Lost, StorageError
from csi_driver.records import Pool, Volume
from csi_driver.shelves import Shelf
from qos.limits import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from csi_driver.adopting import Step
    from csi_driver.backends.base import Backend
    from csi_driver.config import PoolConfig
    from csi_driver.pools import ServedPool
    from csi_driver.store.base import Store

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

SAYS = {
    Action.ADOPT: "take over",
    Action.FINISH: "finish",
    Action.KNOWN: "has its record",
    Action.LEAVE: "LEFT ALONE",
}
CREATION = (
    "Limits are those of the class that a volume was made with: where a VolumeAttributesClass changed them since, give "
    "the claim another class and then its own again."
)

WHERE_IS_IT = {
    "loop": "is its disk mounted, and is size= given as it was for serve?",
    "lvm": "is its disk there, as pvs and vgs show?",
}


def open_pool(pool: PoolConfig, backend: Backend, served: ServedPool, store: Store | None, *, write: bool) -> Shelf:
    """Open a pool that exists and return what stands in it. Only with `write` its record is written.

    Raises Lost where no pool was ever made: an empty folder is most likely a disk that isn't mounted, and to claim it
    would make a new pool of it.
    """
    record = store.get(Pool, served.id) if store else None
    if not backend.claimed():
        raise Lost(f"there is no pool at {pool.path}: {WHERE_IS_IT[pool.backend]}")
    if write and store is not None:
        served.open(store)
        served.check()
    else:
        served.backend.open(record.status.identity if record else "")
    return Shelf(served.id, pool.name, served.spec.node, tuple(served.backend.list()))


def look(
    config: Config, machine: assemble.Machine, store: Store | None, *, write: bool
) -> tuple[list[Shelf], dict[str, str]]:
    """Open all pools; return what stands in those that could be, and why the others could not, by name."""
    shelves, troubles = [], {}
    by_name = {served.spec.name: served for served in assemble.served_pools(config, machine)}
    for pool in show.progress("reading passports", config.pools):
        try:
            shelves.append(open_pool(pool, machine.backend(pool), by_name[pool.name], store, write=write))
        except StorageError as error:
            troubles[pool.name] = str(error)
    return shelves, troubles


def rules_of(config: Config, missing_tier: str) -> Rules:
    """Return what the records follow from. Raises Invalid for a tier that there isn't."""
    tiers = assemble.tiers_of(config)
    if missing_tier and missing_tier not in tiers:
        raise Invalid(f"--missing-tier: there is no tier {missing_tier!r}; there are {', '.join(sorted(tiers))}")
    return Rules(config.scope, tiers, missing_tier)


def adopt_all(config: Config, rules: Rules, *, yes: bool) -> tuple[list[Step], dict[str, str], int]:
    """Plan, and with `yes` do it, under the lock of the state folder. Return steps, troubles and what was written."""
    with alone.in_place_of_a_server(config.state) as machine:
        # A plan changes nothing, so it doesn't make the database that it found missing either.
        exists = (config.state / assemble.DATABASE).exists()
        store = assemble.open_store(config) if yes or exists else None
        try:
            shelves, troubles = look(config, machine, store, write=yes)
            steps = adopting.plan(shelves, adopting.known_records(store) if store else {}, rules)
            done = 0
            if yes and store is not None:
                todo = [step for step in steps if step.record is not None]
                written = adopting.carry_out(store, todo)
                done = sum(1 for _ in show.progress("writing records", written, len(todo)))
            return steps, troubles, done
        finally:
            if store is not None:
                store.close()


def as_dicts(steps: Sequence[Step]) -> Iterator[dict[str, object]]:
    """Yield steps for programs."""
    for step in steps:
        passport, record = step.found.passport, step.record
        yield {
            "action": str(step.action),
            "pool": step.pool,
            "id": step.found.id,
            "kind": step.found.kind,
            "name": passport.name if passport else "",
            "claim": passport.claim if passport else "",
            "size": step.found.size,
            "tier": record.spec.qos.tier if isinstance(record, Volume) else "",
            "limits": dataclasses.asdict(record.spec.qos.limits) if isinstance(record, Volume) else None,
            "note": step.note,
        }


def print_plan(steps: Sequence[Step], *, wide: bool) -> None:
    """Print a row for all that gets a record or needs a person."""
    table = show.table("", "", "KIND", "CLAIM OR NAME", "ID", "SIZE", "POOL", "TIER", "LIMITS", "NOTE", right=("SIZE",))
    shown = [step for step in steps if step.action is not Action.KNOWN or step.note]
    for step in shown:
        passport, record = step.found.passport, step.record
        volume = record if isinstance(record, Volume) else None
        show.row(
            table,
            (
                SAYS[step.action],
                step.found.kind or "?",
                (passport.claim or passport.name) if passport else "?",
                step.found.id if wide else step.found.id[: show.SHORT],
                show.human(step.found.size),
                step.pool,
                volume.spec.qos.tier if volume else "",
                show.limits(volume.spec.qos.limits) if volume else "",
                step.note,
            ),
        )
    if shown:
        show.console().print(table)
    if any(isinstance(step.record, Volume) and step.record.spec.qos.limits != UNLIMITED for step in shown):
        show.console().print(f"\n{CREATION}\n", markup=False)


def summary(steps: Sequence[Step], done: int, *, yes: bool) -> str:
    """Return what was, or would be, done, in one line."""
    count = {action: sum(step.action is action for step in steps) for action in Action}
    new = len({(step.record.KIND, step.record.id) for step in steps if step.record is not None})
    rest = f"{count[Action.KNOWN]} have their records, {count[Action.LEAVE]} left alone"
    if yes:
        return f"Wrote {done} records; {rest}. Now start the server: sluice serve, with the same flags."
    if not new:
        return f"Nothing to take over: {rest}."
    return f"Would write {new} records; {rest}. Nothing was changed yet: run this again with --yes."


@app.command(
    epilog="Example: sluice adopt --state /var/lib/sluice --pool name=fast,backend=loop,path=/srv/sluice,size=100Gi"
)
def adopt(
    config: options.ConfigFile = None,
    state: options.State = None,
    pool: options.Pools = None,
    tiers: options.Tiers = None,
    node_id: options.NodeId = None,
    driver_name: options.DriverName = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without, only the plan is shown.")] = False,
    missing_tier: Annotated[
        str, typer.Option(help="The tier to take where a passport names one that is not known.", metavar="TIER")
    ] = "",
    lv: Annotated[
        str, typer.Option(help="A thin volume of yours in a pool, to become a volume: --as, --tier.", metavar="VG/LV")
    ] = "",
    name: Annotated[str, typer.Option("--as", help="What it is to be called in CSI.", metavar="NAME")] = "",
    tier: Annotated[str, typer.Option(help="The tier that it is to have.", metavar="TIER")] = "standard",
    wide: Annotated[bool, typer.Option("--wide", help="Show ids in full.")] = False,
    as_json: options.Json = False,
) -> None:
    """Rebuild the records from the passports on the bytes, when the database was lost or is damaged.

    Stop the server first, and give the flags that it had. Move a damaged database away, with its -wal and -shm files.

    Volumes are never changed. Records that exist are left alone, bytes without a passport are reported. A volume whose
    tier is not known is left too: it would run without its limits. If this is cut, run it again.

    With --lv a thin volume that you made yourself gets our name and a passport first; its bytes are not changed.

    Exit status 0: nothing needs a person; 1: a pool could not be read, or something was left alone.
    """
    flags = {"state": state, "pools": pool or None, "tiers": tiers, "node_id": node_id, "driver_name": driver_name}
    # Nothing runs that would have to be limited.
    settings = Config.load(config, {**flags, "qos": "off"})
    if not settings.pools:
        raise Invalid(
            "adopt: name the pools as for serve: --pool name=NAME,backend=loop,path=DIR[,size=SIZE], or --state"
        )
    if bool(lv) != bool(name):
        raise Invalid("adopt: --lv VG/LV and --as NAME go together")
    said = adoptlv.take(settings, adoptlv.Wanted(lv, name, tier), yes=yes) if lv else ""
    steps, troubles, done = adopt_all(settings, rules_of(settings, missing_tier), yes=yes)
    if said:
        show.console(stderr=as_json).print(said, markup=False)
    if as_json:
        show.as_json({"written": done, "steps": list(as_dicts(steps)), "troubles": troubles})
    else:
        print_plan(steps, wide=wide)
        out = show.console()
        for unread, reason in troubles.items():
            out.print(f"POOL {unread} COULD NOT BE READ: {reason}", markup=False, style="bold red")
        out.print(summary(steps, done, yes=yes), markup=False)
    if troubles or any(step.action is Action.LEAVE for step in steps):
        raise typer.Exit(1)
