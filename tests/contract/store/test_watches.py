"""What every Store keeps of its contract: watches."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from csi_driver.deadline import Deadline, wait_for
from csi_driver.records import Seen, Status, Volume
from tests.contract.store.samples import THREADS, a_volume, volumes, with_made

if TYPE_CHECKING:
    from csi_driver.store.base import Key, Store


def test_a_watch_wakes(store: Store) -> None:
    """Who watches is woken by changes, though not by each."""
    record = store.create(a_volume())
    woken: list[Key | None] = []
    watch = store.watch(woken.append)

    def look() -> bool:
        nonlocal record
        record = store.put_status(dataclasses.replace(record, status=Status(seen=Seen(size=len(woken)))), durable=False)
        return ("volume", record.id) in woken

    wait_for("the watch wakes", look, Deadline(5))
    watch.close()


def test_who_looks_from_time_to_time_misses_nothing(store: Store) -> None:
    """Woken or not, who waits for a change sees it in the end."""
    record = store.create(a_volume())
    bell = threading.Event()
    watch = store.watch(lambda _: bell.set())
    seen: list[int] = []

    def wait() -> None:
        deadline = Deadline(5)
        while (not seen or seen[-1] < 20) and not deadline.passed():
            bell.wait(0.02)
            bell.clear()
            now = store.get(Volume, record.id)
            seen.append(now.status.seen.size if now else -1)

    waiter = threading.Thread(target=wait)
    waiter.start()
    for size in range(1, 21):
        record = store.put_status(dataclasses.replace(record, status=Status(seen=Seen(size=size))))
    waiter.join()
    watch.close()

    assert seen[-1] == 20
    assert seen == sorted(seen)


def test_a_closed_watch_is_silent(store: Store) -> None:
    """No call comes once close has returned, though writes go on in other threads."""
    records = [store.create(one) for one in volumes(THREADS)]
    closed = threading.Event()
    late: list[Key | None] = []

    def wake(key: Key | None) -> None:
        if closed.is_set():
            late.append(key)

    watch = store.watch(wake)

    def write(record: Volume) -> None:
        for size in range(20):
            record = store.put_status(dataclasses.replace(record, status=Status(seen=Seen(size=size))), durable=False)

    with ThreadPoolExecutor(THREADS) as threads:
        done = threads.map(write, records)
        watch.close()
        closed.set()
        list(done)

    assert late == []


def test_closing_a_watch_waits_for_the_call_under_way(store: Store) -> None:
    """Who has closed may take apart what `wake` uses."""
    record = store.create(a_volume())
    inside, release = threading.Event(), threading.Event()
    calls: list[str] = []

    def wake(_: Key | None) -> None:
        inside.set()
        release.wait(10)
        calls.append("ended")

    watch = store.watch(wake)

    def write() -> None:
        latest = record
        while not inside.is_set():
            latest = store.put_status(with_made(latest))

    writer = threading.Thread(target=write)
    writer.start()
    inside.wait(10)
    threading.Timer(0.05, release.set).start()
    watch.close()
    ended = list(calls)
    writer.join()

    assert "ended" in ended


def test_a_wake_may_close_its_watch(store: Store) -> None:
    """Who has heard enough can say so at once."""
    record = store.create(a_volume())
    heard = threading.Event()
    holder: list[Any] = []

    def wake(_: Key | None) -> None:
        holder[0].close()
        heard.set()

    holder.append(store.watch(wake))

    def look() -> bool:
        nonlocal record
        record = store.put_status(with_made(record), durable=True)
        return heard.is_set()

    wait_for("the watch has closed itself", look, Deadline(5))


def test_a_wake_may_take_a_lock_that_a_writer_holds(store: Store) -> None:
    """A writer's own lock and a watcher's are often the same: neither waits for the other for ever."""
    records = [store.create(one) for one in volumes(2)]
    lock = threading.RLock()

    def wake(_: Key | None) -> None:
        with lock:
            pass

    watch = store.watch(wake)

    def write(record: Volume) -> None:
        for size in range(20):
            with lock:
                record = store.put_status(dataclasses.replace(record, status=Status(seen=Seen(size=size))))

    threads = [threading.Thread(target=write, args=[record], daemon=True) for record in records]
    for thread in threads:
        thread.start()
    wait_for("both writers are done", lambda: not any(thread.is_alive() for thread in threads), Deadline(10))
    watch.close()
