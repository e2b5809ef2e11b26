"""A server that dies where it is told to: `python -m tests.killpoints.serve FOLDER serve ...`.

This process imports everything once and then forks a life of the real command line for each line that it reads, so that
a restart costs no start of Python. In answer it writes the life's process id, and at its end how it ended.

FOLDER/fuse      `TOKEN NUMBER WHEN [NAME]`, where the life that runs is to be ended; `TOKEN 0 before` only counts
FOLDER/effects   what each life has passed since
FOLDER/hold      while it is there, each program that is started stops first, and its process id is written there
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import csi_driver.cli.serve  # noqa: F401 - imported once, for all lives
from csi_driver.cli.app import main
from tests.forked import run_to_the_end
from tests.killpoints import doors
from tests.killpoints.fuse import Fuse, Point

if TYPE_CHECKING:
    from tests.killpoints.fuse import When

FUSE, EFFECTS, HOLD = "fuse", "effects", "hold"


class FileFuse(Fuse):
    """A fuse that a file arms: another process writes it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FUSE
        self._effects = folder / EFFECTS
        self._seen = ""
        self._looking = threading.Lock()
        super().__init__(lambda: os.kill(os.getpid(), signal.SIGKILL), self._write)
        self.disarm()

    def __call__(self, when: str, effect: str) -> None:
        """Look whether it was armed anew; then pass the moment."""
        with self._looking:
            told = self._file.read_text() if self._file.exists() else ""
            if told != self._seen:
                self._seen = told
                self._follow(told.split()[1:])
        super().__call__(when, effect)

    def _follow(self, words: list[str]) -> None:
        if not words:
            self.disarm()
            return
        whens: dict[str, When] = {"before": "before", "inside": "inside", "after": "after"}
        self.arm(Point(int(words[0]), whens[words[1]], " ".join(words[2:])))

    def _write(self, line: str) -> None:
        with self._effects.open("a") as file:
            file.write(f"{line}\n")


def live(argv: list[str], folder: Path) -> NoReturn:
    """Be a server, from its command line on."""
    with open(os.devnull) as nothing:  # noqa: PTH123 - no path
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.argv = ["sluice", *argv]
    doors.install(FileFuse(folder), folder / HOLD)
    run_to_the_end(main)


def lives(argv: list[str], folder: Path) -> None:
    """Begin a life for each line, and say when it is over."""
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            live(argv, folder)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    lives(sys.argv[2:], Path(sys.argv[1]))
