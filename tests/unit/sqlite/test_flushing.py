"""The log of the database: one flush for all who wait for it, and nobody sees what a power cut may take."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.records import Volume
from csi_driver.store.base import StoreUnready
from tests.unit.sqlite.databases import a_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.store.sqlite import SqliteStore

SOON = 10.0


class Disk:
    """Stand for the disk: count flushes, hold them back, let one fail."""

    def __init__(self) -> None:
        self.begun = 0
        self.failing = False
        self.goes_on = threading.Event()
        self.goes_on.set()

    def flush(self, fd: int) -> None:
        """Flush when it may."""
        self.begun += 1
        assert self.goes_on.wait(SOON)
        if self.failing:
            self.failing = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(fd)

    def wait_for_flush(self) -> None:
        """Wait until a flush has begun."""
        wait_for("a flush begins", lambda: self.begun > 0, Deadline(SOON))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, store: SqliteStore) -> Iterator[Disk]:
    """Give a disk below the store, on which nothing was flushed yet."""
    disk = Disk()
    a_volume(store, 0)
    monkeypatch.setattr(os, "fdatasync", disk.flush)
    yield disk
    disk.goes_on.set()


def test_only_a_durable_write_is_flushed(store: SqliteStore, disk: Disk) -> None:
    """One flush for one, none for the other."""
    made = a_volume(store, 1)
    flushed = disk.begun
    store.put_status(made, durable=False)

    assert (flushed, disk.begun) == (1, 1)


def test_writers_that_wait_for_a_flush_share_the_next(store: SqliteStore, disk: Disk) -> None:
    """While one is under way others write, and one more makes all of them durable."""
    disk.goes_on.clear()
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(a_volume, store, 1)
        disk.wait_for_flush()
        others = [threads.submit(a_volume, store, number) for number in range(2, 10)]
        wait_for("the others have written", lambda: store._log._committed == 10, Deadline(SOON))
        disk.goes_on.set()
        made = [each.result(SOON) for each in (first, *others)]

    assert disk.begun == 2
    assert all(store.get(Volume, each.id) == each for each in made)


@pytest.mark.parametrize("lists", [False, True], ids=["get", "list"])
def test_nobody_reads_what_a_power_cut_may_take(store: SqliteStore, disk: Disk, lists: bool) -> None:
    """Who reads a record that is not flushed yet waits for it, or flushes it; who reads another does not."""
    (other,) = store.list(Volume)
    disk.goes_on.clear()
    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(store.mark, other)
        disk.wait_for_flush()
        reading = threads.submit(store.list, Volume) if lists else threads.submit(store.get, Volume, other.id)
        with pytest.raises(TimeoutError):
            reading.result(0.05)
        elsewhere = store.get(Volume, "another")
        disk.goes_on.set()
        marked = writing.result(SOON)
        found = reading.result(SOON)

    assert elsewhere is None
    assert found == ([marked] if lists else marked)


def test_a_flush_that_fails_is_told_to_all_who_waited_for_it(store: SqliteStore, disk: Disk) -> None:
    """None of them knows whether its write landed. A later flush that works says nothing of what this one lost."""
    disk.goes_on.clear()
    disk.failing = True
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(a_volume, store, 1)
        disk.wait_for_flush()
        others = [threads.submit(a_volume, store, number) for number in (2, 3, 4)]
        wait_for("the others have written", lambda: store._log._committed == 5, Deadline(SOON))
        disk.goes_on.set()
        errors = [each.exception(SOON) for each in (first, *others)]
    made = a_volume(store, 5)

    assert [type(error) for error in errors] == [StoreUnready] * 4
    assert store.get(Volume, made.id) == made
