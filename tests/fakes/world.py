"""A small cluster in memory: a Store, nodes on fake machines, and controllers, each a set of objects of its own.

A life (`tests/fakes/life.py`) is what a process is: it is started, it is stopped in good order, or it is killed at one
of its effects. What it leaves is in the Store and in the FakeMachines, and nowhere else.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.agent.agent import Agent
from csi_driver.agent.grouping import Grouper
from csi_driver.agent.making import Maker
from csi_driver.backends.sim import SimPool
from csi_driver.controller.groups import Groups
from csi_driver.controller.snapshots import Snapshots
from csi_driver.controller.volumes import Volumes
from csi_driver.controller.waiting import Liveness, Waiting
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import StorageError
from csi_driver.formatting import Formatting
from csi_driver.host.freeze import Freezer
from csi_driver.ids import new_id
from csi_driver.ledger import DiskLedger
from csi_driver.limiting import Limiting
from csi_driver.locks import Locks
from csi_driver.node.growing import Growing
from csi_driver.node.publishing import Publishing
from csi_driver.node.staged import Staged
from csi_driver.node.staging import Staging
from csi_driver.pools import ServedPool, ServedPools
from csi_driver.records import Pool, PoolSpec
from csi_driver.store.base import Stale
from qos.cgroup import RootCgroup
from qos.enforce import Enforcer
from qos.tiers import load
from tests.fakes.host import FakeCgroup, FakeDeadMan, FakeKernel, FakeMapper, FakeStack
from tests.fakes.life import Killed, Life, LifeStore
from tests.fakes.machine import FakeMachine
from tests.fakes.mounting import FakeFilesystems, FakeMounts
from tests.fakes.pool import FakeBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from csi_driver.backends.base import Backend
    from csi_driver.host.block import Disk
    from csi_driver.store.base import Key, Store
    from qos.iocost import Measured

SCOPE = "test/csi.sluice.dev"
TIERS = load()


@dataclass
class AgentSide:
    """Hold one life of a node: its agent and its verbs. `bugs` is what its workers raised and no driver may."""

    agent: Agent
    pools: ServedPools
    locks: Locks
    staging: Staging
    publishing: Publishing
    growing: Growing
    enforcer: Enforcer
    life: Life
    bugs: list[str] = field(default_factory=list)

    def pool(self) -> ServedPool:
        """Return the node's one pool."""
        return next(iter(self.pools))

    def kill(self) -> None:
        """End this life as SIGKILL does, and wait until its threads are gone."""
        self.life.kill()
        with contextlib.suppress(Killed):
            self.agent.stop()
        self.life.quiet()


@dataclass
class ControllerSide:
    """Hold one life of a controller."""

    volumes: Volumes
    snapshots: Snapshots
    groups: Groups
    waiting: Waiting
    life: Life

    def kill(self) -> None:
        """End this life; calls that wait in it end with Killed."""
        self.life.kill()
        self.waiting.close()
        self.life.quiet()


def agent_side(
    store: Store,
    node: str,
    backend: Backend | None = None,
    *,
    ratio: float = 1.0,
    machine: FakeMachine | None = None,
    life: Life | None = None,
) -> AgentSide:
    """Build and start a node with one pool, named `fast`. Raises Killed when its life is cut meanwhile.

    With another backend than the machine's, only the agent's work is of use.
    """
    machine = machine or FakeMachine(Path("/nonexistent"))
    life = life or Life()
    kept = LifeStore(store, life, machine.faults)
    kernel, mounts, mapper = FakeKernel(machine, life), FakeMounts(machine, life), FakeMapper(machine, life)
    freezer = Freezer(kernel, mapper, FakeDeadMan(machine))
    filesystems = FakeFilesystems(machine, life)
    stack = FakeStack(machine, life, mapper, mounts, freezer)
    locks = Locks()
    record_id = pool_id(node)
    spec = PoolSpec("fast", node, "sim", f"/{node}", 0, ratio)
    served = ServedPool(record_id, spec, backend or FakeBackend(machine, life), floors=DiskLedger(machine.known))
    pools = ServedPools({record_id: served})
    # A kernel without io.cost: no floor can be kept here.
    enforcer = Enforcer(FakeCgroup(machine, life), root=RootCgroup(machine.folder / "cgroup"))
    limiting = Limiting(enforcer)
    maker = Maker(kept, stack, limiting, locks)
    grouper = Grouper(kept, stack, locks, maker)
    agent = Agent(node, SCOPE, kept, pools, maker, grouper, locks, beat_seconds=0.05, look_again_seconds=0.1)
    formatting = Formatting(kept, filesystems, limiting)
    staged = Staged(kept, pools, stack)
    staging = Staging(staged, pools, stack, formatting, filesystems, mounts, kernel, limiting, locks)
    publishing = Publishing(staged, stack, mounts, kernel, limiting, locks)
    growing = Growing(staged, filesystems, limiting, locks)
    side = AgentSide(agent, pools, locks, staging, publishing, growing, enforcer, life)
    _note_bugs(agent, side.bugs)
    for thread in (*agent._queue._threads, agent._ticker):
        life.thread(thread)
    freezer.resume_all()
    try:
        agent.start()
    except Killed:
        side.kill()
        raise
    return side


