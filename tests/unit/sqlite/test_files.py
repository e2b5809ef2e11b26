"""What the embedded Store promises beyond the contract: its file survives, and errors are told."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from csi_driver.records import Node, NodeSpec, Volume
from csi_driver.store.base import Stale, StoreUnready
from csi_driver.store.sqlite import SqliteStore
from tests.unit.sqlite.databases import a_volume, beat, content, filled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.mark.parametrize("durable", [True, False])
def test_a_closed_store_opens_with_all_its_records(path: Path, durable: bool) -> None:
    """Closing flushes what `durable=False` left in memory."""
    with contextlib.closing(SqliteStore(path)) as store:
        made = beat(store, store.create(Node("node-a", NodeSpec("node-a"))), 7, durable=durable)

    with contextlib.closing(SqliteStore(path)) as store:
        assert store.get(Node, "node-a") == made


def test_versions_go_on_after_a_reopen(path: Path) -> None:
    """A version from before a restart is never given to another content."""
    with contextlib.closing(SqliteStore(path)) as store:
        read = a_volume(store, 1)
        store.remove(read)

    with contextlib.closing(SqliteStore(path)) as store:
        anew = a_volume(store, 1)

        assert anew.version != read.version
        with pytest.raises(Stale):
            store.mark(read)


def test_the_files_are_ours_alone(path: Path, store: SqliteStore) -> None:
    """Records may name tenants: the folder is 0700, database, log and index are 0600."""
    a_volume(store, 1)
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert modes == dict.fromkeys(["sluice.db", "sluice.db-wal", "sluice.db-shm"], 0o600)


def test_a_closed_store_is_one_file(path: Path) -> None:
    """Nothing lies about that somebody could forget to copy."""
    filled(path, 1)

    assert list(content(path)) == ["sluice.db"]


@pytest.mark.parametrize("name", ["a b.db", "50%.db", "what?.db", "a#b.db", "grö\u00dfe.db"])
def test_a_path_may_hold_odd_characters(tmp_path: Path, name: str) -> None:
    """A path is no URI."""
    made = filled(tmp_path / name, 1)
    with contextlib.closing(SqliteStore(tmp_path / name)) as store:
        assert store.list(Volume) == made
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The message says which file could not be used, and why."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreUnready, match=r"file/sluice\.db: .*File exists"):
        SqliteStore(tmp_path / "file" / "sluice.db")


def test_a_full_disk_is_told_and_survived(path: Path, store: SqliteStore) -> None:
    """A write that doesn't fit raises StoreUnready and leaves nothing; reads go on, and writes once there is space."""
    made = a_volume(store, 1)
    assert store._writer is not None
    store._writer.execute("PRAGMA max_page_count = 1")

    with pytest.raises(StoreUnready, match=r"sluice\.db: .*full.*SQLITE_FULL"):  # noqa: PT012 - whichever it is
        for number in range(2, 99):
            a_volume(store, number)
    there = len(store.list(Volume))

    assert store.get(Volume, made.id) == made
    a_volume(store, 100)
    assert len(store.list(Volume)) == there + 1


@pytest.fixture
def mend() -> Iterator[Callable[[], None]]:
    """Let no file of this process grow beyond 64 KiB, so that write(2) fails, until what is returned is called."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_write_is_told_and_survived(path: Path, store: SqliteStore, mend: Callable[[], None]) -> None:
    """An error of the disk in the middle of a commit undoes it, and the Store works again when the disk does."""
    made: list[Volume] = []
    with pytest.raises(StoreUnready, match=r"sluice\.db: disk I/O error"):  # noqa: PT012 - whichever write it is
        for number in range(200):
            made.append(a_volume(store, number))  # noqa: PERF401
    mend()

    assert sorted(made, key=lambda one: one.id) == store.list(Volume)
    made += [a_volume(store, number) for number in range(1000, 1100)]
    store.close()
    with contextlib.closing(SqliteStore(path)) as again:
        assert sorted(made, key=lambda one: one.id) == again.list(Volume)


def test_another_process_that_holds_the_database_is_told(path: Path, store: SqliteStore) -> None:
    """A write waits a while for another's, then says what it waited for; a read doesn't wait at all."""
    made = a_volume(store, 1)
    assert store._writer is not None
    store._writer.execute("PRAGMA busy_timeout = 50")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnready, match="another process held it"):
            store.mark(made)

        assert store.get(Volume, made.id) == made
    assert store.mark(made).deleting
