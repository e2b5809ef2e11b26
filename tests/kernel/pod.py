"""What stands in for a pod: a cgroup below the limited ancestor, and fio in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from csi_driver.deadline import Deadline, wait_for
from qos.cgroup import MOUNTPOINT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

SLICE = MOUNTPOINT / "sluice.slice"
START_SECONDS = 60
END_SECONDS = 60
# fio ends so when it is asked to by a signal, if all went well.
ASKED_TO_END = 128


@dataclass(frozen=True, slots=True)
class Load:
    """Describe an endless load: fio's words for pattern, block size and depth. `job` are more of them."""

    pattern: str
    block: str = "4k"
    depth: int = 32
    job: tuple[str, ...] = ("--direct=1",)

    def argv(self, path: Path, log: Path) -> list[str]:
        """Return fio's command line for a file or device that is there."""
        argv = ["fio", "--name=load", f"--filename={path}", f"--rw={self.pattern}", f"--bs={self.block}"]
        argv += [f"--iodepth={self.depth}", "--ioengine=libaio", "--time_based", "--runtime=600", *self.job]
        argv += ["--allow_file_create=0", "--eta=never", "--output-format=json", f"--output={log}"]
        return argv


class Fio:
    """A load that runs until it is ended."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def running(self) -> bool:
        """Return whether it has not ended by itself."""
        return self.process.poll() is None

    def end(self) -> dict[str, Any]:
        """End the load and return fio's account of it. Raises AssertionError when an I/O failed."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(END_SECONDS)
        text = self._log.read_text()
        job: dict[str, Any] = json.loads(text[text.index("{") :])["jobs"][0]
        assert (status in (0, ASKED_TO_END), job["error"]) == (True, 0), text
        return job


class Pod:
    """A cgroup for programs of a tenant's. At the end of `with` they are killed, and it is removed."""

    def __init__(self, name: str, above: Path = SLICE) -> None:
        self.name = name
        self.path = above / f"test-{name}"
        self._logs = Path("/run") / f"fio-{name}-{os.getpid()}"
        self._count = 0

    def __enter__(self) -> Self:
        self.path.mkdir()
        # systemd takes the controllers from a slice in which no unit of its own runs, whenever it looks at the slice.
        # Limits on the slice hold all the same; only what a pod did could not be counted.
        (SLICE / "cgroup.subtree_control").write_text("+io +memory")
        self._logs.mkdir(exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self.path / "cgroup.kill").write_text("1")
        empty = "populated 0"
        wait_for(
            f"{self.path} is empty", lambda: empty in (self.path / "cgroup.events").read_text(), Deadline(END_SECONDS)
        )
        self.path.rmdir()

    def start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program in the pod."""
        enter = ("sh", "-c", 'echo 0 > "$0" && exec "$@"', str(self.path / "cgroup.procs"))
        return subprocess.Popen([*enter, *argv], stdin=subprocess.DEVNULL)

    def run(self, *argv: str) -> None:
        """Run a program in the pod to its end."""
        assert self.start(argv).wait(END_SECONDS) == 0, argv

    def fio(self, load: Load, path: Path) -> Fio:
        """Start a load on a file or device."""
        self._count += 1
        log = self._logs / f"{self._count}.json"
        return Fio(self.start(load.argv(path, log)), log)
