"""A small cluster in memory: a Store, nodes with sim pools, and controllers, each a set of objects of its own."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_driver.agent.agent import Agent
from csi_driver.agent.making import Maker
from csi_driver.backends.sim import SimBackend, SimPool
from csi_driver.controller.snapshots import Snapshots
from csi_driver.controller.volumes import Volumes
from csi_driver.controller.waiting import Liveness, Waiting
from csi_driver.deadline import Deadline, wait_for
from csi_driver.host.dm import DeviceMapper
from csi_driver.host.freeze import DeadMan, Freezer
from csi_driver.host.mounts import Mounts
from csi_driver.host.syscalls import Kernel
from csi_driver.ids import new_id
from csi_driver.limiting import Limiting
from csi_driver.locks import Locks
from csi_driver.pools import ServedPool, ServedPools
from csi_driver.records import Pool, PoolSpec
from csi_driver.stack import Stack
from qos.enforce import Off
from qos.tiers import load

if TYPE_CHECKING:
    from csi_driver.backends.base import Backend
    from csi_driver.store.base import Store

SCOPE = "test/csi.sluice.dev"


@dataclass
class AgentSide:
    """Hold one life of a node's agent."""

    agent: Agent
    pools: ServedPools
    locks: Locks

    def pool(self) -> ServedPool:
        """Return the node's one pool."""
        return next(iter(self.pools))


@dataclass
class ControllerSide:
    """Hold one life of a controller."""

    volumes: Volumes
    snapshots: Snapshots
    waiting: Waiting


def agent_side(store: Store, node: str, backend: Backend, *, ratio: float = 1.0) -> AgentSide:
    """Build and start the agent of a node with one pool, named `fast`."""
    kernel = Kernel()
    mounts = Mounts(kernel)
    stack = Stack(None, mounts, Freezer(kernel, DeviceMapper(kernel), DeadMan()))
    locks = Locks()
    record_id = pool_id(node)
    served = ServedPool(record_id, PoolSpec("fast", node, "sim", f"/{node}", 0, ratio), backend)
    pools = ServedPools({record_id: served})
    maker = Maker(store, stack, Limiting(Off()), locks)
    agent = Agent(node, SCOPE, store, pools, maker, locks, beat_seconds=0.05, look_again_seconds=0.1)
    agent.start()
    return AgentSide(agent, pools, locks)


def controller_side(store: Store, *, away_after: float = 0.6) -> ControllerSide:
    """Build a controller."""
    waiting = Waiting(store)
    liveness = Liveness(store, SCOPE, away_after=away_after)
    tiers = load()
    return ControllerSide(
        Volumes(store, waiting, liveness, tiers, SCOPE), Snapshots(store, waiting, liveness, SCOPE), waiting
    )


def pool_id(node: str) -> str:
    """Return the id of the pool of a node."""
    return new_id(SCOPE, Pool.KIND, f"{node}/fast")


class World:
    """Hold a Store, the disks of some nodes, their agents, and one controller."""

    def __init__(self, store: Store, nodes: tuple[str, ...] = ("n1",), *, total: int = 1 << 40) -> None:
        self.store = store
        self.disks = {node: SimPool(total) for node in nodes}
        self.agents = {node: agent_side(store, node, SimBackend(disk)) for node, disk in self.disks.items()}
        self.controller = controller_side(store)

    def stop_agent(self, node: str) -> None:
        """Stop an agent in good order."""
        self.agents.pop(node).agent.stop()

    def start_agent(self, node: str) -> None:
        """Start an agent anew, on the disk that it had."""
        self.agents[node] = agent_side(self.store, node, SimBackend(self.disks[node]))

    def restart_controller(self) -> None:
        """Replace the controller by a new one that knows nothing."""
        self.controller.waiting.close()
        self.controller = controller_side(self.store)

    def settle(self) -> None:
        """Wait until every agent has done what there is to do."""
        wait_for("the agents are idle", lambda: all(side.agent.idle() for side in self.agents.values()), Deadline(10.0))

    def close(self) -> None:
        """Stop everything."""
        self.controller.waiting.close()
        for node in tuple(self.agents):
            with contextlib.suppress(Exception):
                self.stop_agent(node)
        self.store.close()
