"""`hack/bench/ficlone`: what a snapshot of a volume with many extents takes, and how long its writers wait."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path  # noqa: TC003 - Typer reads annotations when it runs
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.console import Console

from csi_driver.errors import Unready
from csi_driver.host.syscalls import FICLONE
from hack.bench import extents
from hack.bench.calls import GIB, Caller, Failed
from hack.bench.crew import CHECKOUT
from hack.bench.driver import FOLDER, Sluice
from hack.bench.figures import median
from hack.bench.main import command_line
from hack.bench.progress import Progress
from hack.bench.show import number, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEVELS = (1000, 10_000, 100_000, 1_000_000)
SPARE = 2 * GIB
"""What a volume has beside the blocks that are broken up."""
CUTS = 3
ALONE_SECONDS = 1.0

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
_PAUSE = threading.Event()


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """Hold what was measured at one number of extents, in milliseconds: medians, and the longest waits of a writer."""

    extents: int
    clone_ms: float
    snapshot_ms: float | None
    longest_wait_ms: float
    longest_wait_alone_ms: float
    delete_ms: float | None
    writes_alone_per_second: float
    failures: dict[str, int]


@app.command(epilog="Example: hack/bench/ficlone --extents 1000 --extents 100000")
def ficlone(
    wanted: Annotated[list[int] | None, typer.Option("--extents", help="Numbers of extents.")] = None,
    folder: Annotated[Path, typer.Option(help="Where pool, database and paths go; no tmpfs.")] = FOLDER,
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = CHECKOUT / "build/bench/ficlone.json",
) -> None:
    """Cut a published volume whose image has many extents, beside a program that writes 4 KiB and fsyncs: 2 minutes.

    Needs root, and 12 GiB in /var/tmp for a million extents. The pool is an XFS image; each extent is a block of 4 KiB
    between two holes, written in random order.
    """
    console = Console(width=None if os.isatty(1) else 140)
    if os.geteuid() != 0:
        raise Unready("run it as root: it mounts")
    levels = sorted(wanted or LEVELS)
    found = run(console, levels, folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"kernel": platform.release(), "cpus": os.cpu_count()}
    out.write_text(json.dumps({"machine": facts, "cuts": [dataclasses.asdict(cut) for cut in found]}, indent=1))
    print_cuts(console, found)
    console.print(f"\n{out}", highlight=False)


def run(console: Console, levels: Sequence[int], folder: Path) -> list[Cut]:
    """Break a volume's image into more and more extents and cut it at each level. All is cleared away."""
    size = -(-2 * extents.BLOCK * levels[-1] // GIB) * GIB + SPARE
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(console))
        progress(f"starting sluice serve with a pool of {size / GIB:.0f} GiB", 0, 1)
        server = stack.enter_context(Sluice(str(size), 4, folder))
        volume = stack.enter_context(Volume.published(server, size))
        offsets = volume.blocks(levels[-1])
        found, written = [], 0
        for done, level in enumerate(levels):
            progress(f"writing {level - written:,} extents more (about {(level - written) / 25_000:.0f} s)", done, 1)
            extents.write_blocks(volume.image, offsets[written:level])
            written = level
            progress(f"cutting {level:,} extents", done, 1)
            found.append(volume.measured())
        return found


class Volume:
    """Know one published volume and its image."""

    def __init__(self, caller: Caller, volume_id: str, image: Path) -> None:
        self._caller = caller
        self._id = volume_id
        self.image = image

    @classmethod
    @contextlib.contextmanager
    def published(cls, server: Sluice, size: int) -> Iterator[Volume]:
        """Give a volume in use; the server's own clearing away takes it down."""
        caller = Caller(server.socket, server.folder / "work", f"cut-{os.getpid()}", size)
        try:
            volume_id = caller.create()
            caller.publish(volume_id)
            yield cls(caller, volume_id, server.pool / "images" / f"{volume_id}.img")
        finally:
            caller.close()

    def blocks(self, wanted: int) -> Sequence[int]:
        """Return offsets in the image that a file of the volume has reserved, so that nothing of ext4's is there."""
        reserved = self._caller.target / "reserved"
        fd = os.open(reserved, os.O_CREAT | os.O_WRONLY, 0o600)
        os.posix_fallocate(fd, 0, 2 * extents.BLOCK * wanted + (1 << 20))
        os.fsync(fd)
        os.close(fd)
        return extents.every_other(extents.places(reserved), wanted)

    def measured(self) -> Cut:
        """Clone the image by itself; then cut the volume, again and again, beside a writer."""
        clones = [self._clone() for _ in range(CUTS)]
        self._caller.clear()
        windows = []
        with Writer(self._caller.target / "written") as writer:
            began = time.monotonic()
            _PAUSE.wait(ALONE_SECONDS)
            alone = (began, time.monotonic())
            for _ in range(CUTS):
                asked = time.monotonic()
                with contextlib.suppress(Failed):
                    snapshot = self._caller.cut(self._id)
                    self._caller.delete_snapshot(snapshot)
                windows.append((asked, time.monotonic()))
        took = self._caller.samples
        return Cut(
            extents=extents.count(self.image),
            clone_ms=median(clones),
            snapshot_ms=_median(took["CreateSnapshot"]),
            longest_wait_ms=max(longest_wait(writer.times, window) for window in windows),
            longest_wait_alone_ms=longest_wait(writer.times, alone),
            delete_ms=_median(took["DeleteSnapshot"]),
            writes_alone_per_second=sum(alone[0] <= at < alone[1] for at in writer.times) / (alone[1] - alone[0]),
            failures=dict(self._caller.failures),
        )

    def _clone(self) -> float:
        copy = self.image.parent.parent / "clone"
        source, fd = os.open(self.image, os.O_RDONLY), os.open(copy, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            started = time.perf_counter()
            fcntl.ioctl(fd, FICLONE, source)
            return (time.perf_counter() - started) * 1000
        finally:
            os.close(source)
            os.close(fd)
            copy.unlink()


class Writer:
    """Run the program that writes, and learn from it when its writes ended."""

    def __init__(self, file: Path) -> None:
        self.times: list[float] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hack.bench.writer", str(file)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.times = json.loads(self._process.communicate()[0] or "[]")


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def longest_wait(times: Sequence[float], window: tuple[float, float]) -> float:
    """Return the longest time between two writes' ends of which a part lies in the window, in milliseconds."""
    gaps = [after - before for before, after in itertools.pairwise(times) if after >= window[0] and before <= window[1]]
    return max(gaps, default=0.0) * 1000


def print_cuts(console: Console, found: Sequence[Cut]) -> None:
    """Print a row for each number of extents."""
    columns = ("FICLONE alone", "CreateSnapshot", "writer's longest wait", "the same without a cut", "DeleteSnapshot")
    shown = table("A cut of a published ext4 volume on loop: milliseconds", "extents of the image", *columns)
    for cut in found:
        cells: list[Any] = [
            cut.clone_ms,
            cut.snapshot_ms,
            cut.longest_wait_ms,
            cut.longest_wait_alone_ms,
            cut.delete_ms,
        ]
        shown.add_row(f"{cut.extents:,}", *(number(cell) for cell in cells))
    console.print(shown)
    for cut in found:
        if cut.failures:
            console.print(f"FAILURES at {cut.extents:,}: {cut.failures}", style="bold red", markup=False)


if __name__ == "__main__":
    sys.exit(command_line(app))
