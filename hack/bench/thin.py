"""`hack/bench/lvm`: what calls on a thin pool cost beside lvm's own commands, by turns. Runs in the test machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from csi_driver.errors import Unready
from hack.bench.calls import GIB, UNCOUNTED, Caller
from hack.bench.driver import FOLDER, Sluice
from hack.bench.figures import median
from hack.bench.main import command_line
from hack.bench.progress import Progress
from hack.bench.show import number, table

if TYPE_CHECKING:
    from collections.abc import Iterator

VG, POOL, RATIO = "bench", "thin", 1000
app = typer.Typer(add_completion=False)


@dataclass
class Found:
    """Hold milliseconds by what was done and at how many volumes, and lvm programs by call."""

    ms: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    programs: dict[str, int] = field(default_factory=dict)

    def medians(self) -> dict[str, dict[str, float]]:
        """Return the medians."""
        return {at: {what: median(values) for what, values in whats.items()} for at, whats in self.ms.items()}


def lvm(*words: str) -> float:
    """Run an lvm command; return the milliseconds it took. Raises Unready."""
    began = time.perf_counter()
    done = subprocess.run(["lvm", words[0], "-qq", *words[1:]], capture_output=True, text=True, check=False)
    took = (time.perf_counter() - began) * 1000
    if done.returncode:
        raise Unready(f"lvm {' '.join(words)}: {done.stderr}")
    return took


@contextlib.contextmanager
def thin_pool(disk: str, chunk: str) -> Iterator[str]:
    """Make a pool on a disk, and remove it in the end. Give it in the words of `sluice serve`."""
    lvm("pvcreate", "-ff", "-y", "--devices", disk, "--metadatasize", "64m", disk)
    lvm("vgcreate", "--devices", disk, "--setautoactivation", "n", VG, disk)
    words = ("--type", "thin-pool", "-c", chunk, "-Zy", "--poolmetadatasize", "128m", "-l", "80%FREE", "-n", POOL)
    lvm("lvcreate", "-y", "--devices", disk, *words, VG)
    try:
        yield f"name=fast,backend=lvm,vg={VG},thinpool={POOL},ratio={RATIO}"
    finally:
        lvm("vgremove", "-ff", "-y", "--devices", disk, VG)
        lvm("pvremove", "-y", "--devices", disk, disk)


class Turns:
    """Let lvm and the driver do the same by turns."""

    def __init__(self, disk: str, server: Sluice, found: Found) -> None:
        self._disk = disk
        self._server = server
        self._found = found
        self._count = 0
        self._caller = Caller(server.socket, server.folder, "one")
        self._huge = Caller(server.socket, server.folder, "huge", 1024 * GIB)

    def round(self, at: str) -> None:
        """Create, cut, clone and delete once each way."""
        ms = self._found.ms[at]
        self._count += 1
        name = f"raw{self._count}"
        ms["lvcreate -V"].append(self._lvm("lvcreate", "-V", "1g", "-T", f"{VG}/{POOL}", "-n", name))
        ms["lvcreate -s"].append(self._lvm("lvcreate", "-s", f"{VG}/{name}", "-n", f"{name}s"))
        ms["lvremove"].append(self._lvm("lvremove", "-f", f"{VG}/{name}"))
        self._lvm("lvremove", "-f", f"{VG}/{name}s")
        # The driver reads a group anew that somebody else has changed; nobody does in service.
        self._caller.delete(self._caller.create(UNCOUNTED), UNCOUNTED)
        volume = self._caller.create()
        for caller, size in ((self._caller, "1 GiB"), (self._huge, "1 TiB")):
            source = caller.create(UNCOUNTED) if caller is self._huge else volume
            snapshot = caller.cut(source)
            clone = caller.create(f"clone of {size}", snapshot)
            ms[f"CreateSnapshot of {size}"] += caller.samples.pop("CreateSnapshot")
            ms[f"CreateVolume from a snapshot of {size}"] += caller.samples.pop(f"clone of {size}")
            caller.delete(clone, UNCOUNTED)
            caller.delete_snapshot(snapshot)
            if source != volume:
                caller.delete(source, UNCOUNTED)
        self._caller.delete(volume)
        for rpc in ("CreateVolume", "DeleteVolume"):
            ms[rpc] += self._caller.samples.pop(rpc)

    def grow(self, volumes: int, told: Progress) -> None:
        """Make so many volumes more."""
        for number_ in range(volumes):
            told("more volumes", number_, volumes)
            self._caller.create(UNCOUNTED)

    def programs(self) -> None:
        """Count the lvm programs of each call of a life, of a list and of GetCapacity."""
        volume = self._caller.create(UNCOUNTED)
        for rpc, message in (*self._caller.middle(volume), ("ListVolumes", b""), ("GetCapacity", b"")):
            before = self._server.programs().get("lvm", 0)
            self._caller.call(rpc, message, UNCOUNTED)
            self._found.programs[rpc] = self._server.programs().get("lvm", 0) - before
        self._caller.delete(volume, UNCOUNTED)

    def _lvm(self, command: str, *words: str) -> float:
        return lvm(command, "-y", "--devices", self._disk, *words)


def ratios(medians: dict[str, dict[str, float]]) -> list[tuple[str, str, float, float]]:
    """Return what is held against what: name, words, ratio, and the most that is wanted."""
    rows = []
    for at, ms in medians.items():
        rows += [
            (at, "CreateVolume / lvcreate -V", ms["CreateVolume"] / ms["lvcreate -V"], 1.2),
            (at, "DeleteVolume / lvremove", ms["DeleteVolume"] / ms["lvremove"], 1.2),
            (at, "CreateSnapshot of 1 TiB / of 1 GiB", _of(ms, "CreateSnapshot of {}"), 1.1),
            (at, "clone of 1 TiB / of 1 GiB", _of(ms, "CreateVolume from a snapshot of {}"), 1.1),
        ]
    first, last = next(iter(medians)), list(medians)[-1]
    if first != last:
        for what in ("lvcreate -V", "CreateVolume", "lvremove", "DeleteVolume"):
            rows.append((f"{last} / {first}", what, medians[last][what] / medians[first][what], 2.0))
    return rows


def _of(ms: dict[str, float], what: str) -> float:
    return ms[what.format("1 TiB")] / ms[what.format("1 GiB")]


def print_found(console: Console, result: dict[str, Any]) -> None:
    """Print medians, ratios and programs."""
    shown = table("Milliseconds, medians", "what", *result["ms"])
    for what in next(iter(result["ms"].values())):
        shown.add_row(what, *(number(ms[what]) for ms in result["ms"].values()))
    console.print(shown)
    shown = table("Ratios", "at", "what", "ratio", "wanted")
    for at, what, ratio, most in result["ratios"]:
        shown.add_row(at, what, f"{ratio:.2f}", f"<= {most}")
    console.print(shown)
    shown = table("lvm programs", "call", "started")
    for rpc, count in result["programs"].items():
        shown.add_row(rpc, str(count))
    console.print(shown)


@app.command()
def main(
    rounds: Annotated[int, typer.Option(help="Rounds at each number of volumes.")] = 7,
    volumes: Annotated[int, typer.Option(help="Volumes that are made before the second measurement; 0: none.")] = 0,
    chunk: Annotated[str, typer.Option(help="The pool's chunk size.")] = "64k",
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = Path("lvm.json"),
) -> None:
    """Measure CreateVolume and the like beside lvcreate and the like: ratios, since the machine is emulated."""
    disk, found, console = os.environ["SLUICE_DISK"], Found(), Console(width=120)
    with thin_pool(disk, chunk) as pool, Sluice("", RATIO, FOLDER, pool=pool) as server, Progress(console) as told:
        turns = Turns(disk, server, found)
        turns.programs()
        for at in ("0 volumes", *((f"{volumes:,} volumes",) if volumes else ())):
            if at != "0 volumes":
                turns.grow(volumes, told)
            for each in range(rounds):
                told(f"rounds at {at}", each, rounds)
                turns.round(at)
    medians = found.medians()
    result = {"chunk": chunk, "ms": medians, "ratios": ratios(medians), "programs": found.programs}
    out.write_text(json.dumps(result, indent=2))
    print_found(console, result)


if __name__ == "__main__":
    sys.exit(command_line(app))
