"""`hack/bench/rpc`: measure a CSI driver over its socket, and print what it took."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import grpc
import psutil
import typer
from rich.console import Console

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import StorageError, Unready
from hack.bench import plan, show
from hack.bench.crew import CHECKOUT, Crew
from hack.bench.driver import FOLDER, PREFIX, READY_SECONDS, Driver, Sluice, clear
from hack.bench.growth import Growth
from hack.bench.measure import NULL, OURS, RAW, Bench, starts
from hack.bench.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

POOL, LARGE_POOL, RATIO = "4Gi", "12Gi", 1000
"""The large one has room for the 10,000 promises of growth."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(epilog="Example: hack/bench/rpc --quick --only calls")
def rpc(  # noqa: PLR0913, PLR0917 - one parameter a flag
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds, growth to 1,000: about 40 s.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="One of everything, to see that it works: 5 s.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"Only this part: {', '.join(plan.SECTIONS)}.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds that ours, raw and null take in turn.")] = 0,
    lives: Annotated[int, typer.Option(help="Lives of one round with one caller.")] = 0,
    socket: Annotated[Path | None, typer.Option(help="Measure the driver that listens here, not ours.")] = None,
    folder: Annotated[Path, typer.Option(help="Where pool, database and paths go; no tmpfs.")] = FOLDER,
    name: Annotated[str, typer.Option(help="What the driver is called in tables.")] = "",
    qos: Annotated[str, typer.Option(help="--qos of our server; enforce needs the io controller.")] = "off",
    compare: Annotated[Path | None, typer.Option(help="Print an earlier result beside this one.")] = None,
    shown: Annotated[Path | None, typer.Option("--show", help="Measure nothing, show this result.")] = None,
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = CHECKOUT / "build/bench/rpc.json",
    check: Annotated[bool, typer.Option("--check", help="End with status 1 when a target is missed.")] = False,
) -> None:
    """Measure every RPC at 1, 8 and 32 callers beside the raw cost of the same effects and an empty server: 3 minutes.

    Needs root. Volumes are thin, 1 GiB, ext4; our server gets a pool of its own in /var/tmp. Each figure is given for
    all rounds (p50, p95, p99) and for the quietest round (its p50).
    """
    console = Console(width=None if os.isatty(1) else 180)
    if shown:
        result = json.loads(shown.read_text())
    else:
        wanted = _plan(quick=quick, tiny=tiny, only=only, rounds=rounds, lives=lives)
        result = run(console, wanted, socket=socket, folder=folder, name=name, qos=qos)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1))
    console.print(", ".join(f"{key} {value}" for key, value in result["machine"].items()), style="dim", markup=False)
    show.print_result(console, result)
    if compare:
        show.print_beside(console, result, json.loads(compare.read_text()))
    met = show.print_targets(console, result)
    console.print(f"\n{shown or out}; it took {result['seconds']:.0f} s", highlight=False)
    raise typer.Exit(0 if met or not check else 1)


def run(
    console: Console, wanted: plan.Plan, *, socket: Path | None, folder: Path, name: str, qos: str
) -> dict[str, Any]:
    """Measure and clear everything away. Raises StorageError, RuntimeError when that can't be done."""
    if os.geteuid() != 0:
        raise Unready("run it as root: it mounts")
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(console))
        progress("starting the driver", 0, 1)
        driver, inside = _driver(stack, socket, folder, qos)
        result: dict[str, Any] = {"machine": _machine(driver, name), "plan": dataclasses.asdict(wanted)}
        if isinstance(driver, Sluice) and wanted.has("start"):
            progress("stopping and starting it again and again", 0, 1)
            result["start"] = starts(driver, wanted.starts)
        crews = _crews(stack, driver, inside)
        bench = Bench(driver, crews, wanted, progress)
        bench.warm_up()
        for section in plan.SECTIONS:
            if wanted.has(section) and section not in {"start", "growth"}:
                result[section] = getattr(bench, section)()
        if wanted.has("growth"):
            result["growth"] = _growth(stack, driver, crews, wanted, progress)
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def _driver(stack: contextlib.ExitStack, socket: Path | None, parent: Path, qos: str) -> tuple[Driver, Path]:
    """Return the driver and a folder for paths: within that of our server, so that all goes in the right order."""
    if socket is None:
        ours = stack.enter_context(Sluice(POOL, RATIO, parent, qos=qos))
        return ours, ours.folder
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    stack.callback(clear, folder)
    return Driver(socket), folder


