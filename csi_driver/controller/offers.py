"""Offer, accept, withdraw: how a wanted volume or snapshot finds its pool, and how it goes again.

A record is only offered until an agent accepts it by a swap of the same record. The controller withdraws by the same
swap, so exactly one of them wins, and a final answer is never followed by a volume.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Generic, TypeVar

from csi_driver.errors import Busy, InUse, NoSpace, NotFound, StorageError, Unknown, Unready, Unsupported
from csi_driver.groups import GroupSnapshot
from csi_driver.records import Failure, Offer, Pool, Snapshot, Volume
from csi_driver.store.base import Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from csi_driver.controller.waiting import Liveness, Waiting
    from csi_driver.deadline import Deadline
    from csi_driver.store.base import Store

A = TypeVar("A", Volume, Snapshot, GroupSnapshot)

WITHDRAWING = (NotFound, NoSpace, Unsupported)
"""Final answers that are found while a record is offered: the offer must not be accepted after them."""

GOES_ON = (Busy.__name__,)
"""What an agent writes of work that it goes on with by itself: who waits for that goes on waiting."""

ERRORS: dict[str, type[StorageError]] = {kind.__name__: kind for kind in StorageError.__subclasses__()}


def raised(failure: Failure) -> StorageError:
    """Return the error that an agent wrote into a record."""
    return ERRORS.get(failure.error, Unready)(failure.message)


def refusal(record: Volume | Snapshot | GroupSnapshot) -> Failure | None:
    """Return why the newest offer of a record was refused, None when it wasn't."""
    refused = record.status.history.refused
    offer = record.spec.offer
    return refused if refused and offer and refused.about == offer.number else None


