"""The embedded Store: one SQLite database, in WAL mode, for one machine and any number of its threads and processes.

A write is a transaction, whole or absent after a power cut (synchronous=NORMAL). A durable one is then flushed, by who
wrote it or together with others' (see `flushing`). With `durable=False` the next one that is durable takes it along.
https://www.sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from typing import TYPE_CHECKING, TypeVar

from csi_driver.records import Record
from csi_driver.store import codec, rows, sqlite_file
from csi_driver.store.base import Stale, StoreUnready
from csi_driver.store.flushing import Log
from csi_driver.store.readers import Readers
from csi_driver.store.watch import Watchers, no_hook

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from csi_driver.store.base import Wake, Watch
    from csi_driver.store.watch import Hook

R = TypeVar("R", bound=Record)
Done = TypeVar("Done")

POLL_SECONDS = 0.5
"""How often writes of other processes are looked for."""


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
        self._log = Log(path)
        self._opened = 0
        self._readers = Readers(path)
        with sqlite_file.explained(path):
            sqlite_file.prepare(path)
            self._writer = sqlite_file.connect_writer(path)

    # -- reading

    def get(self, kind: type[R], record_id: str) -> R | None:
        """Return the newest version, or None."""
        found = self._records.decode(kind, self._read(rows.GET, kind.KIND, record_id))
        return found[0] if found else None

    def all(self, kind: type[R]) -> list[R]:
        """Return every record; here `list` is never stale either."""
        return self.list(kind)

    def list(self, kind: type[R], *, after: str = "", limit: int | None = None, source: str = "") -> list[R]:
        """Return records sorted by id (as code points), beginning behind `after`; here never stale."""
        most = -1 if limit is None else limit
        if not source:
            return self._records.decode(kind, self._read(rows.LIST, kind.KIND, after, most))
        return self._records.decode(kind, self._read(rows.LIST_BY_SOURCE, kind.KIND, source, after, most))

    def _read(self, query: str, kind: str, *values: str | int) -> codec.Rows:
        """Return rows, and have them flushed: afterwards, since they may be written until they are read."""
        self._check_open()
        with sqlite_file.explained(self._path):
            with self._readers.lend() as db:
                found: codec.Rows = db.execute(query, (kind, *values)).fetchall()
            self._log.settle(kind, str(values[0]) if query is rows.GET else "")
        return found

    # -- writing

    def create(self, record: R, *, durable: bool = True, lend: bool = False) -> R:
        """Add a record at generation 1 and return it with its version. Raises Stale when the id is taken."""
        new = dataclasses.replace(record, version=rows.new_version(), generation=1, deleting=False)

        def insert(db: sqlite3.Connection) -> R:
            try:
                db.execute(rows.INSERT, rows.values(new))
            except sqlite3.IntegrityError:
                raise Stale(f"{record.KIND} {record.id} exists") from None
            return new

        return self._commit("create", record, insert, durable, lend=lend)

    def put_spec(self, record: R, *, durable: bool = True, lend: bool = False) -> R:
        """Swap the spec, raise the generation, return the new record. An equal spec changes nothing. Raises Stale."""

        def change(now: R) -> R:
            if now.spec == record.spec:
                return now
            return dataclasses.replace(now, spec=record.spec, generation=now.generation + 1)

        return self._swap("put spec of", record, change, durable, lend=lend)

    def put_status(self, record: R, *, durable: bool = True, wake: bool = True) -> R:
        """Swap the status, return the new record. Raises Stale."""
        return self._swap(
            "put status of", record, lambda now: dataclasses.replace(now, status=record.status), durable, wake=wake
        )

    def mark(self, record: R) -> R:
        """Set `deleting`, which nothing takes back; marked already, nothing changes. Raises Stale."""
        return self._swap("mark", record, lambda now: now if now.deleting else dataclasses.replace(now, deleting=True))

    def remove(self, record: Record, *, durable: bool = True) -> None:
        """Forget a record. Raises Stale when it changed."""

        def delete(db: sqlite3.Connection) -> None:
            self._changed_one(db, record, rows.DELETE)

        self._commit("remove", record, delete, durable)

    def _swap(
        self,
        verb: str,
        record: R,
        change: Callable[[R], R],
        durable: bool = True,
        *,
        wake: bool = True,
        lend: bool = False,
    ) -> R:
        def swap(db: sqlite3.Connection) -> R:
            # What the caller read is remembered, as a rule, and the write itself sees that it is still so.
            now = self._records.remembered(record) or self._unchanged(db, record)
            new = change(now)
            if new is now:
                return self._unchanged(db, record)
            new = dataclasses.replace(new, version=rows.new_version())
            self._changed_one(db, record, rows.UPDATE, *rows.values(new)[: -len(codec.key_of(record))])
            # Not before it is committed: a write that fails has given its version to nothing.
            self._records.learn(new.id.encode(), int(new.version), new)
            return new

        return self._commit(verb, record, swap, durable, wake=wake, lend=lend)

    def _changed_one(self, db: sqlite3.Connection, record: Record, statement: str, *values: str | int) -> None:
        """Change the record if it has the version that the caller read. Raises Stale, saying what it has become."""
        if db.execute(statement, (*values, *codec.key_of(record), record.version)).rowcount != 1:
            self._unchanged(db, record)
            raise Stale(f"{record.KIND} {record.id} can't be at version {record.version}")

    def _unchanged(self, db: sqlite3.Connection, record: R) -> R:
        """Return the record as it is kept. Raises Stale unless that is the version which the caller read."""
        found = db.execute(rows.GET, codec.key_of(record)).fetchall()
        if not found:
            raise Stale(f"{record.KIND} {record.id} is gone")
        now = self._records.decode(type(record), found)[0]
        if now.version != record.version:
            raise Stale(f"{record.KIND} {record.id} is at version {now.version}, not {record.version}")
        return now

    def _commit(
        self,
        verb: str,
        record: Record,
        work: Callable[[sqlite3.Connection], Done],
        durable: bool,
        *,
        wake: bool = True,
        lend: bool = False,
    ) -> Done:
        """Do the work, whose one statement is a transaction, wake who watches, from this thread, and flush it.

        One, for each statement lets other threads run and waits for them. Waking from here costs no switch.
        """
        effect, key = f"{verb} {record.KIND} {record.id}", codec.key_of(record)
        self._hook("before", effect)
        with sqlite_file.explained(self._path):
            with self._write_lock:
                db, log = self._open_writer(), self._log
                if durable:
                    log.expect(key)
                try:
                    done = work(db)
                except sqlite3.Error:
                    self._drop_writer()
                    raise
                number = log.committed() if durable else 0
            if wake and not lend:  # before it is flushed: who is woken and reads it waits for that
                self._watchers.wake(key)
            if durable:
                self._flush(log, number)
        self._hook("after", effect)
        if lend:
            self._watchers.wake(key, lent=True)
        return done

    def _flush(self, log: Log, number: int) -> None:
        try:
            log.flush(number)
        except OSError:
            with self._write_lock:
                if log is self._log:
                    self._drop_writer()
            raise

    def _open_writer(self) -> sqlite3.Connection:
        """Return the connection for writing, a new one after an error. Call it under the lock."""
        self._check_open()
        if self._writer is None:
            db = sqlite_file.connect_writer(self._path)
            try:
                # A flush that failed may have lost a part of the log; what comes next must not stand on it.
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error:
                db.close()
                raise
            self._writer, self._log = db, Log(self._path)
            self._opened += 1
        return self._writer

    def _drop_writer(self) -> None:
        """Close the connection, which undoes what wasn't committed, whatever state an error left it in."""
        if self._writer is not None:
            self._log.close()
            self._writer.close()
            self._writer = None

    # -- watching

    def watch(self, wake: Wake, work: Wake | None = None) -> Watch:
        """Call `wake` right after a change, from the writer's thread; after other processes' changes with None."""
        self._check_open()
        subscription = self._watchers.add(wake, work)
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
        self._readers.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise StoreUnready(f"can't use the database {self._path}: this Store is closed")
