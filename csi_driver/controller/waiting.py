"""Calls that wait for an agent: woken by the Store's watch, and looking by themselves, since a watch may skip."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

from csi_driver.errors import Busy
from csi_driver.groups import GroupSnapshot
from csi_driver.ids import new_id
from csi_driver.records import Node, Record, Snapshot, Volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_driver.deadline import Deadline
    from csi_driver.store.base import Key, Store

R = TypeVar("R", bound=Record)
T = TypeVar("T")

LOOK_EVERY = 0.5
AWAY_AFTER = 40.0
"""Seconds without a sign of life after which a node counts as away; what Kubernetes gives a kubelet."""
TRUST = 0.1
"""Seconds for which a node that was seen alive is not looked at again, however many calls wait for it."""


class Waiting:
    """Let calls wait until a record is as they want it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._waiters: defaultdict[Key, set[threading.Event]] = defaultdict(set)
        self._watch = store.watch(self._wake)

    def close(self) -> None:
        """End the watch."""
        self._watch.close()

    def until(
        self,
        kind: type[R],
        record_id: str,
        ready: Callable[[R | None], T | None],
        deadline: Deadline,
        what: str,
    ) -> T:
        """Look at the newest record until `ready` returns something, and return that.

        Raises Busy, saying `what` was waited for, when the deadline passes; the work goes on without the caller.
        """
        key = (kind.KIND, record_id)
        woken = threading.Event()
        with self._lock:
            self._waiters[key].add(woken)
        try:
            while True:
                woken.clear()
                record = self._store.get(kind, record_id)
                if (result := ready(record)) is not None:
                    return result
                if deadline.passed():
                    raise Busy(f"still waiting for {what}{_trouble(record)}; the work goes on, ask again")
                woken.wait(min(LOOK_EVERY, deadline.left()))
        finally:
            with self._lock:
                self._waiters[key].discard(woken)
                if not self._waiters[key]:
                    del self._waiters[key]

    def _wake(self, key: Key | None) -> None:
        with self._lock:
            keys = self._waiters if key is None else [key]
            for each in keys:
                for woken in self._waiters.get(each, ()):
                    woken.set()


def _trouble(record: Record | None) -> str:
    """Return what the agent last said went wrong, so that who waits knows why."""
    if not isinstance(record, Volume | Snapshot | GroupSnapshot) or (error := record.status.seen.error) is None:
        return ""
    return f" ({error.message})"


class Liveness:
    """Tell which nodes are away: those whose beat this process has not seen change for a while.

    Beats are timed by the own monotonic clock, so neither a wrong clock nor a step of one makes a node away.
    """

    def __init__(self, store: Store, scope: str, *, away_after: float = AWAY_AFTER) -> None:
        self._store = store
        self._scope = scope
        self._away_after = away_after
        self._beats: dict[str, tuple[int, float]] = {}
        self._alive: dict[str, float] = {}
        self._lock = threading.Lock()

    def away(self, node: str) -> bool:
        """Return whether the node is known to be away: never there, stopped, or silent for too long."""
        now = time.monotonic()
        if now < self._alive.get(node, 0.0):
            return False
        record = self._store.get(Node, new_id(self._scope, Node.KIND, node))
        if record is None or record.status.stopped:
            return True
        with self._lock:
            beat, since = self._beats.get(node, (-1, now))
            if beat != record.status.beat:
                beat, since = record.status.beat, now
            self._beats[node] = (beat, since)
        away = now - since > self._away_after
        if not away:
            self._alive[node] = now + TRUST
        return away
