"""What the embedded Store promises beyond the contract: what it can't trust is refused and left alone."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from csi_driver.records import Volume
from csi_driver.store.base import StoreUnready
from csi_driver.store.sqlite import SqliteStore
from tests.unit.sqlite.databases import content, filled

if TYPE_CHECKING:
    from pathlib import Path


def refuse(path: Path, words: str) -> None:
    """Open a database that must be refused with these words, and compare its folder before and after."""
    before = content(path)
    with pytest.raises(StoreUnready, match=words) as caught:
        SqliteStore(path)

    assert content(path) == before
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_newer_database_is_refused_untouched(path: Path) -> None:
    """A version of sluice that doesn't know a schema must not write it."""
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 7")

    refuse(path, "schema 7, this version of sluice knows 1: run the version that wrote it")


def test_a_newer_database_with_a_log_is_refused_untouched(path: Path) -> None:
    """After a crash the schema's number may stand in the log alone; the log isn't moved into the file either."""
    filled(path, 5)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 7")
        crashed = {one: one.read_bytes() for one in path.parent.iterdir() if not one.name.endswith("-shm")}
    for one, data in crashed.items():
        one.write_bytes(data)
    before = {one: one.read_bytes() for one in crashed}
    with pytest.raises(StoreUnready, match="schema 7"):
        SqliteStore(path)

    assert len(before) == 2
    assert {one: one.read_bytes() for one in crashed} == before


def test_a_foreign_database_is_refused_untouched(path: Path) -> None:
    """A database that sluice didn't make is nobody's to fill."""
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE notes (text)")

    refuse(path, "move it.* away and run `sluice adopt`")


@pytest.mark.parametrize("kept", [0, 1, 50, 100, 4095, 4096, 8192, 20000])
def test_a_truncated_database_is_refused_untouched(path: Path, kept: int) -> None:
    """A file that is shorter than it was is no empty Store."""
    filled(path)
    data = path.read_bytes()
    path.write_bytes(data[:kept])

    assert kept < len(data)
    refuse(path, "damaged .*: move it, sluice.db-wal and sluice.db-shm away and run `sluice adopt`")


def test_a_file_that_is_no_database_is_refused_untouched(path: Path) -> None:
    """Whatever stands at our path isn't overwritten."""
    path.parent.mkdir()
    path.write_text("precious notes\n" * 100)

    refuse(path, "damaged .*not a database.*run `sluice adopt`")


@pytest.mark.parametrize("page", range(8))
def test_a_damaged_page_is_refused_untouched(path: Path, page: int) -> None:
    """A page of rubbish is found at the start, not when its records are wanted."""
    filled(path)
    data = bytearray(path.read_bytes())
    data[page * 4096 : page * 4096 + 4096] = b"\xa5" * 4096
    path.write_bytes(data)

    refuse(path, "damaged .*run `sluice adopt`")


def test_a_log_without_its_database_is_refused_untouched(path: Path) -> None:
    """A new database must not take in what an old log holds."""
    path.parent.mkdir()
    path.with_name("sluice.db-wal").write_bytes(b"old")

    refuse(path, "damaged .*log is there, the database is not")


def test_a_record_that_makes_no_sense_is_named(path: Path) -> None:
    """One bad record is an error that names it, not a traceback without a name."""
    filled(path, 3)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("""UPDATE records SET spec = '{"name": 1}' WHERE id = 'id-1'""")
    with contextlib.closing(SqliteStore(path)) as store:
        with pytest.raises(StoreUnready, match="volume id-1"):
            store.list(Volume)
        with pytest.raises(StoreUnready, match="volume id-1"):
            store.get(Volume, "id-1")

        assert store.get(Volume, "id-2") is not None
