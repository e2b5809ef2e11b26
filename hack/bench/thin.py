"""`hack/bench/lvm`: what calls on a thin pool cost beside lvm's own commands, by turns. Runs in the test machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from csi_driver.config import Config
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Unready
from csi_driver.rpc import csi_pb2 as csi
from hack.bench.calls import GIB, UNCOUNTED, Caller
from hack.bench.driver import FOLDER, Sluice
from hack.bench.figures import median
from hack.bench.main import command_line
from hack.bench.present import with_copies
from hack.bench.progress import Progress
from hack.bench.show import number, table
from hack.bench.thindevices import ThinDevices

if TYPE_CHECKING:
    from collections.abc import Iterator

VG, POOL, RATIO = "bench", "thin", 1000
RAW = ("lvcreate -V", "lvcreate -s", "lvremove")
ABOUT = 2.0
"""How much dearer lvm's own commands are expected to get with a thousand volumes."""
NOISE = 1.1
"""How much more than lvm's own commands a call may grow."""
SECONDS = 60.0
PAGE = 100
"""Volumes that a list may have: one of all grows with them, whoever answers."""
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
    finally:  # vgremove would take its time for each of many volumes
        lvm("vgchange", "-an", "--devices", disk, VG)
        subprocess.run(["wipefs", "--all", "--quiet", disk], check=True)


def fill(disk: str, server: Sluice, pool: str, volumes: int, told: Progress) -> None:
    """Have so many volumes in the pool, as if the server had made them; by lvcreate that takes half an hour.

    Their thin devices are made by messages to the pool, their text is restored by vgcfgrestore, and their records are
    made by `sluice adopt`, from the passports in that text.
    """
    told(f"making {volumes:,} volumes: thin devices", 0, 4)
    with closing(Caller(server.socket, server.folder, "template")) as caller:
        template = caller.create(UNCOUNTED)
    server.stop()
    with ThinDevices.of(VG, POOL) as devices:
        ids = [devices.create(number) for number in range(volumes)]
    told(f"making {volumes:,} volumes: their text", 1, 4)
    text = server.folder / "group"
    lvm("vgcfgbackup", "--devices", disk, "-f", str(text), VG)
    text.write_text(with_copies(text.read_text(), template, Config().scope, ids))
    lvm("vgchange", "--devices", disk, "-an", VG)
    lvm("vgcfgrestore", "--devices", disk, "--force", "-f", str(text), VG)
    told(f"making {volumes:,} volumes: their devices", 2, 4)
    lvm("vgchange", "--devices", disk, "-ay", VG)
    told(f"making {volumes:,} volumes: their records", 3, 4)
    server.adopt(f"--pool={pool}")
    server.start()


class Turns:
    """Let lvm and the driver do the same by turns."""

    def __init__(self, disk: str, server: Sluice, found: Found, name: str) -> None:
        self._disk = disk
        self._server = server
        self._found = found
        self._name = name
        self._count = 0
        self._caller = Caller(server.socket, server.folder, name)
        self._huge = Caller(server.socket, server.folder, f"{name}-huge", 1024 * GIB)

    def round(self, at: str) -> None:
        """Create, cut, clone and delete once each way, and make all calls of a life."""
        ms = self._found.ms[at]
        self._count += 1
        name = f"raw-{self._name}-{self._count}"
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
        for rpc, message in self._others(volume):
            self._caller.call(rpc, message)
            ms[rpc] += self._caller.samples.pop(rpc)
        self._caller.delete(volume)
        for rpc in ("CreateVolume", "DeleteSnapshot", "DeleteVolume"):
            ms[rpc] += self._caller.samples.pop(rpc)

    def programs(self) -> None:
        """Count the lvm programs of each call of a life, of a list and of GetCapacity."""
        volume = self._caller.create(UNCOUNTED)
        for rpc, message in self._others(volume):
            before = self._started()
            self._caller.call(rpc, message, UNCOUNTED)
            self._found.programs[rpc] = self._started() - before
            if rpc == "NodeStageVolume":  # the first one of a volume: the agent writes its format into the passport
                wait_for("the passport is written", partial(self._is_more_than, before), Deadline(SECONDS))
                self._found.programs[f"the agent, after {rpc}"] = self._started() - before
        self._caller.delete(volume, UNCOUNTED)

    def _started(self) -> int:
        return self._server.programs().get("lvm", 0)

    def _is_more_than(self, before: int) -> bool:
        return self._started() > before

    def _others(self, volume: str) -> list[tuple[str, bytes]]:
        """Return the calls that start no program of lvm's: those of a life, a list and GetCapacity."""
        page = csi.ListVolumesRequest(max_entries=PAGE).SerializeToString()
        return [*self._caller.middle(volume), ("ListVolumes", page), ("GetCapacity", b"")]

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
        grown = {what: medians[last][what] / medians[first][what] for what in medians[last]}
        most = NOISE * max(1.0, *(grown[what] for what in RAW))
        rows += [(f"{last} / {first}", what, ratio, ABOUT if what in RAW else most) for what, ratio in grown.items()]
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
        shown.add_row(at, what, f"{ratio:.2f}", f"<= {most:.2f}")
    console.print(shown)
    shown = table("lvm programs", "call", "started")
    for rpc, count in result["programs"].items():
        shown.add_row(rpc, str(count))
    console.print(shown)


@app.command()
def main(
    rounds: Annotated[int, typer.Option(help="Rounds at each number of volumes.")] = 7,
    volumes: Annotated[int, typer.Option(help="Volumes that are there in the second measurement; 0: none.")] = 0,
    chunk: Annotated[str, typer.Option(help="The pool's chunk size.")] = "64k",
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = Path("lvm.json"),
) -> None:
    """Measure CreateVolume and the like beside lvcreate and the like: ratios, since the machine is emulated."""
    disk, found, console = os.environ["SLUICE_DISK"], Found(), Console(width=120)
    with thin_pool(disk, chunk) as pool, Sluice("", RATIO, FOLDER, pool=pool) as server, Progress(console) as told:
        Turns(disk, server, found, "programs").programs()
        for count in (0, volumes) if volumes else (0,):
            if count:
                fill(disk, server, pool, count, told)
            turns = Turns(disk, server, found, f"at-{count}")
            for each in range(rounds):
                told(f"rounds at {count:,} volumes", each, rounds)
                turns.round(f"{count:,} volumes")
    medians = found.medians()
    result = {"chunk": chunk, "ms": medians, "ratios": ratios(medians), "programs": found.programs}
    out.write_text(json.dumps(result, indent=2))
    print_found(console, result)


if __name__ == "__main__":
    sys.exit(command_line(app))
