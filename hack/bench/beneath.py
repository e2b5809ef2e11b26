"""`hack/bench/unseen`: what a thin pool does on its disk that no limit sees, by chunk size. Runs in the test machine.

The disk's own counters over those of the volume: thin zeroing, copies and metadata are the kernel's, not the pod's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from csi_driver.errors import Unready
from csi_driver.host import block
from csi_driver.host.block import SECTOR, device_at
from csi_driver.stack import dm_name
from hack.bench.calls import GIB, UNCOUNTED, Caller
from hack.bench.driver import FOLDER, Sluice
from hack.bench.figures import percentile
from hack.bench.main import command_line
from hack.bench.progress import Progress
from hack.bench.show import table
from hack.bench.thin import RATIO, thin_pool
from hack.demo.figures import read_log
from hack.demo.load import FIO, inference
from qos.ancestor import find_ancestor

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNKS = "64k,256k,512k"
WRITES = 1500
READS = 200
MIB = 1 << 20

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Hold bytes: what a pod's volume was charged, and what its disk did meanwhile."""

    charged: int
    written: int
    read: int

    @property
    def factor(self) -> float:
        """Return how many bytes the disk moved for each that was charged."""
        return (self.written + self.read) / self.charged if self.charged else 0.0


class Bench:
    """Hold one pool's server, and a raw view of its volumes."""

    def __init__(self, disk: str, server: Sluice) -> None:
        self._disk = device_at(Path(disk)).dev
        self._server = server
        self._ancestor = find_ancestor("auto")
        self._pod = self._ancestor.path / "pod-bench"
        self._pod.mkdir(exist_ok=True)
        self._count = 0

    def caller(self, size: int) -> Caller:
        """Return a caller whose volumes have so many bytes."""
        self._count += 1
        return Caller(self._server.socket, self._server.folder, f"c{self._count}", size)

    def traffic(self, volume: str, file: Path, writes: int) -> Traffic:
        """Write 4 KiB at random places of a file, each once, and return what that took."""
        dev = _volume(volume)
        os.sync()
        charged, (written, read) = self._charged(dev), self._moved()
        words = [f"--filename={file}", "--name=writes", "--rw=randwrite", "--bs=4k", "--direct=1", "--iodepth=8"]
        self._fio([*words, f"--number_ios={writes}", f"--size={file.stat().st_size}", "--randseed=7"])
        os.sync()
        after = self._moved()
        return Traffic(self._charged(dev) - charged, after[0] - written, after[1] - read)

    def reads(self, file: Path, seconds: float, log: Path) -> subprocess.Popen[bytes]:
        """Start small random reads that arrive by chance, for so many seconds, or until they are ended."""
        words = [*inference(file, file.stat().st_size, READS), f"--runtime={seconds:g}", f"--write_lat_log={log}"]
        return self._start([*FIO[:3], "--output-format=json", "--disable_clat=1", "--disable_slat=1", *words])

    def _fio(self, words: Sequence[str]) -> None:
        process = self._start(["fio", "--ioengine=libaio", "--output-format=json", *words])
        said, _ = process.communicate()
        if process.returncode:
            raise Unready(f"fio ended with status {process.returncode}: {said[-300:]!r}")

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        inner = ["sh", "-c", 'echo 0 > "$0" && exec "$@"', str(self._pod / "cgroup.procs"), *argv]
        return subprocess.Popen(inner, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def _charged(self, dev: block.Device) -> int:
        found = self._ancestor.io_stat().get(dev.dev)
        return found.wbytes if found else 0

    def _moved(self) -> tuple[int, int]:
        counters = (block.sysfs(self._disk) / "stat").read_text().split()
        return int(counters[6]) * SECTOR, int(counters[2]) * SECTOR


def _volume(volume_id: str) -> block.Device:
    for name in Path("/sys/block").glob("dm-*/dm/name"):
        if name.read_text().strip() == dm_name(volume_id):
            return block.named(name.parent.parent.name)
    raise Unready(f"{volume_id} has no device")


def one_chunk(bench: Bench, told: Progress, chunk: str) -> dict[str, dict[str, float]]:
    """Return the traffic of writes into unallocated, allocated and just-cut space of one pool."""
    caller = bench.caller(GIB)
    volume = caller.create(UNCOUNTED)
    caller.publish(volume)
    file = caller.target / "data"
    with file.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, 400 * MIB)  # the file system's mappings are there; the pool's are not
    found = {}
    for place, case in enumerate(("unallocated", "just cut", "allocated")):
        told(f"chunks of {chunk}: 4 KiB writes into {case} space", place, 3)
        if case == "just cut":
            subprocess.run(["dd", "if=/dev/zero", f"of={file}", "bs=1M", "count=400", "conv=notrunc,fsync"], check=True)
            snapshot = caller.cut(volume)
        traffic = bench.traffic(volume, file, WRITES)
        found[case] = {**asdict(traffic), "factor": traffic.factor}
        if case == "just cut":
            caller.delete_snapshot(snapshot)
            subprocess.run(["dd", "if=/dev/zero", f"of={file}", "bs=1M", "count=400", "conv=notrunc,fsync"], check=True)
    caller.take_down(volume)
    return found


