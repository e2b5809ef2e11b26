"""The loop around the maker: which records are ours, who works on them when, and what the node says of itself."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING

import structlog

from csi_driver.agent.noting import Notes
from csi_driver.agent.queue import Queue
from csi_driver.errors import Busy, StorageError
from csi_driver.groups import GroupSnapshot
from csi_driver.ids import new_id
from csi_driver.records import Node, NodeSpec, NodeStatus, Snapshot, Volume
from csi_driver.store.base import Stale

if TYPE_CHECKING:
    from csi_driver.agent.grouping import Grouper
    from csi_driver.agent.making import Maker
    from csi_driver.locks import Locks
    from csi_driver.pools import ServedPool, ServedPools
    from csi_driver.store.base import Key, Store, Watch

log = structlog.get_logger(__name__)

WORKERS = 8
BEAT_SECONDS = 10.0
ANSWER_SECONDS = 0.01
"""How long after a change pools are published: after the answer to the call that made it, not beside it."""
PUBLISH_SECONDS = 0.05
"""How far apart a pool is published: what is left is a hint, and a thousand volumes a second need no thousand hints."""
LOOK_FOR_POOL_SECONDS = 1.0
"""How often a pool that can't be used is looked for."""
LOOK_AT_FILL_SECONDS = 2.0
"""How often the pools' fill is looked at: what is written between two looks must fit into what an emergency leaves."""
LOOK_AGAIN_SECONDS = 300.0
"""How often every record is looked at without being woken: a watch may skip, and bytes may go behind our back."""

Worked = Volume | Snapshot | GroupSnapshot
KINDS: dict[str, type[Worked]] = {kind.KIND: kind for kind in (Volume, Snapshot, GroupSnapshot)}


