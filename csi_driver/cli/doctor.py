"""`sluice doctor`: what this node can and can't do, why, and what to do about it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from csi_driver import assemble
from csi_driver.cli import checks, options, show
from csi_driver.cli.checks import Check, State, missing, ok
from csi_driver.cli.checks_lvm import lvm_checks
from csi_driver.cli.formats import format_checks
from csi_driver.config import Config
from csi_driver.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

STYLES = {State.OK: "green", State.WARNING: "yellow", State.MISSING: "bold red"}


def look(config: Config) -> Iterator[Check]:
    """Yield all checks."""
    machine = assemble.Machine()
    try:
        yield from checks.machine_checks(machine)
        yield from format_checks(machine)
        yield from checks.qos_checks(config)
        yield _tiers(config)
        yield from checks.state_checks(config)
        yield from checks.pool_checks(config, machine)
        yield from lvm_checks(config, machine)
    finally:
        machine.dead_man.close()


def _tiers(config: Config) -> Check:
    try:
        tiers = assemble.tiers_of(config)
    except (StorageError, OSError) as error:
        return missing("tiers", str(error), "correct the file: sluice tiers --help has the grammar")
    return ok("tiers", ", ".join(sorted(tiers)))


def verdict(found: Sequence[Check]) -> str:
    """Return what all checks come to, in one line."""
    lacking = [check.name for check in found if check.state is State.MISSING]
    warnings = sum(check.state is State.WARNING for check in found)
    if lacking:
        return f"This node can't serve: {', '.join(lacking)}."
    return "This node can serve" + (f", with {warnings} warning{'s' * (warnings > 1)}." if warnings else ".")


def print_table(found: Sequence[Check]) -> None:
    """Print a row a check."""
    table = show.table("", "", "CHECK", "FOUND", "WHAT TO DO")
    for check in found:
        show.row(table, (Text(str(check.state), STYLES[check.state]), check.name, check.found, check.remedy))
    out = show.console()
    out.print(table)
    out.print(f"\n{verdict(found)}", style="bold", markup=False)


@app.command(epilog="Example: sluice doctor --pool name=fast,backend=loop,path=/srv/sluice,size=100Gi")
def doctor(
    config: options.ConfigFile = None,
    state: options.State = None,
    pool: options.Pools = None,
    tiers: options.Tiers = None,
    qos: options.Qos = None,
    ancestor: options.Ancestor = None,
    node_id: options.NodeId = None,
    driver_name: options.DriverName = None,
    as_json: options.Json = False,
) -> None:
    """Say what this node can and can't do, why, and what to do about it. Give the flags of serve.

    Changes nothing, and may run beside the server. Exit status 0: it can serve; 1: it can't.
    """
    flags = {key: value for key, value in locals().items() if key not in ("config", "pool", "as_json")}
    settings = Config.load(config, {**flags, "pools": pool or None})
    found = list(look(settings))
    if as_json:
        serves = all(check.state is not State.MISSING for check in found)
        show.as_json({"can_serve": serves, "checks": [dataclasses.asdict(check) for check in found]})
    else:
        print_table(found)
    if any(check.state is State.MISSING for check in found):
        raise typer.Exit(1)
