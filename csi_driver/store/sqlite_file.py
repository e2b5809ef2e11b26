"""The database file of the embedded Store: made whole or not at all, checked before use, never changed when refused."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from csi_driver.store.base import StoreUnready

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = 1
BUSY_SECONDS = 3.0
"""How long a write waits for another process's."""

_SCHEMA = """
CREATE TABLE records (
    kind TEXT NOT NULL, id TEXT NOT NULL,
    spec TEXT NOT NULL, status TEXT NOT NULL,
    version INTEGER NOT NULL, generation INTEGER NOT NULL, deleting INTEGER NOT NULL,
    source TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX records_by_source ON records (kind, source, id) WHERE source <> '';
"""

_DAMAGED = {"SQLITE_CORRUPT", "SQLITE_NOTADB"}
_BUSY = {"SQLITE_BUSY", "SQLITE_LOCKED"}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's and the file system's errors into StoreUnready, naming the file and what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a bug of ours
    except sqlite3.Error as error:
        raise StoreUnready(_reason(path, error)) from error
    except OSError as error:
        raise StoreUnready(f"can't use the database {path}: {error}") from error


def _reason(path: Path, error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    primary = "_".join(name.split("_")[:2])  # SQLITE_IOERR_FSYNC is one of SQLITE_IOERR
    if primary in _DAMAGED:
        return _damaged(path, str(error))
    if primary in _BUSY:
        return f"can't write the database {path}: another process held it for {BUSY_SECONDS:g} s; try again"
    return f"can't use the database {path}: {error} ({name or type(error).__name__})"


def _damaged(path: Path, reason: str) -> str:
    return (
        f"the database {path} is damaged ({' '.join(reason.split())}):"
        f" move it, {path.name}-wal and {path.name}-shm away and run `sluice adopt`"
    )


def connect(path: Path, mode: str = "mode=rw") -> sqlite3.Connection:
    """Return a connection that commits by itself and may be handed from thread to thread."""
    db = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?{mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    db.text_factory = bytes
    return db


def connect_writer(path: Path) -> sqlite3.Connection:
    """Return a connection whose commits don't wait for the disk: who makes one sees to that."""
    db = connect(path)
    try:
        db.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        db.close()
        raise
    return db


def prepare(path: Path) -> None:
    """Make the database when there is none, else check that it can be used. Raises StoreUnready."""
    log = path.with_name(f"{path.name}-wal")
    # In this order: another process may be making the database, which it does before the log.
    log_found, found = log.exists(), path.exists()
    if found:
        _check_twice(path, log, log_found)
    elif log_found:
        raise StoreUnready(_damaged(path, "its log is there, the database is not"))
    else:
        _make(path)


def _make(path: Path) -> None:
    """Make a database beside its place and move it there, so that no one ever sees half of it.

    A folder that is there keeps its mode: it may not be ours alone.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 0600, which the log takes on
    os.close(number)
    try:
        with contextlib.closing(connect(Path(draft))) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA}; COMMIT;")
        with contextlib.suppress(FileExistsError):  # another process was first, and its database is as good
            os.link(draft, path)
    finally:
        Path(draft).unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_twice(path: Path, log: Path, log_found: bool) -> None:
    """Check, and once more if another process wrote meanwhile: without a log there is no lock that keeps it off."""
    written = path.stat().st_mtime_ns
    try:
        _check(path, log_found)
    except (sqlite3.Error, StoreUnready):
        if log_found or (path.stat().st_mtime_ns == written and not log.exists()):
            raise
        _check(path, log_found=True)


def _check(path: Path, log_found: bool) -> None:
    """Refuse a database of another schema or a damaged one, without changing a byte of it.

    Read-only, so that closing doesn't move the log into the file. Without a log nobody has it open, and `immutable`
    also keeps SQLite from making one.
    """
    with contextlib.closing(connect(path, "mode=ro" if log_found else "mode=ro&immutable=1")) as db:
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found > SCHEMA:
            raise StoreUnready(
                f"the database {path} has schema {found}, this version of sluice knows {SCHEMA}:"
                " run the version that wrote it, or a newer one"
            )
        if found < SCHEMA:
            raise StoreUnready(_damaged(path, f"its schema is {found}, which sluice never wrote"))
        said = [row[0].decode() for row in db.execute("PRAGMA quick_check(1)").fetchall()]
    if said != ["ok"]:
        raise StoreUnready(_damaged(path, "; ".join(said)))
