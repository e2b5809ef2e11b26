"""What the embedded Store promises beyond the contract: its file survives, or is refused and left alone."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.records import Node, NodeSpec, NodeStatus, Volume, VolumeSpec
from csi_driver.store.base import Key, Stale, StoreUnready
from csi_driver.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from csi_driver.store.base import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a database is to be, in a folder that isn't there yet."""
    return tmp_path / "state" / "sluice.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """Return an empty Store."""
    with contextlib.closing(SqliteStore(path)) as made:
        yield made


def filled(path: Path, count: int = 60) -> list[Volume]:
    """Make a closed database of so many volumes, and return them."""
    with contextlib.closing(SqliteStore(path)) as store:
        return sorted((a_volume(store, number) for number in range(count)), key=lambda one: one.id)


def a_volume(store: Store, number: int) -> Volume:
    return store.create(Volume(f"id-{number}", VolumeSpec(f"pvc-{number}", 4096, claim="ns/" + "x" * 200)))


def beat(store: Store, record: Node, number: int, *, durable: bool = True) -> Node:
    return store.put_status(dataclasses.replace(record, status=NodeStatus(beat=number)), durable=durable)


def content(path: Path) -> dict[str, str]:
    """Return a sum of each file in the database's folder."""
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in sorted(path.parent.iterdir())}


# -- durability


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


WRITER = """
import dataclasses, pathlib, sys
from csi_driver.records import Node, NodeSpec, NodeStatus
from csi_driver.store.sqlite import SqliteStore
store = SqliteStore(pathlib.Path(sys.argv[1]))
record = store.create(Node(sys.argv[2], NodeSpec("writer")))
number = 0
while number < int(sys.argv[3]):
    number += 1
    status = NodeStatus(beat=number)
    record = store.put_status(dataclasses.replace(record, status=status), durable=number % 3 != 0)
    print(number, flush=True)
store.close()
"""


def start_writer(path: Path, name: str, writes: int) -> subprocess.Popen[str]:
    """Start a process that raises a node's beat by one with each write, and prints each once it is acknowledged."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(writes)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )


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


# -- what is refused


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


# -- files


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


# -- errors


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


# -- processes and threads


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

    assert len(store._readers) == 1