def _crews(stack: contextlib.ExitStack, driver: Driver, folder: Path) -> dict[str, Crew]:
    """Start the processes that make the calls, and those that there is to hold the driver against."""
    null = folder / "null.sock"
    server = subprocess.Popen([sys.executable, "-m", "hack.bench.null", str(null)], cwd=CHECKOUT)
    stack.callback(server.wait)
    stack.callback(server.terminate)
    wait_for(f"{null} is there", null.exists, Deadline(READY_SECONDS))
    crews = {OURS: stack.enter_context(Crew("hack.bench.caller", driver.socket, folder / "ours"))}
    if isinstance(driver, Sluice):
        pool = driver.pool / "bench"
        pool.mkdir()
        crews[RAW] = stack.enter_context(Crew("hack.bench.raw", pool, folder, processes=1, named=False))
    crews[NULL] = stack.enter_context(Crew("hack.bench.caller", null, folder / "null"))
    return crews


def _growth(
    stack: contextlib.ExitStack, driver: Driver, crews: dict[str, Crew], wanted: plan.Plan, progress: Progress
) -> list[dict[str, Any]]:
    """Let a driver grow: ours in a new server, beside another new one that stays empty."""
    if not isinstance(driver, Sluice):
        return Growth(driver, crews[OURS], None, wanted, progress).measure()
    progress("starting two more, one to grow and one to stay empty", 0, 1)
    grown, empty = (stack.enter_context(Sluice(size, RATIO, driver.folder.parent)) for size in (LARGE_POOL, POOL))
    callers = [
        stack.enter_context(Crew("hack.bench.caller", each.socket, each.folder / "callers")) for each in (grown, empty)
    ]
    return Growth(grown, callers[0], callers[1], wanted, progress).measure()


def _machine(driver: Driver, name: str) -> dict[str, Any]:
    facts = {
        "driver": name or ("sluice" if driver.own else driver.socket.name),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "sqlite": sqlite3.sqlite_version,
    }
    if isinstance(driver, Sluice):
        facts |= {"pool": f"{_file_system(driver.pool)} on {_file_system(driver.folder)}"}
        facts |= {"database": f"{_file_system(driver.folder)}, WAL, synchronous=FULL"}
    return facts


def _file_system(path: Path) -> str:
    """Return the type of the file system that a folder is on."""
    mounts = [mount for mount in psutil.disk_partitions(all=True) if path.is_relative_to(mount.mountpoint)]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype


def _plan(*, quick: bool, tiny: bool, only: list[str] | None, rounds: int, lives: int) -> plan.Plan:
    wanted = plan.TINY if tiny else plan.QUICK if quick else plan.FULL
    if unknown := set(only or ()) - set(plan.SECTIONS):
        raise typer.BadParameter(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(plan.SECTIONS)}")
    changes: dict[str, Any] = {"rounds": rounds, "lives": lives, "sections": tuple(only or ())}
    return dataclasses.replace(wanted, **{key: value for key, value in changes.items() if value})


def leave(number: int, _frame: FrameType | None) -> NoReturn:
    """Unwind, so that everything is taken down."""
    raise SystemExit(128 + number)


def command_line(app: Callable[[], object]) -> int:
    """Run a command line, and say in one line what prevented it. Return the exit status."""
    signal.signal(signal.SIGTERM, leave)
    try:
        app()
    except StorageError as error:
        sys.stderr.write(f"hack/bench: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(command_line(app))
