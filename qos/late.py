"""Enforcement that may have to wait for its cgroup: the server serves, and what needs limits is told why it can't."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from qos.enforce import Enforcer, Off
from qos.errors import Unenforceable
from qos.limits import UNLIMITED, DevNo, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qos.enforce import Enforcement
    from qos.iofiles import IoStat
    from qos.shares import Held


class Late:
    """Find the Enforcer when it is needed: at start, and again at each call until the cgroup is there."""

    def __init__(self, find: Callable[[], Enforcer]) -> None:
        """Take how to find it. `find` raises Unenforceable, saying why, while it can't."""
        self._find = find
        self._lock = threading.Lock()
        self._found: Enforcement = Off()
        self._started = False
        self._reason = ""

    @property
    def reason(self) -> str:
        """Return why limits can't be applied, "" when they can."""
        self._look()
        return self._reason

    @property
    def helper_prefix(self) -> tuple[str, ...]:
        """Return the words to put before the argv of mkfs, fsck and growfs; none without a helper cgroup."""
        return self._found.helper_prefix

    @property
    def drift_repaired(self) -> int:
        """Return how many lines were put right since the start."""
        return self._found.drift_repaired

    @property
    def failures(self) -> int:
        """Return how many times drift could not be put right."""
        return self._found.failures

    def apply(self, dev: DevNo, limits: Limits) -> Limits:
        """Limit a device from now on. Raises Unenforceable, unless there is nothing to limit."""
        if not self._look():
            if limits == UNLIMITED:
                return UNLIMITED
            raise Unenforceable(self._reason)
        return self._found.apply(dev, limits)

    def lift(self, dev: DevNo) -> None:
        """Take the limits off and forget the device."""
        self._found.lift(dev)

    def forget(self, dev: DevNo) -> None:
        """Stop caring for a device, without a write."""
        self._found.forget(dev)

    def hold(self, name: str, held: Held) -> None:
        """Keep the floor of a volume in use. Raises Unenforceable."""
        if not self._look():
            raise Unenforceable(self._reason)
        self._found.hold(name, held)

    def use(self, name: str, users: frozenset[str]) -> None:
        """Give the floor of a volume, where it has one, to those who use it now."""
        self._found.use(name, users)

    def release(self, name: str) -> None:
        """Forget a volume's floor."""
        self._found.release(name)

    def wanted(self) -> Mapping[DevNo, Limits]:
        """Return the limits that are held, by device."""
        return self._found.wanted()

    def seen(self) -> Mapping[DevNo, Limits]:
        """Return the limits that the kernel shows."""
        return self._found.seen()

    def used(self) -> Mapping[DevNo, IoStat]:
        """Return what was done on each device below the ancestor."""
        return self._found.used()

    def reconcile(self) -> int:
        """Look for drift once, and return how many lines were put right."""
        return self._found.reconcile()

    def start(self) -> None:
        """Reconcile again and again, from when the cgroup is there until `stop`."""
        self._started = True
        if self._look():
            self._found.start()

    def stop(self) -> None:
        """End the thread; limits stay."""
        self._found.stop()

    def _look(self) -> bool:
        with self._lock:
            if isinstance(self._found, Off):
                try:
                    self._found = self._find()
                except Unenforceable as error:
                    self._reason = str(error)
                    return False
                self._reason = ""
                if self._started:
                    self._found.start()
            return True
