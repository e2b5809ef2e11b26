"""A Store in memory, for tests, that does on purpose all that the contract lets a Store do.

It also asserts what callers owe it: history never falls back, `durable=False` is for observations only, and a record is
born without a status. An AssertionError from here is a bug of the caller.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from csi_driver.records import Record, Snapshot, Status
from csi_driver.store import codec
from csi_driver.store.base import Stale, StoreUnready
from csi_driver.store.late import Post
from csi_driver.store.watch import Watchers, no_hook

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_driver.store.base import Key, Wake, Watch
    from csi_driver.store.watch import Hook, Subscription

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Malice:
    """Say how hostile a store is. Probabilities from 0 to 1, times in seconds.

    stale           a list may lack so many of the newest changes, of any kind
    stale_seconds   but none that is older
    delay           the longest pause before and after a write lands, and before a watch hears of it
    skip            a watch never hears of a change
    repeat          it hears of it twice
    silence         it breaks: it hears nothing for `silent_seconds`, then None
    unknown         a write raises StoreUnready; whether it landed, nobody says
    """

    stale: int = 4
    stale_seconds: float = 0.05
    delay: float = 0.002
    skip: float = 0.1
    repeat: float = 0.1
    silence: float = 0.02
    silent_seconds: float = 0.1
    unknown: float = 0.0


class HostileStore:
    """Keep records in memory, with malice."""

    def __init__(self, seed: int = 0, malice: Malice = Malice(), *, hook: Hook = no_hook) -> None:
        """Begin empty. What happens to a write follows from the seed, its name and how often it was made before.

        So the same seed gives the same malice, whatever other threads do meanwhile.
        """
        self._seed = seed
        self._times: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)
        self._malice = malice
        self._hook = hook
        self._lock = threading.Lock()
        self._records: dict[Key, Record] = {}
        self._undo: deque[tuple[float, Key, Record | None]] = deque(maxlen=max(1, malice.stale))
        self._unflushed: list[tuple[Key, Record | None]] = []
        self._versions = itertools.count(1)
        self._closed = threading.Event()
        self._watchers = Watchers()
        self._post = Post()

    # -- reading

    def get(self, kind: type[R], record_id: str) -> R | None:
        """Return the newest version, or None."""
        self._check_open()
        with self._lock:
            record: Any = self._records.get((kind.KIND, record_id))
        return codec.copy(record) if record else None

    def all(self, kind: type[R]) -> list[R]:
        """Return every record as it is now, sorted by id."""
        self._check_open()
        with self._lock:
            records: list[Any] = [
                record for (of_kind, _), record in sorted(self._records.items()) if of_kind == kind.KIND
            ]
        return [codec.copy(record) for record in records]

    def list(self, kind: type[R], *, after: str = "", limit: int | None = None, source: str = "") -> list[R]:
        """Return records sorted by id, beginning behind `after`, as they were a moment ago."""
        self._check_open()
        luck = self._luck(f"list {kind.KIND}")
        with self._lock:
            records: dict[Key, Any] = self._earlier(luck)
        names = sorted(name for of_kind, name in records if of_kind == kind.KIND and name > after)
        found = [records[kind.KIND, name] for name in names]
        if source:
            found = [one for one in found if isinstance(one, Snapshot) and one.spec.volume == source]
        return [codec.copy(one) for one in found[:limit]]

    def _earlier(self, luck: random.Random) -> dict[Key, Record]:
        """Return all records without some of the newest changes."""
        youngest = time.monotonic() - self._malice.stale_seconds
        undone = [(key, record) for at, key, record in self._undo if at >= youngest]
        lag = luck.randint(0, min(self._malice.stale, len(undone)))
        records = dict(self._records)
        for key, record in reversed(undone[len(undone) - lag :]):
            _set(records, key, record)
        return records

    # -- writing

    def create(self, record: R, *, durable: bool = True, lend: bool = False) -> R:  # noqa: ARG002 - nobody gets it
        """Add a record at generation 1. It must have no status yet: a Kubernetes API server would drop it."""
        if record.status != _status_at_birth(record):
            raise AssertionError(f"{record.KIND} {record.id} is created with a status: write that by put_status")

        def insert(now: R | None) -> R:
            if now is not None:
                raise Stale(f"{record.KIND} {record.id} exists")
            return dataclasses.replace(record, generation=1, deleting=False)

        return self._write("create", record, insert, durable=durable)

    def put_spec(self, record: R, *, durable: bool = True, lend: bool = False) -> R:  # noqa: ARG002 - nobody gets it
        """Swap the spec, raise the generation, return the new record. An equal spec changes nothing. Raises Stale."""

        def change(now: R) -> R:
            if now.spec == record.spec:
                return now
            return dataclasses.replace(now, spec=record.spec, generation=now.generation + 1)

        return self._swap("put spec of", record, change, durable=durable)

    def put_status(self, record: R, *, durable: bool = True, wake: bool = True) -> R:
        """Swap the status, return the new record. Raises Stale, and AssertionError when history falls back."""
        luck = self._luck(f"equal status of {record.KIND} {record.id}")

        def change(now: R) -> R:
            _assert_lawful(now, record, durable)
            if now.status == record.status and _chance(luck, 0.5):
                return now  # an API server leaves the version alone when nothing changes
            return dataclasses.replace(now, status=record.status)

        return self._swap("put status of", record, change, durable=durable, wake=wake)

    def mark(self, record: R) -> R:
        """Set `deleting`, which nothing takes back; marked already, nothing changes. Raises Stale."""
        return self._swap("mark", record, lambda now: now if now.deleting else dataclasses.replace(now, deleting=True))

    def remove(self, record: Record, *, durable: bool = True) -> None:
        """Forget a record in two steps that others see: marked, then gone. Raises Stale when it changed between."""
        marked = self.mark(record)
        self._swap("remove", marked, lambda _: None, durable=durable)

    def _swap(
        self, verb: str, record: R, change: Callable[[R], R | None], *, durable: bool = True, wake: bool = True
    ) -> R:
        def swap(now: R | None) -> R | None:
            if now is None:
                raise Stale(f"{record.KIND} {record.id} is gone")
            if now.version != record.version:
                raise Stale(f"{record.KIND} {record.id} is at version {now.version}, not {record.version}")
            return change(now)

        return self._write(verb, record, swap, durable=durable, wake=wake)

    def _write(
        self, verb: str, record: R, work: Callable[[R | None], R | None], *, durable: bool = True, wake: bool = True
    ) -> R:
        """Do the work on the newest version, and return the record that it leaves, or the one it took away."""
        effect = f"{verb} {record.KIND} {record.id}"
        self._check_open()
        luck = self._luck(effect)
        self._pause(luck)
        self._hook("before", effect)
        unknown, lands = _chance(luck, self._malice.unknown), _chance(luck, 0.5)
        with self._lock:
            done = self._land(record, work, luck, durable=durable, wake=wake) if lands or not unknown else record
        if unknown:
            raise StoreUnready(f"can't tell whether this landed: {effect}")
        self._hook("after", effect)
        self._pause(luck)
        return codec.copy(done)

    def _land(
        self, record: R, work: Callable[[R | None], R | None], luck: random.Random, *, durable: bool, wake: bool
    ) -> R:
        key = codec.key_of(record)
        now: Any = self._records.get(key)
        new = work(now)
        if new is not None and new is now:
            return new
        if new is not None:
            new = dataclasses.replace(codec.copy(new), version=self._next_version())
        _set(self._records, key, new)
        self._undo.append((time.monotonic(), key, now))
        self._unflushed.append((key, now))
        if durable:
            self._unflushed.clear()  # as in a log: what is flushed takes along what came before
        for subscription in self._watchers.all() if wake else ():
            self._announce(subscription, key, luck)
        return record if new is None else new

    def _next_version(self) -> str:
        """Return a number never given before, and not in order: nobody may compare versions but for equality."""
        return str(next(self._versions) * 2_654_435_761 % (1 << 32))

    # -- malice

    def settle(self) -> None:
        """Let lists show all that was written so far."""
        with self._lock:
            self._undo.clear()

    def lose_power(self) -> None:
        """Lose what was written with `durable=False` since the last durable write. Whoever used the store is dead."""
        with self._lock:
            while self._unflushed:
                _set(self._records, *self._unflushed.pop())
            self._undo.clear()

    def _luck(self, what: str) -> random.Random:
        """Return what decides on this one doing of a thing."""
        return random.Random(f"{self._seed} {what} {next(self._times[what])}")  # noqa: S311 - it is to be repeatable

    def _pause(self, luck: random.Random) -> None:
        self._closed.wait(luck.uniform(0, self._malice.delay))

    # -- watching

    def watch(self, wake: Wake, work: Wake | None = None) -> Watch:  # noqa: ARG002 - no thread is ever lent
        """Call `wake` from another thread: late, twice, in another order, or not at all."""
        self._check_open()
        return self._watchers.add(wake)

    def _announce(self, subscription: Subscription, key: Key, luck: random.Random) -> None:
        now, malice = time.monotonic(), self._malice
        if _chance(luck, malice.skip):
            return
        if _chance(luck, malice.silence):
            self._post.silence(subscription, now + malice.silent_seconds)
            return
        for _ in range(2 if _chance(luck, malice.repeat) else 1):
            self._post.send(now + luck.uniform(0, malice.delay), subscription, key)

    # -- closing

    def close(self) -> None:
        """End the thread that wakes."""
        self._closed.set()
        self._post.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise StoreUnready("can't use the store: it is closed")


def _chance(luck: random.Random, probability: float) -> bool:
    return luck.random() < probability


def _set(records: dict[Key, Record], key: Key, record: Record | None) -> None:
    records.pop(key, None)
    if record is not None:
        records[key] = record


def _status_at_birth(record: Record) -> object:
    return next(one.default for one in dataclasses.fields(record) if one.name == "status")


def _assert_lawful(now: Record, new: Record, durable: bool) -> None:
    """Hold a caller to what it owes a Store about history."""
    if not isinstance(new.status, Status):
        return
    before, after = now.status.history, new.status.history
    if after.falls_back_from(before):
        raise AssertionError(f"the history of {new.KIND} {new.id} falls back from {before} to {after}")
    if not durable and after != before:
        raise AssertionError(f"the history of {new.KIND} {new.id} changes without being durable: {after}")