class ToldLiveness(Liveness):
    """Know who is away without waiting for beats that don't come."""

    def __init__(self, away: Callable[[str], bool]) -> None:
        self._told = away

    def away(self, node: str) -> bool:
        """Return what the test says."""
        return self._told(node)


def controller_side(
    store: Store, *, away_after: float = 0.6, life: Life | None = None, away: Callable[[str], bool] | None = None
) -> ControllerSide:
    """Build a controller. With `away` it is told who is away, and looks at no beats."""
    life = life or Life()
    kept = LifeStore(store, life, [])
    waiting = Waiting(kept)
    liveness = ToldLiveness(away) if away else Liveness(kept, SCOPE, away_after=away_after)
    return ControllerSide(
        Volumes(kept, waiting, liveness, TIERS, SCOPE),
        Snapshots(kept, waiting, liveness, SCOPE),
        Groups(kept, waiting, liveness, SCOPE),
        waiting,
        life,
    )


def pool_id(node: str) -> str:
    """Return the id of the pool of a node."""
    return new_id(SCOPE, Pool.KIND, f"{node}/fast")


def _note_bugs(agent: Agent, bugs: list[str]) -> None:
    """Remember what the agent's log would call a bug."""
    said = agent._queue._failed

    def failed(key: Key, error: Exception) -> None:
        if not isinstance(error, StorageError | Stale):
            bugs.append(f"{key}: {error!r}")
        said(key, error)

    agent._queue._failed = failed


class World:
    """Hold a Store, the machines of some nodes, their agents, and one controller."""

    def __init__(
        self,
        store: Store,
        nodes: tuple[str, ...] = ("n1",),
        *,
        total: int = 1 << 40,
        ratio: float = 1.0,
        mapper: bool = True,
        away_after: float = 0.6,
        away: Callable[[str], bool] | None = None,
        disk: Disk | None = None,
        known: Mapping[str, Measured] | None = None,
    ) -> None:
        """Take what all nodes have: a pool of so many bytes, on a disk, if any; and what is known of disks."""
        self._disks, self._known = (disk,) if disk else (), known or {}
        self.store = store
        self.folder = Path(tempfile.mkdtemp(prefix="sluice-fake-"))
        self.machines = {node: self._machine(node, total, mapper) for node in nodes}
        self.disks = {node: machine.pool for node, machine in self.machines.items()}
        self._ratio = ratio
        self._away_after = away_after
        self._away = away
        self.bugs: list[str] = []
        self.agents: dict[str, AgentSide] = {}
        for node in nodes:
            self.start_agent(node)
        self.controller = controller_side(store, away_after=away_after, away=away)

    def _machine(self, node: str, total: int, mapper: bool) -> FakeMachine:
        folder = self.folder / node
        folder.mkdir()
        return FakeMachine(folder, SimPool(total, disks=self._disks), mapper, known=self._known)

    def stop_agent(self, node: str) -> None:
        """Stop an agent in good order."""
        side = self.agents.pop(node)
        side.agent.stop()
        self.bugs += side.bugs

    def kill_agent(self, node: str) -> None:
        """End a node's driver at once; it has ended already when an effect was its last."""
        side = self.agents.pop(node)
        side.kill()
        self.bugs += side.bugs

    def start_agent(self, node: str, life: Life | None = None) -> None:
        """Start an agent anew, on its machine with the disk that is in it now. Raises Killed if it is cut."""
        self.machines[node].pool = self.disks[node]
        machine = self.machines[node]
        self.agents[node] = agent_side(self.store, node, ratio=self._ratio, machine=machine, life=life)

    def restart_controller(self, life: Life | None = None) -> None:
        """Replace the controller, which ends as by SIGKILL, by a new one that knows nothing."""
        self.controller.kill()
        self.controller = controller_side(self.store, away_after=self._away_after, life=life, away=self._away)

    def faults(self) -> list[str]:
        """Return what no driver may do and this one did."""
        found = [fault for machine in self.machines.values() for fault in machine.faults]
        return found + self.bugs + [bug for side in self.agents.values() for bug in side.bugs]

    def settle(self) -> None:
        """Wait until every agent has done what there is to do."""
        wait_for("the agents are idle", lambda: all(side.agent.idle() for side in self.agents.values()), Deadline(10.0))

    def close(self) -> None:
        """Stop everything."""
        self.controller.kill()
        for node in tuple(self.agents):
            self.kill_agent(node)
        self.store.close()
        shutil.rmtree(self.folder)
