"""Give back to the pools what volumes no longer use: staged file systems are trimmed from time to time (fstrim).

Each volume has its moment in the period, by its id, so that they come one after the other, at the same time each day; a
moment that passes while the server is down is left out. In a pool whose fill warns they come every hour: a trim may be
what makes an emergency pass.

A trim goes through the file system in steps, one volume at a time. The volume's lock is held for a step, not between
them, and a step is kept so small that it takes a tenth of a second: node calls wait at most that long. What was
discarded is followed by a pause, so that neighbours see no more of it than a small rate.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import structlog

from csi_driver.errors import Busy, StorageError, Unsupported
from csi_driver.guard import Level
from csi_driver.host.discard import next_step, trim
from csi_driver.records import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.host.block import Device
    from csi_driver.host.mounts import Mount
    from csi_driver.host.syscalls import Kernel
    from csi_driver.locks import Locks
    from csi_driver.pools import ServedPool, ServedPools
    from csi_driver.stack import Stack
    from csi_driver.store.base import Store

log = structlog.get_logger(__name__)

HURRY_SECONDS = 3600.0
"""The period in a pool whose fill warns."""
LOOK_SECONDS = 60.0
"""How often it is looked whose moment has come, unless the period is shorter."""
BYTES_PER_SECOND = 256 << 20
"""What is discarded, at most: a TiB in 70 minutes. It is metadata's work: some 4,000 chunks of 64 KiB a second."""
FIRST_STEP, SMALLEST_STEP, LARGEST_STEP = 128 << 20, 16 << 20, 1 << 30
"""How many bytes of a file system are looked through in one step."""
BUSY_SECONDS, MOST_BUSY = 1.0, 30
"""How long a volume that a call holds is left alone, and how often before its turn is over."""
STOP_SECONDS = 5.0
END_OF_ALL = (1 << 64) - 1


class Step(NamedTuple):
    """Say what one step gave, in bytes, how long it took, and where it ended."""

    freed: int
    seconds: float
    end: int


class Trimming:
    """Trim what is staged on this node. `trimmed` counts bytes by pool, `last` is when a volume of it was done."""

    def __init__(
        self,
        store: Store,
        pools: ServedPools,
        stack: Stack,
        kernel: Kernel,
        locks: Locks,
        *,
        every: float,
    ) -> None:
        """Take what to trim by, and the period in seconds, of which 0 switches trimming off."""
        self._store = store
        self._pools = pools
        self._stack = stack
        self._kernel = kernel
        self._locks = locks
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent-trim", daemon=True)
        self.trimmed: Counter[str] = Counter()
        self.last: dict[str, float] = {}

    def start(self) -> None:
        """Begin, unless it is switched off."""
        if self._every:
            self._thread.start()

    def stop(self) -> None:
        """End after the step that is being done; one that hangs in the kernel is left to itself."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def round(self, since: float, now: float) -> None:
        """Trim the volumes whose moment came between two times (seconds since the epoch)."""
        for record, pool in self._due(since, now):
            if self._stopped.is_set():
                return
            try:
                self._trim(record, pool)
            except Unsupported as error:
                log.debug("not trimmed", volume=record.id, reason=str(error))
            except StorageError as error:
                log.warning("not trimmed", volume=record.id, reason=f"{type(error).__name__}: {error}")

    def _run(self) -> None:
        since = time.time()
        while not self._stopped.wait(min(LOOK_SECONDS, self._every)):
            now = time.time()
            try:
                self.round(since, now)
            except StorageError as error:
                log.warning("the store is away, and nothing is trimmed", reason=str(error))
            except Exception:  # a bug must not end the thread
                log.exception("bug in trimming")
            since = now

    def _due(self, since: float, now: float) -> Iterator[tuple[Volume, ServedPool]]:
        for record in self._store.all(Volume):
            accepted = record.status.history.accepted
            pool = self._pools.get(accepted.pool) if accepted else None
            if pool is None or not record.status.seen.staged or record.spec.thick:  # a thick volume gives nothing back
                continue
            every = min(self._every, HURRY_SECONDS) if pool.level >= Level.WARNING else self._every
            if due(record.id, every, since, now):
                yield record, pool

    def _trim(self, record: Volume, pool: ServedPool) -> None:
        """Trim one volume, as far as it stays staged."""
        began, start, step, done, busy = time.monotonic(), 0, FIRST_STEP, 0, 0
        while not self._stopped.is_set():
            try:
                found = self._step(record, pool, start, step)
            except Busy:
                busy += 1
                if busy > MOST_BUSY or self._stopped.wait(BUSY_SECONDS):
                    return
                continue
            if found is None:
                break
            start, step, done = (
                found.end,
                next_step(step, found.seconds, SMALLEST_STEP, LARGEST_STEP),
                done + found.freed,
            )
            self.trimmed[pool.spec.name] += found.freed
            self._stopped.wait(found.freed / BYTES_PER_SECOND)
        if start:
            self.last[pool.spec.name] = time.time()
            log.info("trimmed", volume=record.id, bytes=done, seconds=round(time.monotonic() - began, 1))

    def _step(self, record: Volume, pool: ServedPool, start: int, length: int) -> Step | None:
        """Trim a range; return None when there is no more, or the volume isn't mounted. Raises Busy."""
        with self._locks.hold(record.id, "a trim of", background=True):
            device = self._stack.device(pool.backend, record.id)
            mount = self._mount(device) if device else None
            if device is None or mount is None:
                return None
            size = self._stack.size(device)
            if start >= size:
                if mount.fstype != "btrfs" or start == END_OF_ALL:
                    return None
                length = END_OF_ALL - start  # its addresses are no places on the device, and go beyond its end
            began = time.monotonic()
            freed = trim(self._kernel, mount.target, device.dev, start, length)
            return Step(freed, time.monotonic() - began, start + length)

    def _mount(self, device: Device) -> Mount | None:
        """Return where a device is mounted to be written, None when it isn't, or is handed out as a device."""
        mounts = self._stack.mounts(device)
        return next((each for each in mounts if each.dev == device.dev and "ro" not in each.super_options), None)


def due(record_id: str, every: float, since: float, now: float) -> bool:
    """Return whether a volume's moment came after `since` and not after `now`. A clock that was set back has none."""
    moment = uuid.UUID(record_id).int % (1 << 32) / (1 << 32) * every
    return (since - moment) // every < (now - moment) // every