def neighbours(bench: Bench, told: Progress, volumes: int, folder: Path) -> dict[str, float]:
    """Return p99 in ms of small reads alone, and while volumes are made, cut and deleted in their pool."""
    caller, other = bench.caller(GIB), bench.caller(GIB)
    volume = caller.create(UNCOUNTED)
    caller.publish(volume)
    file = caller.target / "data"
    subprocess.run(["dd", "if=/dev/zero", f"of={file}", "bs=1M", "count=128", "oflag=direct"], check=True)
    found = {}
    for case in ("alone", "beside"):
        told(f"p99 of a neighbour, {case}", 0, 1)
        process = bench.reads(file, 20 if case == "alone" else 3600, folder / case)
        for place in range(volumes if case == "beside" else 0):
            told("volumes made, cut and deleted", place, volumes)
            made = other.create(UNCOUNTED)
            snapshot = other.cut(made)
            other.delete(made, UNCOUNTED)
            other.delete_snapshot(snapshot)
        if case == "beside":
            process.terminate()
        process.communicate()
        found[f"{case} p99 ms"] = percentile([io.ms for io in read_log(folder / f"{case}_lat.1.log")], 99)
    caller.take_down(volume)
    return {**found, "volumes": volumes}


@app.command()
def main(
    chunks: Annotated[str, typer.Option(help="Chunk sizes, with commas.")] = CHUNKS,
    volumes: Annotated[int, typer.Option(help="Volumes made, cut and deleted beside a neighbour; 0: none.")] = 100,
    writes: Annotated[bool, typer.Option(help="Measure what the disk moves for small writes, too.")] = True,
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = Path("unseen.json"),
) -> None:
    """Measure the disk's traffic over the volume's, and a neighbour's p99 beside the pool's own work."""
    disk, console = os.environ["SLUICE_DISK"], Console(width=120)
    result: dict[str, dict[str, dict[str, float]]] = {}
    with Progress(console) as told:
        for chunk in chunks.split(","):
            with (
                thin_pool(disk, chunk) as pool,
                Sluice("", RATIO, FOLDER, qos="enforce", pool=pool) as server,
            ):
                bench = Bench(disk, server)
                result[chunk] = one_chunk(bench, told, chunk) if writes else {}
                if volumes:
                    result[chunk]["neighbour"] = neighbours(bench, told, volumes, server.folder)
                out.write_text(json.dumps(result, indent=2))
    print_found(console, result)


def print_found(console: Console, result: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a row for each chunk size."""
    title = (
        "Bytes that the disk moved for each byte charged to the volume, 4 KiB random writes; a neighbour's p99 in ms"
    )
    shown = table(title, "chunk", *CASES, *P99S)
    for chunk, cases in result.items():
        factors = [cases.get(case, {}).get("factor") for case in CASES]
        p99s = [cases.get("neighbour", {}).get(name) for name in P99S]
        shown.add_row(chunk, *("" if figure is None else f"{figure:.1f}" for figure in (*factors, *p99s)))
    console.print(shown)


CASES = ("unallocated", "just cut", "allocated")
P99S = ("alone p99 ms", "beside p99 ms")

if __name__ == "__main__":
    sys.exit(command_line(app))
