"""Keys that need work: each by one worker at a time, again after a while when it failed."""

from __future__ import annotations

import heapq
import threading
import time
from typing import TYPE_CHECKING

from csi_driver.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_driver.store.base import Key

FIRST_RETRY = 0.02
LAST_RETRY = 30.0
LAST_RETRY_BUSY = 0.32
"""A key that a call held is free again soon: who waits for the agent should not wait for a back-off as well."""
MOST_LENT = 8
"""How many threads of others work at once. Each may be held up for as long as a disk hangs, and its caller with it."""
LONGEST_HOLD = 1.0
"""How long, at most, a key that failed waits though it is added: noting a failure in a record adds its own key."""


class Queue:
    """Work through keys with a few threads."""

    def __init__(self, work: Callable[[Key], None], failed: Callable[[Key, Exception], None], workers: int) -> None:
        """Call `work` for each key; what it raises goes to `failed`, and the key comes again, ever later."""
        self._work = work
        self._failed = failed
        self._changed = threading.Condition()
        self._due: list[tuple[float, Key]] = []
        self._waiting: dict[Key, float] = {}
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._tries: dict[Key, int] = {}
        self._not_before: dict[Key, float] = {}
        self._lent = 0
        self._started = self._stopped = False
        self._threads = [threading.Thread(target=self._run, name=f"agent-{n}", daemon=True) for n in range(workers)]

    def start(self) -> None:
        """Start the threads."""
        self._started = True
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each thread end the key it works on, and wait for that."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def add(self, key: Key, after: float = 0.0) -> None:
        """Have a key worked on after so many seconds, or sooner when it waits for sooner already."""
        with self._changed:
            if key in self._working:
                self._again.add(key)
            else:
                self._schedule(key, time.monotonic() + after)

    def work_on(self, key: Key) -> bool:
        """Work on a key in this thread. False: a thread of ours does, or has to, or enough of others' work already."""
        with self._changed:
            held = key in self._working or key in self._waiting
            if held or not self._started or self._stopped or self._lent >= MOST_LENT:
                return False
            self._lent += 1
            self._working.add(key)
        try:
            self._do(key)
        finally:
            with self._changed:
                self._lent -= 1
        return True

    def idle(self) -> bool:
        """Return whether nothing is due now and nobody works."""
        with self._changed:
            return not self._working and (not self._due or self._due[0][0] > time.monotonic())

    def _schedule(self, key: Key, at: float) -> None:
        at = max(at, self._not_before.get(key, 0.0))
        if at < self._waiting.get(key, float("inf")):
            self._waiting[key] = at
            heapq.heappush(self._due, (at, key))
            self._changed.notify()

    def _take(self) -> Key | None:
        """Wait for the next key that is due and that nobody works on."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                if not self._due:
                    self._changed.wait()
                elif self._due[0][0] > now:
                    self._changed.wait(self._due[0][0] - now)
                else:
                    at, key = heapq.heappop(self._due)
                    if self._waiting.get(key) == at:
                        del self._waiting[key]
                        self._working.add(key)
                        return key
            return None

    def _run(self) -> None:
        while (key := self._take()) is not None:
            self._do(key)

    def _do(self, key: Key) -> None:
        delay = None
        try:
            self._work(key)
        except Exception as error:  # noqa: BLE001 - a worker must outlive every bug; `failed` makes it loud
            self._failed(key, error)
            last = LAST_RETRY_BUSY if isinstance(error, Busy) else LAST_RETRY
            delay = min(FIRST_RETRY * 2 ** self._tries.get(key, 0), last)
        self._finish(key, delay)

    def _finish(self, key: Key, delay: float | None) -> None:
        with self._changed:
            self._working.discard(key)
            if delay is None:
                self._tries.pop(key, None)
                self._not_before.pop(key, None)
            else:
                self._tries[key] = self._tries.get(key, 0) + 1
                self._not_before[key] = time.monotonic() + min(delay, LONGEST_HOLD)
                self._schedule(key, time.monotonic() + delay)
            if key in self._again:
                self._again.discard(key)
                self._schedule(key, time.monotonic())
