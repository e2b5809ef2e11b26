"""Wakes that come late, in another order, from a thread of their own: how the hostile Store treats who watches."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csi_driver.store.base import Key
    from csi_driver.store.watch import Subscription


class Post:
    """Deliver wakes when they are due, in a thread that begins with the first."""

    def __init__(self) -> None:
        """Begin with nothing to deliver."""
        self._ready = threading.Condition()
        self._due: list[tuple[float, int, Subscription, Key | None]] = []
        self._order = itertools.count()
        self._silent: dict[Subscription, float] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def send(self, at: float, subscription: Subscription, key: Key | None) -> None:
        """Deliver a wake at a time of the monotonic clock."""
        with self._ready:
            heapq.heappush(self._due, (at, next(self._order), subscription, key))
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._deliver, name="hostile-store", daemon=True)
                self._thread.start()
            self._ready.notify_all()

    def silence(self, subscription: Subscription, until: float) -> None:
        """Deliver nothing to one subscription for a while, and None at the end of it."""
        with self._ready:
            self._silent[subscription] = until
        self.send(until, subscription, None)

    def _deliver(self) -> None:
        while True:
            with self._ready:
                while not self._closed and (not self._due or self._due[0][0] > time.monotonic()):
                    self._ready.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    return
                at, _, subscription, key = heapq.heappop(self._due)
                heard = at >= self._silent.get(subscription, 0.0)
            if heard:
                subscription.call(key)

    def close(self) -> None:
        """Deliver nothing more."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
