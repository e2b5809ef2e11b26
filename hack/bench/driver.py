"""The driver that is measured: our own, started here with a pool of its own, or another that listens already."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
import psutil

from csi_driver.errors import Unready
from csi_driver.rpc import csi_pb2 as csi
from csi_driver.rpc import csi_pb2_grpc as stubs
from hack.bench.calls import OPTIONS
from hack.bench.crew import CHECKOUT

if TYPE_CHECKING:
    from types import TracebackType

PREFIX = "sluice-bench-"
FOLDER = Path("/var/tmp")  # noqa: S108 - a folder is made in it; /tmp may be memory
NODE = "--node-id=bench"
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.001
COUNTED = re.compile(r'^sluice_program_seconds_count\{program="([^"]+)"\} ([0-9.e+]+)$', re.MULTILINE)
_PAUSE = threading.Event()


class Driver:
    """Know a driver by its socket, and the process behind it."""

    own = False

    def __init__(self, endpoint: Path) -> None:
        """Take the socket. The process is whoever listens on it."""
        self.socket = endpoint

    @property
    def process(self) -> psutil.Process:
        """Return the process that listens on the socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(self.socket))
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return psutil.Process(struct.unpack("3i", told)[0])

    def cpu_seconds(self) -> float:
        """Return what the process and the programs that it has reaped took of the processors."""
        return float(sum(self.process.cpu_times()[:4]))

    def resident_mib(self) -> float:
        """Return the resident memory."""
        return float(self.process.memory_info().rss) / (1 << 20)

    def programs(self) -> dict[str, int]:
        """Return how many programs were started, by name; nothing where the driver doesn't say."""
        return {}


class Sluice(Driver):
    """Start our own server in a folder of its own, and take all of it down at the end, whatever happened."""

    own = True

    def __init__(self, size: str, ratio: int, parent: Path, *, qos: str = "off", pool: str = "") -> None:
        """Take the pool's size, such as "2Gi", and its ratio. The pool is an XFS image in `parent`, no tmpfs.

        With `pool` it is another one, in the words of `sluice serve --pool`, and whoever made it takes it down.
        """
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        super().__init__(self.folder / "csi.sock")
        self._log = self.folder / "log"
        self._metrics = f"127.0.0.1:{_free_port()}"
        self._words = [sys.executable, "-m", "csi_driver", "serve", f"--endpoint=unix://{self.socket}"]
        self._words += [f"--state={self.folder / 'state'}", NODE, f"--qos={qos}"]
        self._words += [f"--metrics={self._metrics}", "--log-level=info"]
        own = f"name=fast,backend=loop,path={self.folder / 'pool'},size={size},ratio={ratio}"
        self._words.append(f"--pool={pool or own}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process:
        """Return the server."""
        if self._process is None:
            raise Unready("the server was not started")
        return psutil.Process(self._process.pid)

    @property
    def pool(self) -> Path:
        """Return where the pool's file system is mounted."""
        return self.folder / "pool/pool"

    def start(self) -> float:
        """Start and return the seconds until Probe said ready."""
        started = time.perf_counter()
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C is for the measuring, which then stops the server.
            self._process = subprocess.Popen(
                self._words, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait_for_socket(started)
        # Only now: a channel that finds no socket would look again only after a second.
        with grpc.insecure_channel(f"unix:{self.socket}", OPTIONS) as channel:
            probe = stubs.IdentityStub(channel).Probe
            probe(csi.ProbeRequest(), timeout=READY_SECONDS, wait_for_ready=True)
        return time.perf_counter() - started

    def stop(self) -> None:
        """End the server; what it made stays."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def adopt(self, *words: str) -> None:
        """Make records of volumes that have none, while the server is stopped. Raises Unready."""
        argv = [sys.executable, "-m", "csi_driver", "adopt", "--yes", f"--state={self.folder / 'state'}", NODE, *words]
        done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unready(f"sluice adopt ended with status {done.returncode}: {done.stdout}{done.stderr}")

    def programs(self) -> dict[str, int]:
        """Return how many programs were started, by name, as the server's metrics say."""
        with urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=10) as answer:
            return {name: int(float(count)) for name, count in COUNTED.findall(answer.read().decode())}

    def clear(self) -> None:
        """Take down everything under the folder, deepest first: mounts, mappings, loop devices, files."""
        clear(self.folder)

    def _wait_for_socket(self, started: float) -> None:
        while not self.socket.exists():
            gone = self._process is None or self._process.poll() is not None
            if gone or time.perf_counter() - started > READY_SECONDS:
                raise Unready(f"the server does not start; it said: {self._log.read_text()[-2000:]}")
            _PAUSE.wait(POLL_SECONDS)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self.clear()


def clear(folder: Path) -> None:
    """Unmount and detach what is under a folder, deepest first, and remove it. Raises Unready for what stays."""
    deadline = time.monotonic() + STOP_SECONDS
    while left := _unmounted(folder) + _detached(folder):
        if time.monotonic() > deadline:
            raise Unready(f"can't clear {folder} away: {', '.join(left)}")
        _PAUSE.wait(0.05)
    shutil.rmtree(folder)


def _unmounted(folder: Path) -> list[str]:
    """Unmount what is mounted under a folder; return what was."""
    mounts = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = sorted((path for path in mounts if path.is_relative_to(folder)), reverse=True)
    for mount in found:
        subprocess.run(["umount", mount], check=False)
    return [f"mount {mount}" for mount in found]


def _detached(folder: Path) -> list[str]:
    """Remove the mappings on loop devices of files under a folder, and detach these; return those found."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        device = file.parent.parent
        try:
            backing = os.fsdecode(file.read_bytes())
        except OSError:  # detached just now
            continue
        if f"{folder}/" in backing:
            for name in device.glob("holders/*/dm/name"):
                subprocess.run(["dmsetup", "remove", name.read_text().strip()], check=False)
            subprocess.run(["losetup", "--detach", f"/dev/{device.name}"], check=False)
            found.append(f"{device.name} of {backing.strip()}")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