class Offers(Generic[A]):
    """Bring records of one kind into being and out of it again."""

    def __init__(self, kind: type[A], store: Store, waiting: Waiting, liveness: Liveness) -> None:
        self._kind: type[A] = kind
        self._store = store
        self._waiting = waiting
        self._liveness = liveness

    def settle(self, record: A, pools: Callable[[], Sequence[Pool]], deadline: Deadline) -> A:
        """Offer a wanted record to one pool after another until it is made.

        `pools` gives the candidates, best first, when they are needed. Raises NoSpace when all refused, what the agent
        said when it had to undo, Unready when the node that accepted is away, Busy at the deadline.
        """
        refused: dict[str, Failure] = {}
        while True:
            offer = record.spec.offer
            what = f"node {offer.node} to make {record.id}" if offer else f"{record.id} to be offered"
            (found,) = self._waiting.until(self._kind, record.id, self._news, deadline, what)
            if found is None:
                raise Busy(f"{self._kind.KIND} {record.id} was withdrawn meanwhile; ask again")
            record = found
            history = record.status.history
            if history.gone:
                self._forget(record)
                raise raised(history.gone)
            if record.deleting and not history.accepted:
                self._forget(record)
                raise Busy(f"{self._kind.KIND} {record.id} was being withdrawn; ask again")
            if record.spec.absent or history.condemned:
                raise Busy(f"{self._kind.KIND} {record.id} is being deleted; ask again")
            if history.made:
                return record
            if history.accepted:
                raise Unready(
                    f"node {history.accepted.node} accepted {record.id} and is away; waiting for it to come back"
                )
            self._next_offer(record, refused, pools)

    def reoffer(self, record: A, pools: Sequence[Pool]) -> A:
        """Take back an offer that nobody accepted and offer the record to the first of these pools. Raises Stale."""
        number = record.spec.offer.number + 1 if record.spec.offer else 1
        offer = Offer(number, pools[0].spec.node, pools[0].id)
        return self._store.put_spec(record.with_spec(offer=offer))

    def delete(self, record_id: str, deadline: Deadline) -> None:
        """Withdraw an offered record, or have the agent delete an accepted one. Fine when there is none.

        Raises InUse when the kernel says that somebody uses it: the wish is then taken back.
        """
        while (record := self._store.get(self._kind, record_id)) is not None:
            history = record.status.history
            try:
                if not history.accepted or history.gone:
                    self._store.remove(record)
                    return
                if not record.spec.absent:
                    # The agent's `condemned` makes it durable, and without that nothing is deleted.
                    record = self._store.put_spec(record.with_spec(absent=True), durable=False, lend=True)
                if self._deleted(record, deadline):
                    return
            except Stale:
                continue

    def follow(self, record: A, deadline: Deadline) -> A:
        """Wait until the agent follows this generation of the record. Raises what the agent says, or Unready."""
        node = record.status.history.accepted.node if record.status.history.accepted else ""

        def followed(now: A | None) -> A | None:
            if now is None:
                raise NotFound(f"{self._kind.KIND} {record.id} is gone")
            if now.status.seen.generation >= record.generation:
                return now
            error = now.status.seen.error
            # What failed of another caller's wish is for that one to hear: a deletion that was refused, a later change.
            if error and error.about == record.generation and error.error not in {InUse.__name__, *GOES_ON}:
                raise raised(error)
            if self._liveness.away(node):
                raise Unready(f"node {node} holds {record.id} and is away; it follows when it comes back")
            return None

        return self._waiting.until(self._kind, record.id, followed, deadline, f"node {node} to follow {record.id}")

    def _news(self, record: A | None) -> tuple[A | None] | None:
        """Return the record, or that there is none, when the caller has to do something about it."""
        if record is None:
            return (None,)
        history = record.status.history
        if history.made or history.gone or record.spec.absent or record.deleting or refusal(record):
            return (record,)
        offer = history.accepted or record.spec.offer
        return (record,) if offer is None or self._liveness.away(offer.node) else None

    def _forget(self, record: A) -> None:
        """Remove a record whose bytes are gone; who came first has removed it too."""
        with contextlib.suppress(Stale):
            self._store.remove(record)

    def _next_offer(self, record: A, refused: dict[str, Failure], pools: Callable[[], Sequence[Pool]]) -> None:
        """Withdraw the offer that was refused, or whose node is away; offer anew, or give up for good."""
        if offer := record.spec.offer:
            away = f"node {offer.node} is away"
            refused[offer.pool] = refusal(record) or Failure(offer.number, NoSpace.__name__, away)
        try:
            left = [pool for pool in pools() if pool.id not in refused]
            if left:
                self.reoffer(record, left)
                return
            raise NoSpace("; ".join(failure.message for failure in refused.values()) or "no pool suits")
        except Stale:
            return
        except WITHDRAWING:
            if self.withdrawn(record):
                raise

    def withdrawn(self, record: A) -> bool:
        """Take back a record that nobody has accepted. False: somebody has, or it was offered anew."""
        try:
            self._store.remove(record)
        except Stale:
            # An agent that sees our mark may be quicker to remove the record.
            return self._store.get(self._kind, record.id) is None
        return True

    def _deleted(self, record: A, deadline: Deadline) -> bool:
        """Wait for the agent to delete; take the wish back when somebody uses the bytes."""

        def done(now: A | None) -> tuple[Failure | None] | None:
            if now is None:
                return (None,)
            error = now.status.seen.error
            if error and error.about >= record.generation and error.error not in {Unknown.__name__, *GOES_ON}:
                return (error,)
            accepted = now.status.history.accepted
            if accepted and self._liveness.away(accepted.node):
                raise Unready(
                    f"node {accepted.node} holds {record.id} and is away; it is deleted when the node comes back"
                )
            return None

        (failure,) = self._waiting.until(self._kind, record.id, done, deadline, f"{record.id} to be deleted")
        if failure is None:
            return True
        if failure.error == InUse.__name__:
            self._take_back(record.id)
        raise raised(failure)

    def _take_back(self, record_id: str) -> None:
        """Want the record again, unless its deletion has begun: a final answer must not be followed by one."""
        while (record := self._store.get(self._kind, record_id)) is not None:
            if not record.spec.absent or record.status.history.condemned:
                return
            with contextlib.suppress(Stale):
                self._store.put_spec(record.with_spec(absent=False))
                return
