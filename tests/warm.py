"""Commands of the driver, begun the quick way where Python is slow to begin: in the VM as forks of a nursery.

On this machine's own processor they are begun as people begin them.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tests.nursery import Request
from tests.vm.relay import in_vm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

CHECKOUT = Path(__file__).resolve().parent.parent
PYTHON = (sys.executable, "-m")


class Process(Protocol):
    """A process that was begun, as `subprocess` has it."""

    @property
    def pid(self) -> int:
        """Return its number."""

    def poll(self) -> int | None:
        """Return its status, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its status. Raises TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal, if it runs."""

    def kill(self) -> None:
        """End it."""


class Forked:
    """A process that a nursery has begun."""

    def __init__(self, pid: int, argv: Sequence[str], told: int) -> None:
        self.pid = pid
        self._argv = argv
        self._told = told
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return its status, None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its status. Raises TimeoutExpired."""
        if (status := self._look(timeout)) is None:
            raise subprocess.TimeoutExpired(list(self._argv), timeout or 0)
        return status

    def send_signal(self, sig: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and the nursery has not said so yet
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self._status is None and select.select([self._told], [], [], timeout)[0]:
            self._status = int(os.read(self._told, 16))
            os.close(self._told)
        return self._status


class Nursery:
    """Begin processes as forks of one that has imported all; that one ends with this process."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [*PYTHON, "tests.nursery", str(theirs.fileno())]
            self._process = subprocess.Popen(argv, cwd=CHECKOUT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

    def begin(self, argv: Sequence[str], *standard: int) -> Forked:
        """Begin `python -m` with these words, and with these descriptors for 0, 1 and 2."""
        told, tell = os.pipe()
        request = Request(list(argv), dict(os.environ), str(CHECKOUT))
        with self._asking:
            socket.send_fds(self._socket, [request.packed()], [*standard, tell])
            os.close(tell)
            return Forked(int(self._socket.recv(16)), argv, told)

    def close(self) -> None:
        """Let it end; what it has begun goes on."""
        self._socket.close()
        self._process.wait()


@functools.cache
def the_nursery() -> Nursery:
    """Return the one of this process, begun when it is first needed."""
    nursery = Nursery()
    atexit.register(nursery.close)
    return nursery


def begin(argv: Sequence[str], output: IO[bytes], errors: IO[bytes]) -> Process:
    """Begin a command of this Python's, `[sys.executable, "-m", ...]`, in the checkout, with nothing to read."""
    if not in_vm():
        return subprocess.Popen(argv, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
    assert tuple(argv[:2]) == PYTHON, argv
    with Path(os.devnull).open("rb") as nothing:
        return the_nursery().begin(argv[2:], nothing.fileno(), output.fileno(), errors.fileno())


def run(argv: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and return what it said."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = begin(argv, output, errors)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(list(argv), status, *said)
