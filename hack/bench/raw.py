"""What the kernel takes for the effects of a life, with nothing around them: a process that makes the bare calls.

Run as `python -m hack.bench.raw POOL FOLDER`: a folder on the pool's file system, and one for paths and the database.
It reads jobs and answers them as `caller` does.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline
from csi_driver.host.filesystem import Filesystems
from csi_driver.host.loopdev import LOOP_CONFIG
from csi_driver.host.run import SEARCH_PATH, Output, Runner
from csi_driver.host.syscalls import (
    LO_FLAGS_DIRECT_IO,
    LOOP_CLR_FD,
    LOOP_CONFIGURE,
    LOOP_CTL_GET_FREE,
    MS_BIND,
    Kernel,
)
from hack.bench.calls import GIB, TIMED_LIFE
from hack.bench.figures import LIFE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECTOR_SIZE = 4096
RECORD_BYTES = 1200
"""About what the record of a volume takes."""


class Noted(Runner):
    """Take the words of a program that the driver would run, and run nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def run(self, argv: Sequence[str], **_: object) -> Output:
        """Keep them."""
        self.words = list(argv)
        return Output("", "", 0)


class Raw:
    """Make the effects of one life after another."""

    def __init__(self, pool: Path, folder: Path) -> None:
        self._kernel = Kernel()
        self._pool = pool
        self._final, self._temporary = pool / "raw.img", pool / "raw.new"
        self._staging, self._target = folder / "raw/staging", folder / "raw/target"
        self._staging.mkdir(parents=True)
        self._db = sqlite3.connect(folder / "raw.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL").fetchall()
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE records (id TEXT PRIMARY KEY, spec TEXT) WITHOUT ROWID")
        self._control = os.open("/dev/loop-control", os.O_RDWR)
        self._runner = Runner()
        self._device = Path()
        self._loop = -1
        self._steps: tuple[Callable[[], None], ...] = (
            self.create,
            self.stage,
            self.publish,
            self.stats,
            self.unpublish,
            self.unstage,
            self.delete,
        )

    def life(self, samples: dict[str, list[float]]) -> None:
        """Live one life, and add what each step took."""
        whole = 0.0
        for name, step in zip(TIMED_LIFE, self._steps, strict=True):
            started = time.perf_counter()
            step()
            took = (time.perf_counter() - started) * 1000
            samples[name].append(took)
            whole += took
        samples[LIFE].append(whole)

    def create(self) -> None:
        """Make a sparse file, whole and durable before it has its name, and one durable row."""
        fd = os.open(self._temporary, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
        os.ftruncate(fd, GIB)
        os.fsync(fd)
        self._temporary.rename(self._final)
        self._kernel.fsync_dir(self._pool)
        os.close(fd)
        self._db.execute("INSERT INTO records VALUES (?, ?)", ("raw", "x" * RECORD_BYTES))

    def stage(self) -> None:
        """Attach, mkfs with the driver's own words, mount."""
        self._attach()
        words = self._mkfs()
        environment = {"PATH": SEARCH_PATH, "LC_ALL": "C"}
        pid = os.posix_spawn(self._runner.find(words[0]), words, environment)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError(f"{' '.join(words)} failed")
        self._kernel.mount(self._device, self._staging, "ext4", 0)

    def publish(self) -> None:
        """Make the folder, bind."""
        self._target.mkdir()
        self._kernel.mount(self._staging, self._target, "", MS_BIND)

    def stats(self) -> None:
        """Ask how full it is."""
        os.statvfs(self._target)

    def unpublish(self) -> None:
        """Unmount, remove the folder."""
        self._kernel.umount(self._target)
        self._target.rmdir()

    def unstage(self) -> None:
        """Unmount, detach."""
        self._kernel.umount(self._staging)
        self._kernel.ioctl(self._loop, LOOP_CLR_FD, path=self._device)
        os.close(self._loop)

    def delete(self) -> None:
        """Remove the file's name durably, and the row."""
        self._final.unlink()
        self._kernel.fsync_dir(self._pool)
        self._db.execute("DELETE FROM records WHERE id = 'raw'")

    def _attach(self) -> None:
        image = os.open(self._final, os.O_RDWR)
        name = os.fsencode(self._final)[-63:]
        config = bytearray(LOOP_CONFIG.pack(image, SECTOR_SIZE, 0, 0, 0, LO_FLAGS_DIRECT_IO, name))
        while True:
            number = self._kernel.ioctl(self._control, LOOP_CTL_GET_FREE)
            self._device = Path(f"/dev/loop{number}")
            self._loop = os.open(self._device, os.O_RDWR)
            try:
                self._kernel.ioctl(self._loop, LOOP_CONFIGURE, config)
                break
            except OSError:  # another program of this machine was quicker
                os.close(self._loop)
        os.close(image)

    def _mkfs(self) -> list[str]:
        noted = Noted()
        Filesystems(noted, self._kernel).make(
            self._device, "ext4", sector_size=SECTOR_SIZE, blank=True, deadline=Deadline(60)
        )
        return noted.words


def main() -> int:
    """Do jobs until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raw = Raw(Path(sys.argv[1]), Path(sys.argv[2]))
    for line in sys.stdin:
        samples: defaultdict[str, list[float]] = defaultdict(list)
        began = time.monotonic()
        for _ in range(json.loads(line)["count"]):
            raw.life(samples)
        measured = {"samples": samples, "failures": {}, "made": [], "began": began, "ended": time.monotonic()}
        sys.stdout.write(json.dumps(measured) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
