"""Disks in memory that can be pulled and plugged, each a whole disk with a serial of its own."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline, wait_for
from tests.kernel.node import run

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 30.0
BLOCK = Path("/sys/block")


class ScsiDisk:
    """A disk on a bus of its own."""

    def __init__(self, number: int) -> None:
        self._bus = f"/adapter{number}/"

    @property
    def plugged(self) -> bool:
        """Return whether the kernel has it."""
        return bool(self._found())

    @property
    def path(self) -> Path:
        """Return its device, which is another one each time that it is plugged in while the last one is in use."""
        (name,) = self._found()
        return Path("/dev") / name

    def pull(self) -> None:
        """Take it out, whoever uses it."""
        (BLOCK / self.path.name / "device/delete").write_text("1")
        run("udevadm", "settle")

    def plug(self) -> None:
        """Put it back, with all that it had."""
        (host,) = (path for path in Path("/sys/class/scsi_host").iterdir() if self._bus in str(path.resolve()))
        (host / "scan").write_text("- - -")
        self.wait()

    def wait(self) -> None:
        """Wait until it has a device."""
        wait_for("the disk has a device", lambda: self.plugged and self.path.exists(), Deadline(SECONDS))
        run("udevadm", "settle")

    def _found(self) -> list[str]:
        return [path.name for path in BLOCK.glob("sd*") if self._bus in str(path.resolve())]


@contextlib.contextmanager
def scsi_disks(count: int, mib: int) -> Iterator[tuple[ScsiDisk, ...]]:
    """Give empty disks while the body runs."""
    run("modprobe", "scsi_debug", f"add_host={count}", "per_host_store=1", f"dev_size_mb={mib}", "delay=0")
    try:
        disks = tuple(map(ScsiDisk, range(count)))
        for disk in disks:
            disk.wait()
        yield disks
    finally:  # udev may still look at what was written last
        wait_for("nobody uses the disks", _removed, Deadline(SECONDS))


def _removed() -> bool:
    return subprocess.run(["modprobe", "--remove", "scsi_debug"], capture_output=True, check=False).returncode == 0
