"""The door to LVM: one program a command, JSON where it reports, and one lock around what changes.

Every command names the disks that it may look at. It then neither hangs on a suspended device nor reads what pods wrote
into their volumes, and a volume group of the same name elsewhere doesn't exist for it.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from csi_driver.deadline import Deadline
from csi_driver.errors import NoSpace, ToolFailed, Unready

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from csi_driver.host.run import Runner

NSENTER = ("nsenter", "-t", "1", "-m", "-u", "-i", "-n", "-p")
"""The host's namespaces. IPC is among them for udev's semaphores, at which lvm waits for its devices."""
SECONDS = 60.0
DAY = 86400.0
NO_ROOM = ("insufficient free space", "insufficient suitable", "free space in thin pool", "reached threshold")
"""What lvm says when there is no room, in any of its commands."""
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def host_prefix() -> tuple[str, ...]:
    """Return what lvm is started by: nothing, or from a container what leads to the host's namespaces."""
    try:
        inside = Path("/proc/1/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
    except OSError:  # not root
        return ()
    return NSENTER if inside else ()


class Lvm:
    """Run lvm commands."""

    def __init__(self, runner: Runner, prefix: Sequence[str] = ()) -> None:
        """Take the door to programs, and a command that starts them elsewhere."""
        self._runner = runner
        self._prefix = tuple(prefix)
        self._archived = 0.0
        self.lock = threading.RLock()
        """Held by whoever changes something: lvm's own lock would let a command wait without telling for how long."""
        self.changing = False

    def change(self, devices: Sequence[Path], command: str, *args: str, deadline: Deadline | None = None) -> None:
        """Run a command that changes something. Raises ToolFailed, NoSpace, Unready; Unknown when it was killed."""
        with self.lock:
            self.changing = True
            try:
                self._run(devices, command, self._config(), args, deadline)
            except ToolFailed as error:
                if any(words in str(error).lower() for words in NO_ROOM):
                    raise NoSpace(f"{command}: {error}; free space, or make the pool larger") from error
                raise
            finally:
                self.changing = False

    def report(self, devices: Sequence[Path], command: str, fields: str, *args: str) -> list[Mapping[str, str]]:
        """Run vgs, lvs or pvs and return its rows. Sizes are bytes. Raises ToolFailed, Unready, Unknown."""
        form = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields)
        said = self._run(devices, command, "", (*form, *args), None)
        try:
            return [row for report in _decode(said)["report"] for rows in report.values() for row in rows]
        except (msgspec.MsgspecError, KeyError, AttributeError) as error:
            raise Unready(f"{command} did not answer in JSON: {said[:200]!r}") from error

    def _run(
        self, devices: Sequence[Path], command: str, config: str, args: Sequence[str], deadline: Deadline | None
    ) -> str:
        argv = ["lvm", command, "-qq", "--devices", ",".join(map(str, devices))]
        if config:
            argv += ["--config", config]
        within = deadline or Deadline(SECONDS)
        return self._runner.run([*argv, *args], deadline=within, prefix=self._prefix).stdout

    def _config(self) -> str:
        """Return settings for one command: the group's backup file is kept as always, archived once a day.

        With an archive a command, a thousand volumes would leave thousands of files. Thin pools are watched by the
        driver's own guard.
        """
        now = time.monotonic()
        archive = not self._archived or now - self._archived > DAY
        self._archived = now if archive else self._archived
        return f"backup {{ archive={int(archive)} }} activation {{ monitoring=0 }}"
