"""Eight callers of whole lives for minutes: loop devices are numbered anew all the time, and no life notices."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from tests.serving import Server
from tests.storm.programs import Taken, Watch, heard, program
from tests.storm.state import State
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = pick(8.0, 600.0)
PROGRAMS, THREADS = 2, 4
MIB = 1 << 20
GROWTH = pick(24, 32) * MIB
"""What a server may take more after all these lives than before: its pools of threads fill, and no more."""

pytestmark = [pytest.mark.native, pytest.mark.quiet, pytest.mark.timeout(SECONDS + 200)]


def test_eight_callers_live_whole_lives_without_a_single_failure(
    record_property: Callable[[str, object], None],
) -> None:
    """Create, stage with an ext4, publish, stats, unpublish, unstage, delete: every call OK, the first time."""
    started = time.monotonic()
    with Server() as server:
        start = State.of(server)
        with contextlib.ExitStack() as running:
            watch = running.enter_context(Watch(server))
            words = (server.socket, server.folder, THREADS, SECONDS)
            programs = [running.enter_context(program("lives", *words, number)) for number in range(PROGRAMS)]
            lives = [heard(each, SECONDS) for each in programs]
        seconds = time.monotonic() - started
        assert [failure for each in lives for failure in each["failed"]] == []
        end, idle = State.of(server), Taken.by(server)

    done = sum(each["done"] for each in lives)
    record_property("lives", done)
    record_property("lives/s", round(done / seconds, 1))
    record_property("slowest life, s", round(max(each["slowest"] for each in lives), 2))
    record_property("most threads, fds, MiB", (watch.most.threads, watch.most.fds, watch.most.rss // MIB))
    assert done > 0
    assert end == start
    assert idle.rss - watch.taken[0].rss < GROWTH
