"""What the embedded Store promises beyond the contract: processes and threads share a database."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.records import Node, NodeSpec, Volume
from csi_driver.store.base import Key, Stale
from csi_driver.store.sqlite import SqliteStore
from tests.unit.sqlite.databases import a_volume, beat, content, start_writer

if TYPE_CHECKING:
    from pathlib import Path


def test_a_killed_writer_loses_nothing_acknowledged(path: Path) -> None:
    """SIGKILL in the middle of writes, five times: what was said to be written is there, and no half of more."""
    for attempt in range(5):
        with start_writer(path, f"node-{attempt}", 10**9) as writer:
            assert writer.stdout is not None
            told = [writer.stdout.readline() for _ in range(20 + 40 * attempt)]
            writer.send_signal(signal.SIGKILL)
            told += writer.stdout.readlines()
        acknowledged = max(int(line) for line in told if line.endswith("\n"))
        with contextlib.closing(SqliteStore(path)) as store:
            found = store.get(Node, f"node-{attempt}")

            assert found is not None
            assert found.status.beat in (acknowledged, acknowledged + 1)
            assert beat(store, found, 0).status.beat == 0


def test_a_write_lands_after_another_process_is_done(path: Path, store: SqliteStore) -> None:
    """A write that finds the database held looks only once it isn't, so that it never decides on what was before."""
    made = a_volume(store, 1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE records SET version = 7 WHERE id = ?", [made.id])
        release = threading.Timer(0.1, other.execute, ["COMMIT"])
        release.start()
        with pytest.raises(Stale, match="is at version 7"):
            store.mark(made)
        release.join()

    assert store.mark(dataclasses.replace(made, version="7")).deleting


def test_two_processes_write_one_database(path: Path, store: SqliteStore) -> None:
    """The CLI writes while the agent does: neither loses a write, and each sees the other's."""
    with start_writer(path, "other", 100) as writer:
        record = store.create(Node("own", NodeSpec("own")))
        for number in range(1, 101):
            record = beat(store, record, number)
        assert writer.wait(10) == 0
    found = {one.id: one.status.beat for one in store.list(Node)}

    assert found == {"other": 100, "own": 100}


def test_many_processes_begin_at_once(path: Path) -> None:
    """Whoever makes the database, all of them find it whole."""
    writers = [start_writer(path, f"node-{number}", 5) for number in range(4)]
    for writer in writers:
        with writer:
            assert writer.wait(10) == 0
    with contextlib.closing(SqliteStore(path)) as store:
        assert [one.status.beat for one in store.list(Node)] == [5] * 4
    assert list(content(path)) == ["sluice.db"]


def test_a_change_by_another_process_wakes(path: Path, store: SqliteStore) -> None:
    """Within a second of it, with None: what changed is not known."""
    woken: list[Key | None] = []
    store.watch(woken.append)
    wait_for("the first look is over", lambda: len(woken) == 1, Deadline(3))
    with start_writer(path, "other", 1) as writer:
        assert writer.wait(10) == 0
    wait_for("the watch wakes", lambda: len(woken) > 1, Deadline(3))

    assert set(woken) == {None}


def test_own_changes_wake_once_and_at_once(store: SqliteStore) -> None:
    """A wake comes before the write returns; the look for others' changes doesn't repeat it."""
    woken: list[Key | None] = []
    store.watch(woken.append)
    wait_for("the first look is over", lambda: woken == [None], Deadline(3))
    made = a_volume(store, 1)
    assert woken == [None, ("volume", made.id)]

    before = store._data_version()
    made = store.mark(made)

    assert store._data_version() == before
    assert woken == [None, ("volume", made.id), ("volume", made.id)]


def test_readers_do_not_wait_for_a_writer(store: SqliteStore) -> None:
    """While a write is under way and holds its lock, others read what was there before."""
    made = a_volume(store, 1)
    found: list[Volume | None] = []
    with store._write_lock:
        reader = threading.Thread(target=lambda: found.append(store.get(Volume, made.id)))
        reader.start()
        reader.join(5)

    assert found == [made]


def test_threads_that_end_leave_no_connection(store: SqliteStore) -> None:
    """Connections are lent, not owned: a hundred threads one after the other need one."""
    for _ in range(100):
        reader = threading.Thread(target=store.list, args=[Volume])
        reader.start()
        reader.join()

    assert len(store._readers._idle) == 1
