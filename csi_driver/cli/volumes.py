"""`sluice volumes`: what volumes there are, what they hold, and which limits are in force."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csi_driver import assemble
from csi_driver.cli import options, show
from csi_driver.config import Config, PoolConfig
from csi_driver.errors import NotFound, StorageError
from csi_driver.host import block
from csi_driver.records import Pool, Volume
from csi_driver.states import state_of
from qos.ancestor import Init, above_pods
from qos.cgroup import MOUNTPOINT, Cgroup
from qos.errors import Unenforceable
from qos.limits import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from csi_driver.host.mounts import Mounts
    from csi_driver.store.base import Store
    from qos.limits import DevNo, Limits

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

KERNEL, RECORD = "kernel", "record"
LONGEST = 28
"""Characters of a staging path: its end tells which it is."""


@dataclass(frozen=True, slots=True)
class Line:
    """Hold what is shown of a volume. `applied` is None when it isn't known, `source` who told: kernel or record."""

    volume: Volume
    pool: str
    used: int | None
    applied: Limits | None
    source: str
    staged: str

    @property
    def state(self) -> str:
        """Return the record's state, or that the kernel knows it as staged: the record may not know, after `adopt`."""
        state = state_of(self.volume)
        return "staged" if state == "ready" and self.staged else state


def ancestor(choice: str, mountpoint: Path = MOUNTPOINT) -> Cgroup:
    """Return the cgroup on which a server would keep limits; unlike the server's own search, this makes nothing."""
    if choice != "auto":
        return Cgroup(mountpoint / choice)
    systemd = Init().systemd.is_dir()
    return Cgroup(above_pods(mountpoint, Init()) or mountpoint / ("sluice.slice" if systemd else "sluice"))


@contextlib.contextmanager
def records(settings: Config) -> Iterator[Store]:
    """Open the records that a server has or had, and close them. Raises NotFound where there are none."""
    if not (settings.state / assemble.DATABASE).exists():
        raise NotFound(
            f"no records in {settings.state}: give the server's --state; if they were lost, run `sluice adopt`"
        )
    store = assemble.open_store(settings)
    try:
        yield store
    finally:
        store.close()


def limits_in_force(choice: str) -> tuple[Mapping[DevNo, Limits] | None, str]:
    """Return the limits that the kernel shows, or None and why it doesn't."""
    try:
        return ancestor(choice).read_limits(), ""
    except Unenforceable as error:
        return None, str(error)


def device_of(volume: Volume) -> DevNo | None:
    """Return the number of the volume's device, None when it has none now: a name in /dev may be another's by now."""
    path = Path(volume.status.seen.device or "/nonexistent")
    name = path.name
    names = (block.SYS / f"block/{name}/dm/name", block.SYS / f"block/{name}/loop/backing_file")
    with contextlib.suppress(OSError):
        for file in names:
            if file.exists() and volume.id in file.read_text():
                return block.dev_number(path.stat().st_rdev)
    return None


def staged_at(volume: Volume, device: DevNo | None, mounts: Mounts) -> str:
    """Return where a volume is staged: as the record says, else where the kernel shows its file system."""
    at = mounts.of(device) if device is not None and not volume.status.seen.staged else ()
    return str(at[0].target) if at else volume.status.seen.staged


def applied(volume: Volume, device: DevNo | None, seen: Mapping[DevNo, Limits] | None) -> tuple[Limits | None, str]:
    """Return the limits in force and who says so: the kernel where it can be asked, else what the agent saw last."""
    if device is not None and seen is not None:
        return seen.get(device, UNLIMITED), KERNEL
    if device is None:
        return None, ""
    return volume.status.seen.limits, RECORD


def used_of(pools: Sequence[Pool], machine: assemble.Machine) -> Callable[[Volume], int | None]:
    """Return what tells the allocated bytes of a volume, None where its pool can't be looked at from here."""
    backends = {}
    for pool in pools:
        spec = pool.spec
        backend = machine.backend(PoolConfig(spec.name, spec.backend, Path(spec.path), spec.size, spec.ratio))
        with contextlib.suppress(StorageError):
            if backend.look() == pool.status.identity:
                backends[pool.id] = backend

    def used(volume: Volume) -> int | None:
        accepted = volume.status.history.accepted
        backend = backends.get(accepted.pool) if accepted else None
        found = backend.find(volume.id) if backend else None
        return found.allocated if found else None

    return used


