"""The loop around the maker: which records are ours, who works on them when, and what the node says of itself."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING

import structlog

from csi_driver.agent.queue import Queue
from csi_driver.errors import Busy, StorageError
from csi_driver.ids import new_id
from csi_driver.records import Node, NodeSpec, NodeStatus, Snapshot, Volume
from csi_driver.store.base import Stale

if TYPE_CHECKING:
    from csi_driver.agent.making import Maker
    from csi_driver.locks import Locks
    from csi_driver.pools import ServedPool, ServedPools
    from csi_driver.store.base import Key, Store, Watch

log = structlog.get_logger(__name__)

WORKERS = 8
BEAT_SECONDS = 10.0
PUBLISH_SECONDS = 0.05
"""How far apart a pool is published: what is left is a hint, and a thousand volumes a second need no thousand hints."""
LOOK_FOR_POOL_SECONDS = 1.0
"""How often a pool that can't be used is looked for."""
LOOK_AGAIN_SECONDS = 300.0
"""How often every record is looked at without being woken: a watch may skip, and bytes may go behind our back."""

KINDS: dict[str, type[Volume | Snapshot]] = {Volume.KIND: Volume, Snapshot.KIND: Snapshot}


class Agent:
    """Make the records of one node true. At start it looks at all of them: recovery is no separate code."""

    def __init__(
        self,
        node: str,
        scope: str,
        store: Store,
        pools: ServedPools,
        maker: Maker,
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
        self._locks = locks
        self._beat_seconds = beat_seconds
        self._looks = max(1, round(look_again_seconds / beat_seconds))
        self._queue = Queue(self._work, self._failed, WORKERS)
        self._to_look_at: set[Key] = set()
        self._published = threading.Event()
        self._stopped = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="agent-beat", daemon=True)
        self._watch: Watch | None = None

    def start(self) -> None:
        """Open the pools, fold the ledgers, and begin to work. When this returns, offers are taken."""
        for pool in self._pools:
            pool.open(self._store)
        self._fold()
        self._watch = self._store.watch(self._wake)
        self._pools.refresh(self._store)
        self._beat(stopped=False)
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

        A record that nobody has looked at yet, as `adopt` writes it, may be of a volume in use.
        """
        for record in self._store.all(Volume):
            key = (Volume.KIND, record.id)
            unseen = bool(record.status.history.made) and not record.status.seen.generation
            if (record.status.seen.device or unseen) and self._pool_of(record) is not None:
                self._to_look_at.add(key)
                try:
                    self._work(key)
                except (StorageError, Stale) as error:
                    self._failed(key, error)
                    self._queue.add(key)

    def _pool_of(self, record: Volume | Snapshot) -> ServedPool | None:
        offer = record.status.history.accepted or record.spec.offer
        return self._pools.get(offer.pool) if offer else None

    def _wake(self, key: Key | None) -> None:
        if key is None:
            self._look_at_all()
        elif key[0] in KINDS and not self._locks.held_here(key[1]):  # who holds the lock sees to what he writes
            self._queue.add(key)

    def _look_at_all(self) -> None:
        for kind in KINDS.values():
            for record in self._store.list(kind):
                if self._pool_of(record) is not None:
                    key = (kind.KIND, record.id)
                    self._to_look_at.add(key)
                    self._queue.add(key)

    def _work(self, key: Key) -> None:
        kind, record_id = KINDS[key[0]], key[1]
        if key not in self._to_look_at and (seen := self._store.get(kind, record_id)) is not None and followed(seen):
            return
        with self._locks.hold(record_id, "the agent's work on", background=True):
            self._to_look_at.discard(key)
            record = self._store.get(kind, record_id)
            if record is None:
                for served in self._pools:
                    served.ledger.settle(record_id, 0)
                return
            pool = self._pool_of(record)
            if pool is None:
                return
            settle(record, pool)
            try:
                pool.check()
                self._maker.advance(record, pool)
            except Busy:
                raise
            except StorageError as error:
                self._maker.failed(record, error)
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

    def _tick(self) -> None:
        """Publish pools soon after a change; beat, and look at everything, from time to time."""
        looks, due = 0, time.monotonic() + self._beat_seconds
        while not self._stopped.is_set():
            patience = self._beat_seconds if self._pools.opened() else min(LOOK_FOR_POOL_SECONDS, self._beat_seconds)
            self._published.wait(max(0.0, min(due - time.monotonic(), patience)))
            self._published.clear()
            try:
                away = not self._pools.opened()
                self._pools.refresh(self._store)
                if away and self._pools.opened():
                    self._look_at_all()  # what was asked for meanwhile has waited long enough
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
        record = self._store.get(Node, self._node_id)
        try:
            if record is None:
                record = self._store.create(Node(self._node_id, NodeSpec(self._node)))
            status = NodeStatus(record.status.beat + 1, stopped)
            self._store.put_status(dataclasses.replace(record, status=status), durable=False)
        except Stale:
            log.warning("another agent beats for this node", node=self._node)


def settle(record: Volume | Snapshot, pool: ServedPool) -> None:
    """Take over into the ledger what the record's history says."""
    history = record.status.history
    pool.ledger.settle(record.id, history.size if history.accepted and not history.gone else 0)


def followed(record: Volume | Snapshot) -> bool:
    """Return whether the kernel is known to follow the newest wish, so that only a look from time to time is due."""
    wanted_gone = record.spec.absent or record.deleting
    return bool(record.status.history.made) and not wanted_gone and record.status.seen.generation >= record.generation
