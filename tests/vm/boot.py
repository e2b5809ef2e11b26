"""One boot of the test machine for many tests: what it is made of, and the process that holds it."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.torture import TORTURE, VARIABLE, pick

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHECKOUT = Path(__file__).resolve().parent.parent.parent
RUN = CHECKOUT / "hack/vm/run"
LOGS = CHECKOUT / "build/vm"
CSI_SANITY = CHECKOUT / "build/bin/csi-sanity"
TIMEOUT = pick(3600, 6 * 3600)
"""Seconds. Each test has a limit of its own in the machine; this one is for a machine that hangs as a whole."""

END_SECONDS = 60
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Boot:
    """Describe a machine, in the words of `hack/vm/run`. Tests with equal boots share one.

    iops, bps  what its data disk is held to; None is as fast as it goes
    disk       size of the data disk
    memory     of the machine
    processors how many it has
    append     more arguments for its kernel
    """

    iops: int | None = None
    bps: str | None = None
    disk: str | None = None
    memory: str | None = None
    processors: int | None = None
    append: str | None = None

    def __str__(self) -> str:
        """Return the machine in a few words."""
        return " ".join(f"{key}={value}" for key, value in asdict(self).items() if value is not None) or "as it comes"

    def flags(self) -> list[str]:
        """Return the flags for `hack/vm/run`."""
        flags = [f"--{key}={value}" for key, value in asdict(self).items() if value is not None]
        flags += [f"--env={VARIABLE}=1"] * TORTURE
        # Small, and its own test says so if it is not there.
        return [*flags, f"--put={CSI_SANITY}"] if CSI_SANITY.exists() else flags


class Running:
    """Run a command in a machine: each line of its output is told as it comes, b"" at its end; its log is in a file."""

    def __init__(self, boot: Boot, command: Sequence[str], tell: Callable[[bytes], None]) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self.log = LOGS / f"{next(_numbers)}.log"
        argv = [str(RUN), *boot.flags(), f"--timeout={TIMEOUT}", "--", *command]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        self._tell = tell
        # A machine whose output is not read stands still.
        self._reader = threading.Thread(target=self._read, name="vm-output", daemon=True)
        self._reader.start()

    def wait(self) -> int:
        """Return the status once the machine is gone: the command's own, 124 or 125 (see hack/vm/README.md)."""
        return self._process.wait(END_SECONDS)

    def last_words(self) -> str:
        """Return the end of the log."""
        words = self.log.read_text(errors="replace").splitlines()[-40:]
        return "\n".join([f"the end of {self.log}:", *words])

    def end(self) -> None:
        """End the machine if it still runs; it cleans up after itself."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._tell(line)
        self._tell(b"")