def lines(store: Store, seen: Mapping[DevNo, Limits] | None) -> list[Line]:
    """Return what is known of all volumes, by claim or name."""
    pools = store.list(Pool)
    names = {pool.id: pool.spec.name for pool in pools}
    machine = assemble.Machine()
    used = used_of(pools, machine)
    found = []
    for volume in sorted(store.list(Volume), key=lambda one: one.spec.claim or one.spec.name):
        offer = volume.status.history.accepted or volume.spec.offer
        device = device_of(volume)
        now, source = applied(volume, device, seen)
        staged = staged_at(volume, device, machine.mounts)
        found.append(Line(volume, names.get(offer.pool, "?") if offer else "", used(volume), now, source, staged))
    machine.dead_man.close()
    return found


def trouble(volume: Volume) -> str:
    """Return what is wrong with a volume, for people."""
    seen, history = volume.status.seen, volume.status.history
    if seen.abnormal:
        return seen.abnormal
    refused = history.refused if not history.accepted else None
    failure = seen.error or history.gone or refused
    return failure.message if failure else ""


def as_dict(line: Line) -> dict[str, object]:
    """Return a volume for programs."""
    volume, seen = line.volume, line.volume.status.seen
    return {
        "id": volume.id,
        "name": volume.spec.name,
        "claim": volume.spec.claim,
        "pool": line.pool,
        "size": volume.status.history.size or volume.spec.size,
        "used": line.used,
        "tier": volume.spec.qos.tier,
        "overrides": dict(volume.spec.qos.overrides),
        "wanted": dataclasses.asdict(volume.spec.qos.limits),
        "applied": dataclasses.asdict(line.applied) if line.applied else None,
        "floor": dataclasses.asdict(volume.spec.qos.floor),
        "floorPromised": dataclasses.asdict(volume.status.history.floor),
        "appliedFrom": line.source,
        "state": line.state,
        "staged": line.staged,
        "device": seen.device,
        "trouble": trouble(volume),
    }


def print_table(found: Sequence[Line], *, wide: bool) -> None:
    """Print a row a volume."""
    columns = ("CLAIM OR NAME", "ID", "POOL", "SIZE", "USED", "TIER", "WANTED", "APPLIED", "STATE", "STAGED AT")
    table = show.table("", *columns, right=("SIZE", "USED"))
    for line in found:
        volume = line.volume
        want = volume.spec.qos.limits
        differs = line.applied is not None and line.applied != want
        staged = line.staged
        show.row(
            table,
            (
                volume.spec.claim or volume.spec.name,
                volume.id if wide else volume.id[: show.SHORT],
                line.pool,
                show.human(volume.status.history.size or volume.spec.size),
                show.human(line.used) if line.used is not None else "-",
                volume.spec.qos.tier,
                show.limits(want),
                (show.limits(line.applied) if differs else "as wanted") if line.applied is not None else "-",
                line.state,
                staged if wide or len(staged) <= LONGEST else "…" + staged[-LONGEST:],
            ),
        )
    out = show.console()
    out.print(table)
    for line in found:
        if said := trouble(line.volume):
            named = line.volume.spec.claim or line.volume.spec.name
            out.print(show.plain(f"{named}: {said}"), markup=False, style="red")


@app.command(epilog="Example: sluice volumes --state /var/lib/sluice")
def volumes(
    config: options.ConfigFile = None,
    state: options.State = None,
    ancestor: options.Ancestor = None,
    wide: Annotated[bool, typer.Option("--wide", help="Show ids and paths in full.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show the volumes: size, bytes in use, tier, limits wanted and in force, state. May run beside the server.

    APPLIED is read from the kernel; `-` where a volume has no device now.
    """
    settings = Config.load(config, {"state": state, "ancestor": ancestor})
    seen, reason = limits_in_force(settings.ancestor)
    with records(settings) as store:
        found = lines(store, seen)
    if as_json:
        show.as_json([as_dict(line) for line in found])
        return
    if not found:
        show.console().print("There are no volumes.")
        return
    print_table(found, wide=wide)
    if reason and any(line.source == RECORD for line in found):
        show.console(stderr=True).print(
            f"APPLIED is what the agent saw last; the kernel's limits: {reason}", markup=False
        )
