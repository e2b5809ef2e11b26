"""A hundred callers at the same few volumes: only right answers, nobody waits, nothing grows, and nothing is left."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from csi_driver.rpc.intercept import WORKERS
from tests.serving import Server
from tests.storm import plan, serial
from tests.storm.codes import RIGHT
from tests.storm.programs import Taken, Watch, heard, hurry, program
from tests.storm.state import State, records, settle
from tests.torture import TORTURE, pick

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.native, pytest.mark.quiet, pytest.mark.timeout(pick(200, 400))]

SECONDS = pick(15.0, 60.0)
PROGRAMS, THREADS = 4, 25
SEED = random.SystemRandom().randrange(1 << 32) if TORTURE else 4
MIB = 1 << 20

ANSWER_SECONDS = 1.0
"""Within which Probe and NodeUnpublishVolume answer, whatever goes on."""
MOST = Taken(
    # All RPC workers, the agent's, and grpcio's own.
    threads=sum(WORKERS.values()) + 30,
    # Two for each thread that reads the database, one for each caller's connection, and the rest.
    fds=2 * sum(WORKERS.values()) + 100,
    rss=128 * MIB,
)


@dataclass(frozen=True, slots=True)
class Storm:
    """Hold what was heard and seen in a storm."""

    tallies: list[dict[str, Any]]
    sentinel: dict[str, Any]
    watch: Watch

    @property
    def answers(self) -> Counter[str]:
        """Return how often each RPC gave each answer."""
        return sum((Counter(tally["answers"]) for tally in self.tallies), Counter())

    @property
    def worst(self) -> float:
        """Return the longest that Probe or NodeUnpublishVolume took, in seconds."""
        return max(float(self.sentinel[rpc]["worst"]) for rpc in self.sentinel)

    @property
    def wrong(self) -> list[str]:
        """Return the answers that were not right."""
        return [answer for tally in self.tallies for answer in tally["wrong"]]


def storm(server: Server) -> Storm:
    """Let the callers loose, and whoever measures."""
    plan.Places(server.folder).make()
    hurry(server.pid)
    with contextlib.ExitStack() as running:
        sentinel = running.enter_context(program("sentinel", server.socket, server.folder))
        assert sentinel.stdout is not None
        assert sentinel.stdout.readline() == "ready\n"
        watch = running.enter_context(Watch(server))
        words = (server.socket, server.folder, THREADS, SECONDS)
        callers = [running.enter_context(program("callers", *words, f"{SEED}/{number}")) for number in range(PROGRAMS)]
        tallies = [heard(caller, SECONDS) for caller in callers]
        said = heard(sentinel)
    return Storm(tallies, said, watch)


def test_a_storm_of_callers_is_answered_at_once_and_leaves_what_callers_in_a_row_would_have(
    record_property: Callable[[str, object], None],
) -> None:
    """Every code is one of the call's; what is there when it is over is as if nobody had been in a hurry."""
    print(f"seed {SEED}")  # noqa: T201 - shown when it fails
    with Server() as server, Server() as quiet:
        start = State.of(server)
        seen = storm(server)
        assert seen.wrong == []
        settle(server)
        after, left, where = State.of(server), records(server), serial.published(server)
        serial.Serial(quiet).replay(left, where)
        expected = State.of(quiet)
        for each in (server, quiet):
            serial.take_down(each)
        end, idle = State.of(server), Taken.by(server)

    _record(record_property, seen, len(left))
    assert {rpc.partition(" ")[0] for rpc in seen.answers if rpc.endswith(" OK")} == set(RIGHT)
    assert [seen.sentinel[rpc]["refused"] for rpc in seen.sentinel] == [[], []]
    assert seen.worst <= ANSWER_SECONDS
    most = seen.watch.most
    assert most.threads <= MOST.threads
    assert most.fds <= MOST.fds
    assert max(most.rss, idle.rss) <= MOST.rss
    assert after == expected
    assert end == start


def _record(record_property: Callable[[str, object], None], seen: Storm, survivors: int) -> None:
    """Keep the figures worth keeping."""
    codes: Counter[str] = Counter()
    for answer, count in seen.answers.items():
        codes[answer.partition(" ")[2]] += count
    slowest = {rpc: max(tally["slowest"].get(rpc, 0.0) for tally in seen.tallies) for rpc in RIGHT}
    record_property("seed", SEED)
    record_property("calls", codes.total())
    record_property("answers", dict(codes))
    record_property("survivors", survivors)
    record_property("worst Probe, ms", round(seen.sentinel["Probe"]["worst"] * 1000))
    record_property("worst NodeUnpublishVolume, ms", round(seen.sentinel["NodeUnpublishVolume"]["worst"] * 1000))
    record_property("slowest call of a caller, s", {rpc: round(value, 2) for rpc, value in slowest.items()})
    most = seen.watch.most
    record_property("most threads, fds, MiB", (most.threads, most.fds, most.rss // MIB))
