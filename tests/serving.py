"""A real `sluice serve`, in a process and a folder of its own, and a client on its socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc

from csi_driver.rpc import csi_pb2 as csi
from csi_driver.rpc import csi_pb2_grpc
from tests import warm
from tests.leftovers import Leftovers

if TYPE_CHECKING:
    from types import TracebackType

CHECKOUT = Path(__file__).resolve().parent.parent
PREFIX = "sluice-test-"
READY_SECONDS = 30
STOP_SECONDS = 20


class Client:
    """Hold the stubs of one socket."""

    def __init__(self, socket: Path) -> None:
        # A Unix path is no host name, and grpcio would send it as one.
        self.channel = grpc.insecure_channel(f"unix:{socket}", [("grpc.default_authority", "localhost")])
        self.identity = csi_pb2_grpc.IdentityStub(self.channel)
        self.controller = csi_pb2_grpc.ControllerStub(self.channel)
        self.groups = csi_pb2_grpc.GroupControllerStub(self.channel)
        self.node = csi_pb2_grpc.NodeStub(self.channel)


class Server:
    """Start and stop a server. Within `with`, it serves; afterwards nothing of it is left, or that is an error.

    Its pool is an XFS image of its own, which stays mounted when a server stops: that is so by design, so what follows
    takes it down.
    """

    def __init__(
        self, *flags: str, qos: str = "off", pool: str = "size=2Gi,ratio=40", folder: Path | None = None
    ) -> None:
        # Not in /tmp, which may be memory.
        self.folder = folder or Path(tempfile.mkdtemp(prefix=PREFIX, dir="/var/tmp"))
        self.socket = self.folder / "csi.sock"
        self.pool = self.folder / "pool"
        self.log = self.folder / "log"
        self._argv = [sys.executable, "-m", "csi_driver", "serve", f"--endpoint=unix://{self.socket}"]
        self._argv += [f"--state={self.folder / 'state'}", "--node-id=node-a", f"--qos={qos}", "--log-level=debug"]
        words = pool if "backend=" in pool else f"backend=loop,path={self.pool},{pool}"
        self._argv += [f"--pool=name=fast,{words}", *flags]
        self._process: warm.Process | None = None
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """Return the client of the running server."""
        assert self._client is not None
        return self._client

    @property
    def pid(self) -> int:
        """Return the running server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Start and wait until Probe says ready. Returns the seconds that took."""
        started, stale = time.monotonic(), self._bound()
        with self.log.open("ab") as log:
            self._process = warm.begin(self._argv, log, log)
        # A channel that finds no socket, or that of one that was killed, would look again only after a second.
        while (
            self._bound() in (None, stale)
            and self._process.poll() is None
            and time.monotonic() - started < READY_SECONDS
        ):
            # Seldom enough to take nothing from a start on an emulated processor, which takes seconds.
            time.sleep(0.002 + (time.monotonic() - started) / 50)
        self._client = Client(self.socket)
        try:
            answer = self._client.identity.Probe(csi.ProbeRequest(), wait_for_ready=True, timeout=READY_SECONDS)
        except grpc.RpcError as error:
            raise AssertionError(f"the server is not ready: {error}\n{self.log.read_text()}") from error
        assert answer.ready.value, self.log.read_text()
        return time.monotonic() - started

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process and return its status; what it made stays. One that doesn't end is killed, and an error."""
        if self._process is None:
            return 0
        self.client.channel.close()
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            error.add_note("its threads wait in " + ", ".join(_waits(process.pid)))
            raise
        finally:
            process.kill()
            process.wait()

    def _bound(self) -> tuple[int, int] | None:
        """Return what tells the socket that is there from another, None where there is none."""
        try:
            status = self.socket.lstat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_ctime_ns

    def images(self) -> list[str]:
        """Return the image files in the pool: volumes and snapshots."""
        return sorted(path.name for folder in ("images", "new") for path in (self.pool / "pool" / folder).glob("*"))

    def leftovers(self) -> list[str]:
        """Return what is left of this server on the machine, in no order of taking it down."""
        return sorted(Leftovers.now(str(self.folder)).things)

    def clear(self) -> None:
        """Take down everything under the folder, deepest first, and the folder."""
        deadline = time.monotonic() + STOP_SECONDS
        self._take_down()
        # What stood on a device was in the way of what the device stood on.
        while (left := self.leftovers()) and time.monotonic() < deadline:
            time.sleep(0.05)
            self._take_down()
        assert left == []
        shutil.rmtree(self.folder)

    def _take_down(self) -> None:
        """Unmount and detach what lets itself be."""
        mounts = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((path for path in mounts if path.is_relative_to(self.folder)), reverse=True):
            subprocess.run(["umount", mount], check=False)
        loops = Path("/sys/block").glob("loop*/loop/backing_file")
        for device in [path.parent.parent.name for path in loops if str(self.folder) in _backing_file(path)]:
            subprocess.run(["losetup", "--detach", f"/dev/{device}"], check=False)

    def __enter__(self) -> Self:
        """Start."""
        try:
            self.start()
        except BaseException:
            self.stop()
            self.clear()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, take the pool down, and complain of whatever else is left, unless the test failed anyway."""
        images = self.images()
        try:
            status, log = self.stop(), self.log.read_text()
        except subprocess.TimeoutExpired:
            self.clear()
            raise
        pool = (f" on {self.pool / 'pool.xfs'}", f" at {self.pool / 'pool'}")
        left = [thing for thing in self.leftovers() if not thing.endswith(pool)]
        self.clear()
        if kind is None:
            assert (status, images, left) == (0, [], []), log


def _waits(pid: int) -> list[str]:
    """Return what the kernel says that each thread of a process is doing."""
    tasks = sorted(Path(f"/proc/{pid}/task").iterdir())
    return [f"{(task / 'stat').read_text().split()[2]} {(task / 'wchan').read_text()}" for task in tasks]


def _backing_file(path: Path) -> str:
    try:
        return os.fsdecode(path.read_bytes()).strip()
    except OSError:
        return ""
