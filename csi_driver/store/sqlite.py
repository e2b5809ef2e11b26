"""The embedded Store: one SQLite database, in WAL mode, for one machine and any number of its threads and processes.

A write is a transaction with one fsync (synchronous=FULL). With `durable=False` it has none (NORMAL): in WAL mode such
a write is still whole or absent after a power cut, and the next durable one flushes the same log and takes it along.
https://www.sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import sqlite3
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from csi_driver.records import Record, Snapshot
from csi_driver.store import codec, sqlite_file
from csi_driver.store.base import Stale, StoreUnready
from csi_driver.store.watch import Watchers, no_hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from csi_driver.store.base import Wake, Watch
    from csi_driver.store.watch import Hook

R = TypeVar("R", bound=Record)
Done = TypeVar("Done")

POLL_SECONDS = 0.5
"""How often writes of other processes are looked for."""

_COLUMNS = "id, spec, status, version, generation, deleting"
_GET = f"SELECT {_COLUMNS} FROM records WHERE kind = ? AND id = ?"  # noqa: S608 - constants of ours
_LIST = f"SELECT {_COLUMNS} FROM records WHERE kind = ? AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
_LIST_BY_SOURCE = (
    f"SELECT {_COLUMNS} FROM records WHERE kind = ? AND source = ? AND source <> '' AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
)
# The values of both are those of _values, in its order.
_INSERT = (
    "INSERT INTO records (spec, status, version, generation, deleting, source, kind, id)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE = (
    "UPDATE records SET spec = ?, status = ?, version = ?, generation = ?, deleting = ?, source = ?"
    " WHERE kind = ? AND id = ? AND version = ?"
)
_DELETE = "DELETE FROM records WHERE kind = ? AND id = ? AND version = ?"


class SqliteStore:
    """Keep records in a database file."""

    def __init__(self, path: Path, *, hook: Hook = no_hook) -> None:
        """Open the database, making it when there is none. Raises StoreUnready when it can't be used as it is."""
        self._path = path
        self._hook = hook
        self._watchers = Watchers()
        self._records = codec.Decoded()
        self._closed = threading.Event()
        self._poller: threading.Thread | None = None
        self._write_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._opened = 0
        self._flushes: bool | None = None
        self._readers: deque[sqlite3.Connection] = deque()
        with sqlite_file.explained(path):
            sqlite_file.prepare(path)
            self._writer = sqlite_file.connect(path)

    # -- reading

    def get(self, kind: type[R], record_id: str) -> R | None:
        """Return the newest version, or None."""
        found = self._records.decode(kind, self._read(_GET, kind.KIND, record_id))
        return found[0] if found else None

    def all(self, kind: type[R]) -> list[R]:
        """Return every record; here `list` is never stale either."""
        return self.list(kind)

    def list(self, kind: type[R], *, after: str = "", limit: int | None = None, source: str = "") -> list[R]:
        """Return records sorted by id (as code points), beginning behind `after`; here never stale."""
        most = -1 if limit is None else limit
        if not source:
            return self._records.decode(kind, self._read(_LIST, kind.KIND, after, most))
        return self._records.decode(kind, self._read(_LIST_BY_SOURCE, kind.KIND, source, after, most))

    def _read(self, query: str, *values: str | int) -> codec.Rows:
        with sqlite_file.explained(self._path), self._reader() as db:
            return db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection. A pool, since threads come and go and a thread's end closes nothing."""
        self._check_open()
        try:
            db = self._readers.pop()
        except IndexError:
            db = sqlite_file.connect(self._path)
        try:
            yield db
        except BaseException:
            db.close()
            raise
        self._readers.append(db)
        if self._closed.is_set():
            self._close_readers()

    # -- writing

    def create(self, record: R, *, durable: bool = True) -> R:
        """Add a record at generation 1 and return it with its version. Raises Stale when the id is taken."""
        new = dataclasses.replace(record, version=_new_version(), generation=1, deleting=False)

        def insert(db: sqlite3.Connection) -> R:
            try:
                db.execute(_INSERT, _values(new))
            except sqlite3.IntegrityError:
                raise Stale(f"{record.KIND} {record.id} exists") from None
            return new

        return self._commit("create", record, insert, durable)

    def put_spec(self, record: R, *, durable: bool = True) -> R:
        """Swap the spec, raise the generation, return the new record. An equal spec changes nothing. Raises Stale."""

        def change(now: R) -> R:
            if now.spec == record.spec:
                return now
            return dataclasses.replace(now, spec=record.spec, generation=now.generation + 1)

        return self._swap("put spec of", record, change, durable)

    def put_status(self, record: R, *, durable: bool = True, wake: bool = True) -> R:
        """Swap the status, return the new record. Raises Stale."""
        return self._swap(
            "put status of", record, lambda now: dataclasses.replace(now, status=record.status), durable, wake
        )

    def mark(self, record: R) -> R:
        """Set `deleting`, which nothing takes back; marked already, nothing changes. Raises Stale."""
        return self._swap("mark", record, lambda now: now if now.deleting else dataclasses.replace(now, deleting=True))

    def remove(self, record: Record, *, durable: bool = True) -> None:
        """Forget a record. Raises Stale when it changed."""

        def delete(db: sqlite3.Connection) -> None:
            self._changed_one(db, record, _DELETE)

        self._commit("remove", record, delete, durable)

    def _swap(self, verb: str, record: R, change: Callable[[R], R], durable: bool = True, wake: bool = True) -> R:
        def swap(db: sqlite3.Connection) -> R:
            # What the caller read is remembered, as a rule, and the write itself sees that it is still so.
            now = self._records.remembered(record) or self._unchanged(db, record)
            new = change(now)
            if new is now:
                return self._unchanged(db, record)
            new = dataclasses.replace(new, version=_new_version())
            self._changed_one(db, record, _UPDATE, *_values(new)[: -len(codec.key_of(record))])
            return new

        new = self._commit(verb, record, swap, durable, wake)
        # Not before it is committed: a write that fails has given its version to nothing.
        self._records.learn(new.id.encode(), int(new.version), new)
        return new

    def _changed_one(self, db: sqlite3.Connection, record: Record, statement: str, *values: str | int) -> None:
        """Change the record if it has the version that the caller read. Raises Stale, saying what it has become."""
        if db.execute(statement, (*values, *codec.key_of(record), record.version)).rowcount != 1:
            self._unchanged(db, record)
            raise Stale(f"{record.KIND} {record.id} can't be at version {record.version}")

    def _unchanged(self, db: sqlite3.Connection, record: R) -> R:
        """Return the record as it is kept. Raises Stale unless that is the version which the caller read."""
        rows = db.execute(_GET, codec.key_of(record)).fetchall()
        if not rows:
            raise Stale(f"{record.KIND} {record.id} is gone")
        now = self._records.decode(type(record), rows)[0]
        if now.version != record.version:
            raise Stale(f"{record.KIND} {record.id} is at version {now.version}, not {record.version}")
        return now

    def _commit(
        self, verb: str, record: Record, work: Callable[[sqlite3.Connection], Done], durable: bool, wake: bool = True
    ) -> Done:
        """Do the work, whose one statement is a transaction, then wake who watches, from this thread.

        One, for each statement lets other threads run and waits for them. Waking from here costs no switch.
        """
        effect = f"{verb} {record.KIND} {record.id}"
        self._hook("before", effect)
        with self._write_lock, sqlite_file.explained(self._path):
            db = self._open_writer()
            try:
                if self._flushes is not durable:
                    sqlite_file.flush_commits(db, durable)
                    self._flushes = durable
                done = work(db)
            except sqlite3.Error:
                self._drop_writer()
                raise
        self._hook("after", effect)
        if wake:
            self._watchers.wake(codec.key_of(record))
        return done

    def _open_writer(self) -> sqlite3.Connection:
        """Return the connection for writing, a new one after an error. Call it under the lock."""
        self._check_open()
        if self._writer is None:
            db = sqlite_file.connect(self._path)
            try:
                # A flush that failed may have lost a part of the log; what comes next must not stand on it.
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error:
                db.close()
                raise
            self._writer = db
            self._opened += 1
        return self._writer

    def _drop_writer(self) -> None:
        """Close the connection, which undoes what wasn't committed, whatever state an error left it in."""
        if self._writer is not None:
            self._writer.close()
            self._writer = self._flushes = None

    # -- watching

    def watch(self, wake: Wake) -> Watch:
        """Call `wake` right after a change, from the writer's thread; after other processes' changes with None."""
        self._check_open()
        subscription = self._watchers.add(wake)
        with self._write_lock:
            if self._poller is None:
                self._poller = threading.Thread(target=self._poll, name="sluice-store-poll", daemon=True)
                self._poller.start()
        return subscription

    def _poll(self) -> None:
        """Look for changes by others. On the connection for writing, whose `data_version` our own don't raise.

        The first look wakes everybody: what came between `watch` and it can't be told from what was there before.
        """
        seen = None
        while not self._closed.wait(POLL_SECONDS):
            now = self._data_version()
            if now is None or now != seen:
                self._watchers.wake(None)
            seen = now

    def _data_version(self) -> tuple[int, int] | None:
        """Return what differs after a change by others, None when it can't be known: who waits then looks itself."""
        with self._write_lock:
            if self._closed.is_set():
                return None
            try:
                db = self._open_writer()
                return self._opened, db.execute("PRAGMA data_version").fetchall()[0][0]
            except (sqlite3.Error, StoreUnready):
                self._drop_writer()
                return None

    # -- closing

    def close(self) -> None:
        """Let go of files and threads. Reads that are under way end well."""
        self._closed.set()
        if self._poller is not None and self._poller is not threading.current_thread():
            self._poller.join()
        with self._write_lock:
            self._drop_writer()
        self._close_readers()

    def _close_readers(self) -> None:
        while self._readers:
            with contextlib.suppress(IndexError):  # another thread closed the last one
                self._readers.pop().close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise StoreUnready(f"can't use the database {self._path}: this Store is closed")


def _new_version() -> str:
    """Return a version that no record ever had: of 2^63 numbers, one at random."""
    return str(secrets.randbits(63))


def _values(record: Record) -> tuple[str | int, ...]:
    spec, status = codec.encode(record)
    source = record.spec.volume if isinstance(record, Snapshot) else ""
    version = int(record.version)
    return (spec.decode(), status.decode(), version, record.generation, record.deleting, source, *codec.key_of(record))
