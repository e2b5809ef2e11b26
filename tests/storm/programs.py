"""Start the programs of a storm beside a server, watch the server meanwhile, and read what they found."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from tests.serving import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from tests.serving import Server

LOOK_SECONDS = 0.2
NICE = -10
GRACE_SECONDS = 90
"""How long after its time a program may take to hear its last answers. Later is a deadlock."""


def hurry(pid: int) -> None:
    """Let a process run before all others on this machine, if that is allowed: what it is late for is its own fault.

    Threads that it starts from now on inherit that.
    """
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(PermissionError):  # then the machine had better be quiet
            os.setpriority(os.PRIO_PROCESS, int(task.name), NICE)


@contextlib.contextmanager
def program(module: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Start a program of this folder, and let none of it live longer than the body."""
    argv = [sys.executable, "-m", f"tests.storm.{module}", *map(str, words)]
    process = subprocess.Popen(argv, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str], seconds: float = 0) -> Any:  # noqa: ANN401 - JSON
    """End a program's stdin, wait for its end and return what it says."""
    said, _ = process.communicate(timeout=seconds + GRACE_SECONDS)
    assert process.returncode == 0, process.args
    return json.loads(said)


@dataclass(frozen=True, slots=True)
class Taken:
    """Hold what a server takes: threads, file descriptors, bytes of memory."""

    threads: int
    fds: int
    rss: int

    @classmethod
    def by(cls, server: Server) -> Taken:
        """Look."""
        process = psutil.Process(server.pid)
        return cls(process.num_threads(), process.num_fds(), process.memory_info().rss)


class Watch:
    """Look at a server from time to time while the body runs, and keep the most that it took."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.taken: list[Taken] = []

    @property
    def most(self) -> Taken:
        """Return the most of each that was seen at any time."""
        each = [(one.threads, one.fds, one.rss) for one in self.taken]
        return Taken(*(max(values) for values in zip(*each, strict=True)))

    def _look(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self.taken.append(Taken.by(self._server))

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._ended.set()
        self._thread.join()
