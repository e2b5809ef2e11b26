"""What the volumes of this node do, by the kernel's count: latencies, I/Os and bytes, and how long limits held them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from csi_driver.errors import StorageError
from csi_driver.stack import PREFIX
from qos.errors import Unenforceable
from qos.limits import UNLIMITED
from qos.meter import nearest, rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_driver.host.dmstats import Statistics
    from qos.enforce import Enforcement
    from qos.iofiles import IoStat
    from qos.limits import DevNo
    from qos.meter import Counted

log = structlog.get_logger(__name__)

PERIOD_SECONDS = 5.0
STOP_SECONDS = 5.0


class Measuring:
    """Look at all staged volumes at once, which are named by their ids here.

    `throttled` counts the seconds in which a limit held a volume back, `near` is how near it was to its nearest limit
    in the last period. Volumes that are no mapped devices, on a kernel without device-mapper, are not seen.
    """

    def __init__(self, statistics: Statistics | None, enforcement: Enforcement) -> None:
        self._statistics = statistics
        self._enforcement = enforcement
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="measuring", daemon=True)
        self._seen: Mapping[DevNo, IoStat] = {}
        self._at = 0.0
        self.throttled: dict[str, float] = {}
        self.near: dict[str, float] = {}

    def start(self) -> None:
        """Look from time to time which volumes are held back, unless none can be seen."""
        if self._statistics is not None:
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def volumes(self) -> dict[str, DevNo]:
        """Return the staged volumes and their devices. Raises Unready."""
        if self._statistics is None:
            return {}
        return {name.removeprefix(PREFIX): dev for name, dev in self._statistics.devices(PREFIX).items()}

    def counted(self, volumes: Mapping[str, DevNo]) -> dict[str, Counted]:
        """Return the latencies of those volumes for which they are counted. Raises Unready."""
        if self._statistics is None:
            return {}
        found = self._statistics.read(volumes.values())
        return {volume: found[dev] for volume, dev in volumes.items() if dev in found}

    def used(self) -> Mapping[DevNo, IoStat]:
        """Return what pods did, by device. Raises Unenforceable."""
        return self._enforcement.used()

    def look(self, now: float) -> None:
        """Note which volumes a limit held back since the last look. `now` in seconds of any clock that only grows.

        Raises Unready, Unenforceable.
        """
        used, wanted, volumes = self._enforcement.used(), self._enforcement.wanted(), self.volumes()
        older, seconds = self._seen, now - self._at
        self._seen, self._at = used, now
        near = {
            volume: found
            for volume, dev in volumes.items()
            if dev in older and dev in used
            if (found := nearest(rates(older[dev], used[dev], seconds), wanted.get(dev, UNLIMITED))) is not None
        }
        held = {volume for volume, found in near.items() if found.throttled}
        self.throttled = {volume: self.throttled.get(volume, 0.0) + seconds * (volume in held) for volume in volumes}
        self.near = {volume: found.share for volume, found in near.items()}

    def _run(self) -> None:
        while not self._stopped.wait(PERIOD_SECONDS):
            try:
                self.look(time.monotonic())
            except (StorageError, Unenforceable) as error:
                log.warning("it is not seen which volumes limits hold back", reason=str(error))
            except Exception:  # a bug must not end the thread
                log.exception("bug in measuring")
