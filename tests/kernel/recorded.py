"""A server on a logged disk, and what it is asked to do while the log is written."""

from __future__ import annotations

import itertools
import mmap
import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.kernel.node import MIB, Node, run
from tests.torture import TORTURE, pick
from tests.vm.caller import Caller
from tests.vm.plan import Op, around

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.logged import LoggedDisk

SEED = random.SystemRandom().randrange(1 << 32) if TORTURE else 4
CALLS = pick(7, 15)
WORKERS = 2
SLOTS, BLOCK = 16, 4096
PAUSE_SECONDS = 0.05
FILE_SYSTEMS = {"state": "ext4", "pool": "xfs"}
BASE = (Op("create", "raw", size=8 * MIB), Op("create", "diary", size=32 * MIB))
"""What is published and written to all the time."""


class Recorded(Node):
    """A server whose state and pool are file systems on a logged disk."""

    def __init__(self, disk: LoggedDisk) -> None:
        super().__init__(qos="off")
        self._logged = disk

    def format(self) -> None:
        """Leave it as the disk is made."""

    def mount(self) -> None:
        """Mount both."""
        for name in FILE_SYSTEMS:
            (self.folder / name).mkdir()
            run("mount", "-o", "noatime", self._logged.part(name), self.folder / name)

    def __exit__(self, *_: object) -> None:
        """End it as a power cut would."""
        self.stop(signal.SIGKILL)
        self.clear()


def record(disk: LoggedDisk) -> Path:
    """Make, write, cut, grow and delete volumes, marking all that is acknowledged. Return where the server had them."""
    with Recorded(disk) as node:
        disk.mark("began")
        raw = node.create("raw", BASE[0].size, block=True).up()
        disk.mark("base:1")
        diary = node.create("diary", BASE[1].size).up()
        disk.mark("base:2")
        ended = threading.Event()
        with ThreadPoolExecutor(WORKERS + 2) as threads:
            writers = [
                threads.submit(_write_blocks, raw.file, disk, ended),
                threads.submit(_write_diary, diary.file, disk, ended),
            ]
            try:
                for worker in [threads.submit(_call, node, disk, worker) for worker in range(WORKERS)]:
                    worker.result()
            finally:
                ended.set()
            for writer in writers:
                writer.result()
        disk.mark("ended")
        return node.folder


def _call(node: Node, disk: LoggedDisk, worker: int) -> None:
    caller = Caller(node)
    for number in range(CALLS):
        things, _, op = around(f"{SEED}-{worker}", number)
        caller.do(op, things)
        disk.mark(f"done:{worker}:{number + 1}")


def _write_blocks(device: Path, disk: LoggedDisk, ended: threading.Event) -> None:
    """Write numbered blocks, round and round, each durable before the next."""
    buffer = mmap.mmap(-1, BLOCK)
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
    try:
        for number in itertools.count(1):
            buffer[:] = numbered(number)
            os.pwrite(fd, buffer, number % SLOTS * BLOCK)
            disk.mark(f"raw:{number}")
            if ended.wait(PAUSE_SECONDS):
                break
    finally:
        os.close(fd)


def _write_diary(path: Path, disk: LoggedDisk, ended: threading.Event) -> None:
    """Append numbers to a file, each synced before the next."""
    with path.open("wb", buffering=0) as file:
        for number in itertools.count(1):
            file.write(f"{number:09}\n".encode())
            os.fsync(file.fileno())
            disk.mark(f"diary:{number}")
            if ended.wait(PAUSE_SECONDS):
                break


def numbered(number: int) -> bytes:
    """Return what the block of a number holds."""
    return number.to_bytes(8, "big") * (BLOCK // 8)
