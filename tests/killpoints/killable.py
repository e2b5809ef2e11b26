"""A real server that can be killed at any effect, and started again in a moment."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING, Any

from csi_driver.host import mountinfo
from csi_driver.host.syscalls import FITHAW, Kernel
from csi_driver.rpc import csi_pb2 as csi
from tests.killpoints.serve import EFFECTS, FUSE
from tests.serving import CHECKOUT, READY_SECONDS, STOP_SECONDS, Client, Server

if TYPE_CHECKING:
    from tests.killpoints.fuse import Point


class Killable(Server):
    """A server whose lives are forks of one process that has imported all."""

    def __init__(self, *flags: str, **words: Any) -> None:  # noqa: ANN401 - what Server takes
        super().__init__(*flags, **words)
        at = self._argv.index("serve")
        self._argv = [sys.executable, "-m", "tests.killpoints.serve", str(self.folder), *self._argv[at:]]
        self._nursery: subprocess.Popen[bytes] | None = None
        self._life = 0
        self._tokens = itertools.count()

    @property
    def pid(self) -> int:
        """Return the running life's process."""
        assert self._life
        return self._life

    @property
    def running(self) -> bool:
        """Return whether a life was begun and its end not been seen."""
        return bool(self._life)

    def start(self) -> float:
        """Begin a life, and wait until Probe says ready. Returns the seconds that took."""
        started = time.monotonic()
        self.begin()
        assert self._life, self.log.read_text()
        self._client = Client(self.socket)
        answer = self._client.identity.Probe(csi.ProbeRequest(), wait_for_ready=True, timeout=READY_SECONDS)
        assert answer.ready.value, self.log.read_text()
        return time.monotonic() - started

    def begin(self) -> None:
        """Begin a life, and wait until it listens or is over."""
        if self._client is not None:
            self._client.channel.close()
        self.socket.unlink(missing_ok=True)  # a channel that finds one of the dead would look again only after a second
        self._life = self._begin()
        started = time.monotonic()
        while not self.socket.exists() and not self.ended() and time.monotonic() - started < READY_SECONDS:
            time.sleep(0.002)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the life, and return its status; what it made stays."""
        status = 0
        if self._life:
            if self._client is not None:
                self._client.channel.close()
            subprocess.run(["kill", f"-{number.value}", str(self._life)], check=True)
            status = self.wait(STOP_SECONDS)
        return status

    def ended(self, seconds: float = 0.0) -> bool:
        """Return whether the life is over, waiting so long for it."""
        if self._life and select.select([self._said], [], [], seconds)[0]:
            self._status = int(self._said.readline())
            self._life = 0
        return not self._life

    def wait(self, seconds: float) -> int:
        """Wait for the end of the life, and return how it ended: a signal's number is negative."""
        assert self.ended(seconds), f"it did not end in {seconds} s\n{self.log.read_text()}"
        return self._status

    def arm(self, point: Point | None) -> None:
        """Have the life end at this point of what comes; with None, only count."""
        (self.folder / EFFECTS).write_text("")
        self._fuse(f"{point.number} {point.when} {point.name}" if point else "0 before")

    def disarm(self) -> None:
        """Count no more; what was counted stays."""
        self._fuse("")

    def effects(self) -> list[tuple[int, str, str]]:
        """Return what was passed since it was armed: number, moment, name; the last may be what it died at."""
        lines = (line.split(" ", 2) for line in (self.folder / EFFECTS).read_text().splitlines())
        return [(int(number), when, name) for number, when, name in lines]

    def leftovers(self) -> list[str]:
        """Return what is left but the process that begins lives."""
        nursery = f"process {self._nursery.pid}:" if self._nursery else "none"
        return [thing for thing in super().leftovers() if not thing.startswith(nursery)]

    def clear(self) -> None:
        """End the process that begins lives, then take everything down."""
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            if self._life:
                subprocess.run(["kill", "-9", str(self._life)], check=False)
            with contextlib.ExitStack() as pipes:
                for pipe in (nursery.stdin, nursery.stdout):
                    assert pipe is not None
                    pipes.enter_context(pipe)
            nursery.wait(STOP_SECONDS)
        self._thaw()
        super().clear()

    def _thaw(self) -> None:
        """Undo what a dead man should have undone, or what is frozen could never be taken down."""
        kernel = Kernel()
        for mount in mountinfo.all_mounts():
            if self.folder in mount.target.parents:
                fd = os.open(mount.target, os.O_RDONLY | os.O_NONBLOCK)
                with contextlib.suppress(OSError):  # it isn't frozen
                    kernel.ioctl(fd, FITHAW, path=mount.target)
                os.close(fd)

    @property
    def _said(self) -> IO[bytes]:
        assert self._nursery is not None
        assert self._nursery.stdout is not None
        return self._nursery.stdout

    def _begin(self) -> int:
        if self._nursery is None:
            with self.log.open("ab") as log:
                self._nursery = subprocess.Popen(
                    self._argv,
                    cwd=CHECKOUT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    bufsize=0,  # select must not be deceived by a line that was read ahead
                )
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(b"live\n")
        said = self._said.readline()
        assert said, self.log.read_text()
        return int(said)

    def _fuse(self, text: str) -> None:
        new = self.folder / f"{FUSE}.new"
        new.write_text(f"{next(self._tokens)} {text}" if text else "")
        new.rename(self.folder / FUSE)