class Agent:
    """Make the records of one node true. At start it looks at all of them: recovery is no separate code."""

    def __init__(
        self,
        node: str,
        scope: str,
        store: Store,
        pools: ServedPools,
        maker: Maker,
        grouper: Grouper,
        locks: Locks,
        *,
        beat_seconds: float = BEAT_SECONDS,
        look_again_seconds: float = LOOK_AGAIN_SECONDS,
    ) -> None:
        self._node = node
        self._node_id = new_id(scope, Node.KIND, node)
        self._store = store
        self._pools = pools
        self._maker = maker
        self._grouper = grouper
        self._notes = Notes(store)
        self._locks = locks
        self._beat_seconds = beat_seconds
        self._looks = max(1, round(look_again_seconds / beat_seconds))
        self._marks_at_once = all(pool.backend.amends_at_once for pool in pools)
        self._queue = Queue(self._work, self._failed, WORKERS)
        self._to_look_at: set[Key] = set()
        self._pressed: frozenset[str] = frozenset()
        self._published = threading.Event()
        self._stopped = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="agent-beat", daemon=True)
        self._watch: Watch | None = None

    def start(self) -> None:
        """Open the pools, fold the ledgers, and begin to work. When this returns, offers are taken."""
        for pool in self._pools:
            pool.open(self._store)
        self._fold()
        self._watch = self._store.watch(self._wake, self._work_now)
        self._pools.refresh(self._store)
        self._beat(stopped=False)
        self._pressed = self._pools.pressed()
        self._recover()
        self._queue.start()
        self._look_at_all()
        self._ticker.start()

    def stop(self) -> None:
        """Say that the node is going, and end what is under way. Limits, mounts and devices stay."""
        self._stopped.set()
        self._published.set()
        if self._watch is not None:
            self._watch.close()
        self._queue.stop()
        if self._ticker.is_alive():
            self._ticker.join()
        self._beat(stopped=True)

    def idle(self) -> bool:
        """Return whether no record waits to be worked on now."""
        return self._queue.idle()

    def _fold(self) -> None:
        """Take every record of ours into its pool's ledger before the first offer is taken."""
        for kind in KINDS.values():
            for record in self._store.all(kind):
                pool = self._pool_of(record)
                if pool is not None:
                    settle(record, pool)

    def _recover(self) -> None:
        """Look at the volumes in use before the first call is served: a changed limit must be in force by then.

        A record that nobody has looked at yet, as `adopt` writes it, may be of a volume in use, or of a group whose
        members have none yet.
        """
        records: list[Worked] = [*self._store.all(Volume), *self._store.all(GroupSnapshot)]
        for record in records:
            key = (record.KIND, record.id)
            unseen = bool(record.status.history.made) and not record.status.seen.generation
            if (record.status.seen.device or unseen) and self._pool_of(record) is not None:
                self._to_look_at.add(key)
                try:
                    self._work(key)
                except (StorageError, Stale) as error:
                    self._failed(key, error)
                    self._queue.add(key)

    def _pool_of(self, record: Worked) -> ServedPool | None:
        offer = record.status.history.accepted or record.spec.offer
        return self._pools.get(offer.pool) if offer else None

    def _wake(self, key: Key | None) -> None:
        if key is None:
            self._look_at_all()
        elif key[0] in KINDS and (not self._locks.held_here(key[1]) or self._unmarked(key)):
            self._queue.add(key)  # else who holds the lock sees to what he writes

    def _unmarked(self, key: Key) -> bool:
        """Return whether a volume was formatted by a call that left its passport to the agent."""
        if self._marks_at_once or key[0] != Volume.KIND:
            return False
        record = self._store.get(Volume, key[1])
        return record is not None and record.status.seen.marked != record.status.history.format_done

    def _work_now(self, key: Key | None) -> None:
        """Work in the thread of who only waits for it, which saves two changes of threads, where that is soon done."""
        if key is None or not self._soon_done(key) or not self._queue.work_on(key):
            self._wake(key)

    def _soon_done(self, key: Key) -> bool:
        """Return whether a record's work takes a moment: neither a program is run for it, nor is anything copied."""
        record = self._store.get(Volume, key[1]) if key[0] == Volume.KIND else None
        pool = self._pool_of(record) if record else None
        if record is None or pool is None or not pool.backend.amends_at_once:
            return False
        return bool(record.status.history.made) or not (record.spec.source or record.spec.thick)

    def _look_at_all(self) -> None:
        for kind in KINDS.values():
            for record in self._store.list(kind):
                if self._pool_of(record) is not None:
                    key = (kind.KIND, record.id)
                    self._to_look_at.add(key)
                    self._queue.add(key)

    def _work(self, key: Key) -> None:
        kind, record_id = KINDS[key[0]], key[1]
        with self._locks.hold(record_id, "the agent's work on", background=True):
            record = self._store.get(kind, record_id)
            if key not in self._to_look_at and record is not None and followed(record):
                return
            self._to_look_at.discard(key)
            if record is None:
                for served in self._pools:
                    served.settle(record_id, 0)
                return
            pool = self._pool_of(record)
            if pool is None:
                return
            settle(record, pool)
            try:
                pool.check()
                if isinstance(record, GroupSnapshot):
                    self._grouper.advance(record, pool)
                else:
                    self._maker.advance(record, pool)
            except StorageError as error:  # of what is done in pieces, how far it is
                self._notes.failed(record, error)
                raise
        self._published.set()

    def _failed(self, key: Key, error: Exception) -> None:
        if isinstance(error, Busy | Stale):
            return
        if isinstance(error, StorageError):
            log.warning("not done yet", kind=key[0], id=key[1], reason=f"{type(error).__name__}: {error}")
            self._published.set()  # it may be the pool's trouble
        else:
            log.error("bug in the agent", kind=key[0], id=key[1], exc_info=error)

    def _look_at_pools(self, *, publish: bool) -> None:
        """Look how full the pools are, and at those that can't be used; publish them when that is due."""
        away = not self._pools.opened()
        if self._pools.watch() or away or publish:
            self._pools.refresh(self._store)
            if away and self._pools.opened():
                self._look_at_all()  # what was asked for meanwhile has waited long enough
        pressed = self._pools.pressed()
        if turned := pressed ^ self._pressed:
            self._look_at_yielding(turned)
        self._pressed = pressed

    def _look_at_yielding(self, pools: frozenset[str]) -> None:
        """Have the limits of volumes that yield set anew. One that is being staged now is looked at after that."""
        for record in self._store.all(Volume):
            pool = self._pool_of(record)
            if pool is not None and pool.id in pools and record.spec.qos.least and record.status.history.made:
                key = (Volume.KIND, record.id)
                self._to_look_at.add(key)
                self._queue.add(key)

    def _tick(self) -> None:
        """Watch the pools' fill and publish them soon after a change; beat, and look at all, from time to time."""
        looks, due = 0, time.monotonic() + self._beat_seconds
        patience = min(LOOK_AT_FILL_SECONDS, self._beat_seconds)
        while not self._stopped.is_set():
            wait = patience if self._pools.opened() else min(LOOK_FOR_POOL_SECONDS, patience)
            woken = self._published.wait(max(0.0, min(due - time.monotonic(), wait)))
            if woken:
                self._stopped.wait(ANSWER_SECONDS)
            self._published.clear()
            try:
                self._look_at_pools(publish=woken or time.monotonic() >= due)
                self._stopped.wait(PUBLISH_SECONDS)
                # By the clock, not when nothing else happened: a busy node is not away.
                if time.monotonic() >= due:
                    due = time.monotonic() + self._beat_seconds
                    self._beat(stopped=False)
                    looks += 1
                    if looks % self._looks == 0:
                        self._look_at_all()
            except StorageError as error:
                log.warning("the store is away", reason=str(error))

    def _beat(self, *, stopped: bool) -> None:
        """Give a sign of life. One that does not land is no reason not to serve, nor not to stop: the next may."""
        try:
            record = self._store.get(Node, self._node_id)
            if record is None:
                record = self._store.create(Node(self._node_id, NodeSpec(self._node)))
            status = NodeStatus(record.status.beat + 1, stopped)
            self._store.put_status(dataclasses.replace(record, status=status), durable=False)
        except Stale:
            log.warning("another agent beats for this node", node=self._node)
        except StorageError as error:
            log.warning("no sign of life is given", node=self._node, reason=str(error))


def settle(record: Worked, pool: ServedPool) -> None:
    """Take over into the ledger what the record's history says. A group stands there for its members."""
    history = record.status.history
    counts = history.accepted and not history.gone and not (isinstance(record, Snapshot) and record.spec.group)
    if counts:
        pool.settle(record.id, pool.counted(record, history.size), history.floor)
    else:
        pool.settle(record.id, 0)


def followed(record: Worked) -> bool:
    """Return whether the kernel is known to follow the newest wish, so that only a look from time to time is due."""
    history, seen = record.status.history, record.status.seen
    wanted_gone = record.spec.absent or record.deleting
    marked = seen.marked == history.format_done
    return bool(history.made) and marked and not wanted_gone and seen.generation >= record.generation
