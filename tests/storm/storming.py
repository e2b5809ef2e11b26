"""A storm: callers let loose on a server, and what was heard and seen of it."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csi_driver.rpc.intercept import WORKERS
from tests.storm import plan
from tests.storm.codes import RIGHT
from tests.storm.programs import Taken, Watch, heard, hurry, program

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.serving import Server

MIB = 1 << 20
MOST = Taken(
    # All RPC workers, the agent's, and grpcio's own.
    threads=sum(WORKERS.values()) + 30,
    # Two for each thread that reads the database, one for each caller's connection, and the rest.
    fds=2 * sum(WORKERS.values()) + 100,
    rss=128 * MIB,
)


@dataclass(frozen=True, slots=True)
class Force:
    """Say how many programs of how many threads call, for how long, and what they call, by a seed."""

    programs: int
    threads: int
    seconds: float
    seed: int


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


def storm(server: Server, force: Force) -> Storm:
    """Let the callers loose, and whoever measures."""
    plan.Places(server.folder).make()
    hurry(server.pid)
    with contextlib.ExitStack() as running:
        sentinel = running.enter_context(program("sentinel", server.socket, server.folder))
        assert sentinel.stdout is not None
        assert sentinel.stdout.readline() == "ready\n"
        watch = running.enter_context(Watch(server))
        words = (server.socket, server.folder, force.threads, force.seconds)
        seeds = [f"{force.seed}/{number}" for number in range(force.programs)]
        callers = [running.enter_context(program("callers", *words, seed)) for seed in seeds]
        tallies = [heard(caller, force.seconds) for caller in callers]
        said = heard(sentinel)
    return Storm(tallies, said, watch)


def check_bounds(seen: Storm, idle: Taken, seconds: float) -> None:
    """See that Probe and NodeUnpublishVolume were always answered, so soon, and that nothing has grown."""
    assert [seen.sentinel[rpc]["refused"] for rpc in seen.sentinel] == [[], []]
    assert seen.worst <= seconds
    most = seen.watch.most
    assert most.threads <= MOST.threads
    assert most.fds <= MOST.fds
    assert max(most.rss, idle.rss) <= MOST.rss


def record(record_property: Callable[[str, object], None], force: Force, seen: Storm, survivors: int) -> None:
    """Keep the figures worth keeping."""
    codes: Counter[str] = Counter()
    for answer, count in seen.answers.items():
        codes[answer.partition(" ")[2]] += count
    slowest = {rpc: max(tally["slowest"].get(rpc, 0.0) for tally in seen.tallies) for rpc in RIGHT}
    record_property("seed", force.seed)
    record_property("calls", codes.total())
    record_property("answers", dict(codes))
    record_property("survivors", survivors)
    record_property("worst Probe, ms", round(seen.sentinel["Probe"]["worst"] * 1000))
    record_property("worst NodeUnpublishVolume, ms", round(seen.sentinel["NodeUnpublishVolume"]["worst"] * 1000))
    record_property("slowest call of a caller, s", {rpc: round(value, 2) for rpc, value in slowest.items()})
    most = seen.watch.most
    record_property("most threads, fds, MiB", (most.threads, most.fds, most.rss // MIB))
