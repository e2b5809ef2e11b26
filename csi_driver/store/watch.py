"""What all Stores share: who is woken by a change, and the hook by which a test cuts before or after an effect."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_driver.store.base import Key, Wake

    Hook = Callable[[str, str], None]
    """Called with "before" or "after" and a description of the write. What it raises comes out of the write."""


def no_hook(_when: str, _effect: str) -> None:
    """Do nothing, outside tests."""


class Subscription:
    """Call one `wake`, from any number of threads at once, until it is closed."""

    def __init__(self, watchers: Watchers, wake: Wake, work: Wake | None = None) -> None:
        """Remember whom to wake, who may work in a thread that is lent, and where to be struck off."""
        self._watchers = watchers
        self._wake = wake
        self._work = work or wake
        self._closed = False
        self._calls: list[int] = []
        self._idle = threading.Condition()

    def call(self, key: Key | None, *, lent: bool = False) -> None:
        """Wake, or let work in a thread that is lent, unless closed.

        No lock is held meanwhile: who is woken may hold one that a writer wants.
        """
        me = threading.get_ident()
        with self._idle:
            if self._closed:
                return
            self._calls.append(me)
        try:
            (self._work if lent else self._wake)(key)
        finally:
            with self._idle:
                self._calls.remove(me)
                self._idle.notify_all()

    def close(self) -> None:
        """End it, and wait for the calls that other threads are in. A `wake` may close its own subscription."""
        self._watchers.forget(self)
        me = threading.get_ident()
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: all(caller == me for caller in self._calls))


class Watchers:
    """Keep the subscriptions of a Store."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._lock = threading.Lock()
        self._all: tuple[Subscription, ...] = ()

    def all(self) -> tuple[Subscription, ...]:
        """Return the subscriptions there are."""
        return self._all

    def add(self, wake: Wake, work: Wake | None = None) -> Subscription:
        """Subscribe."""
        subscription = Subscription(self, wake, work)
        with self._lock:
            self._all = (*self._all, subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Strike off."""
        with self._lock:
            self._all = tuple(one for one in self._all if one is not subscription)

    def wake(self, key: Key | None, *, lent: bool = False) -> None:
        """Wake everybody, or let them work in this thread. Call it without holding a lock."""
        for subscription in self._all:
            subscription.call(key, lent=lent)
