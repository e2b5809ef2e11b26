"""The agent's queue: every key in the end, each by one worker at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter

from csi_driver.agent.queue import MOST_LENT, Queue
from csi_driver.deadline import Deadline, wait_for


def test_a_key_is_worked_on_by_one_worker_at_a_time_and_never_forgotten() -> None:
    """A key added while it is worked on is worked on once more."""
    running: Counter[str] = Counter()
    most, done = Counter[str](), Counter[str]()
    lock = threading.Lock()

    def work(key: tuple[str, str]) -> None:
        with lock:
            running[key[1]] += 1
            most[key[1]] = max(most[key[1]], running[key[1]])
        time.sleep(0.001)
        with lock:
            running[key[1]] -= 1
            done[key[1]] += 1

    queue = Queue(work, lambda *_: None, 4)
    queue.start()
    for number in range(200):
        queue.add(("volume", str(number % 3)))
    wait_for("the queue is idle", queue.idle, Deadline(10))
    before = done["0"]
    queue.add(("volume", "0"))
    wait_for("it came again", lambda: done["0"] == before + 1, Deadline(5))
    queue.stop()

    assert set(done) == {"0", "1", "2"}
    assert max(most.values()) == 1


def test_what_failed_comes_again_until_it_succeeds() -> None:
    """Each failure is told, and the key is tried later; others don't wait for it."""
    tries: list[str] = []
    failures: list[str] = []
    others = threading.Event()

    def work(key: tuple[str, str]) -> None:
        if key[1] == "other":
            others.set()
            return
        tries.append(key[1])
        if len(tries) < 4:
            raise ValueError(key[1])

    queue = Queue(work, lambda _, error: failures.append(str(error)), 1)
    queue.start()
    queue.add(("volume", "a"))
    queue.add(("volume", "other"))

    assert others.wait(5)
    wait_for("it succeeded", lambda: len(tries) == 4 and queue.idle(), Deadline(10))
    queue.stop()
    assert failures == ["a"] * 3


def test_noting_a_failure_does_not_undo_the_back_off() -> None:
    """A record in which each failure is noted, with other words each time, adds its own key: it must not spin."""
    tries: list[float] = []

    def work(key: tuple[str, str]) -> None:
        tries.append(time.monotonic())
        queue.add(key)
        raise ValueError

    queue = Queue(work, lambda *_: None, 2)
    queue.start()
    queue.add(("volume", "a"))
    time.sleep(0.5)
    queue.stop()

    assert 2 <= len(tries) <= 6, "20, 40, 80, 160 ms and so on"


def test_what_is_not_due_waits_and_is_brought_forward() -> None:
    """A later time never delays a key that waits for an earlier one."""
    done = threading.Event()
    queue = Queue(lambda _: done.set(), lambda *_: None, 1)
    queue.start()
    queue.add(("volume", "a"), after=60.0)

    assert queue.idle()
    queue.add(("volume", "a"))
    assert done.wait(5)
    queue.stop()


def test_a_thread_that_is_lent_works_at_once() -> None:
    """Before the call returns, in that very thread; and the queue goes on as ever."""
    workers: list[int] = []
    queue = Queue(lambda _: workers.append(threading.get_ident()), lambda *_: None, 1)
    queue.start()
    done = queue.work_on(("volume", "a"))
    there = list(workers)
    queue.stop()

    assert (done, there) == (True, [threading.get_ident()])
    assert not queue.work_on(("volume", "a")), "it has been stopped"


def test_a_thread_that_is_lent_keeps_off_what_others_do_or_must_wait_for() -> None:
    """Neither a key that is worked on, nor one that failed and waits for its time, nor anything before the start."""
    goes_on = threading.Event()
    tries: list[str] = []

    def work(key: tuple[str, str]) -> None:
        tries.append(key[1])
        if key[1] == "busy":
            assert goes_on.wait(5)
        else:
            raise ValueError

    queue = Queue(work, lambda *_: None, 1)
    assert not queue.work_on(("volume", "early"))
    queue.start()
    queue.add(("volume", "busy"))
    wait_for("it is worked on", lambda: bool(tries), Deadline(5))
    failed = queue.work_on(("volume", "failing"))
    refused = [queue.work_on(("volume", name)) for name in ("busy", "failing")]
    goes_on.set()
    wait_for("what failed comes again", lambda: tries.count("failing") == 2, Deadline(5))
    queue.stop()

    assert failed, "it was worked on, and the failure is the queue's affair"
    assert refused == [False, False]


def test_only_so_many_threads_are_taken() -> None:
    """Each is its caller's, who may have to answer; a disk that hangs must not have them all."""
    goes_on = threading.Event()

    def work(_: tuple[str, str]) -> None:
        assert goes_on.wait(5)

    queue = Queue(work, lambda *_: None, 1)
    queue.start()
    lent = [threading.Thread(target=queue.work_on, args=[("volume", str(number))]) for number in range(MOST_LENT)]
    for thread in lent:
        thread.start()
    wait_for("all are at work", lambda: len(queue._working) == MOST_LENT, Deadline(5))
    one_more = queue.work_on(("volume", "one more"))
    goes_on.set()
    for thread in lent:
        thread.join()
    afterwards = queue.work_on(("volume", "one more"))
    queue.stop()

    assert (one_more, afterwards) == (False, True)
