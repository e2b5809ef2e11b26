"""What cuts of volumes in use are tried with: a load, a diary of what was synced, and a server caught in the middle."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline, wait_for
from tests.kernel import gauge
from tests.kernel.node import MIB, Node, run
from tests.kernel.pod import Fio, Load, Pod

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

    from tests.kernel.volume import Volume

SIZES = {"ext4": 128 * MIB, "xfs": 300 * MIB, "btrfs": 256 * MIB}
LET_GO_SECONDS = 15.0
LEAST_WRITES = 50
# Files that grow and are synced, so that there always are metadata on their way to the disk.
BUSY = Load("randwrite", "4k", 1, ("--direct=0", "--fsync=4", "--size=16m", "--nrfiles=1"))


class Diary:
    """Write numbers to a file, each synced before the next: `synced` is the last that must never be missing."""

    def __init__(self, path: Path) -> None:
        self.synced = -1
        self._path = path
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            while not self._ended.is_set():
                file.write(f"{self.synced + 1:09}\n".encode())
                os.fsync(file.fileno())
                self.synced += 1

    @staticmethod
    def last(path: Path) -> int:
        """Return the last number in a diary that has all before it."""
        numbers = [int(line) for line in path.read_text().split()]
        assert numbers == list(range(len(numbers)))
        return len(numbers) - 1

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep it while the body runs."""
        self._thread.start()
        wait_for("the diary has begun", lambda: self.synced > 0, Deadline(30))
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()


def busy(pod: Pod, volume: Volume) -> Fio:
    """Start a load, and wait until the disk feels it."""
    load = pod.fio(BUSY, volume.file)
    wait_for("there is load", lambda: gauge.count(volume.number, "wiops", pod.path) > LEAST_WRITES, Deadline(30))
    return load


def caught(node: Node, volume: Volume, number: signal.Signals) -> bool:
    """Send the server a signal while it holds the volume suspended for a cut. Return whether it was still so then."""
    suspended = Path("/sys/block") / volume.device.name / "dm/suspended"
    end = time.monotonic() + 30
    while suspended.read_text() != "1\n":
        assert time.monotonic() < end, "the device was never suspended"
    os.kill(node.pid, number)
    return suspended.read_text() == "1\n"


def writes(volume: Volume) -> float:
    """Write to the volume, past the page cache, and return the seconds that took; too many if it had to be helped."""
    began = time.monotonic()
    argv = ["dd", "if=/dev/zero", f"of={volume.device}", "bs=4096", "count=1", "oflag=direct", "conv=nocreat"]
    writer = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        writer.wait(2 * LET_GO_SECONDS)
    except subprocess.TimeoutExpired:  # and no signal would end it
        run("dmsetup", "resume", f"sluice-{volume.id}")
        writer.wait(LET_GO_SECONDS)
    assert writer.returncode == 0
    return time.monotonic() - began
