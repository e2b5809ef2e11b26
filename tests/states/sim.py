"""The world in memory: fake machines, a hostile Store, and processes that can be killed at each effect."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import StorageError
from csi_driver.records import Pool, Snapshot, Volume
from csi_driver.rpc.controller import Controller
from csi_driver.rpc.node import Node
from csi_driver.rpc.status import code_of
from csi_driver.store.hostile import HostileStore, Malice
from qos.limits import UNLIMITED
from tests.fakes.life import Killed
from tests.fakes.machine import SUPERBLOCK
from tests.fakes.world import SCOPE, ControllerSide, World
from tests.states.driver import CONTROLLER, A, Answer, Code, Cut, Shown, Up, View
from tests.states.quiet import at_rest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.machine import FakeMachine
    from tests.fakes.world import AgentSide

SECONDS = 20.0
MALICE = Malice(delay=0.0003, skip=0.05, silence=0.005, silent_seconds=0.05)


class Context:
    """Stand in for gRPC's: all that handlers ask of it is how long they may take."""

    def time_remaining(self) -> float:
        """Return seconds."""
        return SECONDS


class SimDriver:
    """Be the world in memory."""

    scope = SCOPE
    topology_key = "test/node"
    enforces = True

    def __init__(self, nodes: tuple[str, ...], total: int, *, seed: int, mapper: bool, unknown: float = 0.0) -> None:
        """Open a world. `unknown` is the chance of a write of which nobody says whether it landed."""
        self.nodes = nodes
        self.total = total
        self.store = HostileStore(seed, replace(MALICE, unknown=unknown))
        self._coming: set[str] = set()
        self._returning: dict[str, threading.Thread] = {}
        self._armed: list[tuple[str, AgentSide | ControllerSide]] = []
        self._died = False
        self._world = World(self.store, nodes, total=total, mapper=mapper, away=self._away)
        for machine in self._world.machines.values():
            for folder in ("staging", "pods"):
                (machine.folder / folder).mkdir()

    # calls

    def call(self, rpc: str, request: Any, node: str = "") -> Answer:  # noqa: ANN401 - any message
        """Call the servicer itself, and turn what it raises into a code as the server does."""
        try:
            message = getattr(self._servicer(node), rpc)(request, Context())
        except Killed:
            answer = Answer(None)
        except StorageError as error:
            answer = Answer(code_of(rpc, error), said=str(error))
        else:
            answer = Answer(Code.OK, message)
        self._bury()
        return answer

    def _servicer(self, node: str) -> Controller | Node:
        if not node:
            side = self._world.controller
            return Controller(side.volumes, side.snapshots, self.topology_key)
        agent = self._world.agents[node]
        return Node(agent.staging, agent.publishing, agent.growing, node, self.topology_key)

    def _away(self, node: str) -> bool:
        """Tell the controller who is away. Who is about to come back isn't."""
        return not self.up(node) and node not in self._coming

    def up(self, node: str) -> bool:
        """Return whether a node's driver runs."""
        side = self._world.agents.get(node)
        return side is not None and not side.life.dead

    # deaths

    def arm(self, cut: Cut) -> None:
        """Let somebody die at an effect to come."""
        for who in cut.who:
            if who != CONTROLLER and not self.up(who):
                continue
            side = self._world.controller if who == CONTROLLER else self._world.agents[who]
            if who != CONTROLLER and cut.back:
                self._coming.add(who)
                side.life.on_death = partial(self._return, who)
            self._armed.append((who, side))
            life = side.life
            life.cut = (len(life.effects) + cut.effects, cut.when)

    def _return(self, node: str) -> None:
        """Start a node again from a thread of its own: who waits for it in a call may find it."""

        def restart() -> None:
            self._world.kill_agent(node)
            self._world.start_agent(node)

        self._returning[node] = threading.Thread(target=restart, name=f"return of {node}")
        self._returning[node].start()

    def _bury(self) -> None:
        """End what is left of who died, and let the others live.

        What an agent does after the answer belongs to the call as well: whether it dies there is no matter of speed.
        """
        armed, self._armed = self._armed, []
        for who, side in armed:
            wait_for(f"{who} is dead, or done", partial(_dead_or_done, side), Deadline(SECONDS))
            if side.life.spare():
                continue
            self._died = True
            if who == CONTROLLER:
                self._world.restart_controller()
            elif who in self._returning:
                self._returning.pop(who).join()
            else:
                self._world.kill_agent(who)
        self._coming.clear()

    def died(self) -> bool:
        """Return whether somebody died since this was asked last."""
        died, self._died = self._died, False
        return died

    def unsure(self) -> bool:
        """Return whether somebody who lives could not know what became of a write since this was asked last."""
        lives = [self._world.controller.life, *(side.life for side in self._world.agents.values())]
        unsure = any(life.unsure for life in lives)
        for life in lives:
            life.unsure = False
        return unsure

    def kill(self, node: str) -> None:
        """End a node's driver at once."""
        self._world.kill_agent(node)

    def stop(self, node: str) -> None:
        """End a node's driver in good order."""
        self._world.stop_agent(node)

    def start(self, node: str) -> None:
        """Start a node's driver."""
        self._world.start_agent(node)

    def restart_controller(self) -> None:
        """End the controller at once, and start another."""
        self._world.restart_controller()

    def reboot(self, node: str) -> None:
        """Take the power from a node."""
        self._world.kill_agent(node)
        self._world.machines[node].reboot()
        self._world.start_agent(node)

    def power_cut(self) -> None:
        """Take the power from all at once, the Store too: what it had not flushed is lost."""
        self._world.controller.kill()
        for node in tuple(self._world.agents):
            self._world.kill_agent(node)
        self.store.lose_power()
        for node in self.nodes:
            self._world.machines[node].reboot()
            self._world.start_agent(node)
        self._world.restart_controller()

    # looks

    def settle(self) -> None:
        """Wait until all is at rest, and the hints that pools publish are true."""
        wait_for("all is at rest", self._at_rest, Deadline(SECONDS))
        self.store.settle()

    def _at_rest(self) -> bool:
        sides = {node: side for node, side in self._world.agents.items() if self.up(node)}
        if not all(side.pools.opened() for side in sides.values()):
            return False
        records: list[A] = [*self.store.all(Volume), *self.store.all(Snapshot)]
        views = {node: self.view(node) for node in self.nodes}
        left = {node: side.pool().ledger.left() for node, side in sides.items()}
        hints = {pool.spec.node: pool.status.left for pool in self.store.all(Pool)}
        return (
            all(at_rest(record, views, self.up, left) for record in records)
            and all(hints[node] == left[node] for node in sides)
            and all(_done(side) for side in sides.values())
        )

    def view(self, node: str) -> View:
        """Look at a machine."""
        machine = self._world.machines[node]
        with machine.lock:
            images = {name: image.size for name, image in machine.pool.images.items()}
            devices, strays = self._devices(machine)
        return View(images, devices, tuple(strays))

    def _devices(self, machine: FakeMachine) -> tuple[dict[str, Up], list[str]]:
        strays = [f"frozen {path}" for path in machine.frozen]
        numbers = {device.dev: name for name, device in machine.pool.devices.items()}
        if machine.mapper:
            strays += [f"mapped {name}" for name in machine.mapped if name[7:] not in machine.pool.devices]
            strays += [f"suspended {name}" for name, one in machine.mapped.items() if one.suspended]
            numbers = {one.device.dev: name[7:] for name, one in machine.mapped.items()}
        nodes = {f"/{machine.node_of(dev).name}": name for dev, name in numbers.items()}
        shown: dict[str, set[Shown]] = {name: set() for name in machine.pool.devices}
        for mount in machine.mounts:
            raw = mount.dev == machine.dev_folder()
            name = nodes.get(mount.root) if raw else numbers.get(mount.dev)
            if name is None or name not in shown:
                strays.append(f"mount at {mount.target}")
            else:
                shown[name].add(Shown(str(mount.target), "ro" in mount.options, raw))
        limits = {name: machine.limits.get(dev, UNLIMITED) for dev, name in numbers.items()}
        strays += [f"limit on {dev}" for dev in machine.limits if dev not in numbers]
        sizes = {name: machine.size(dev) for dev, name in numbers.items()}
        return {
            name: Up(sizes.get(name, 0), limits.get(name), frozenset(where)) for name, where in shown.items()
        }, strays

    def folder(self, node: str) -> Path:
        """Return the machine's folder."""
        return self._world.machines[node].folder

    def contents(self, node: str) -> dict[str, dict[int, bytes]]:
        """Return all blocks but the one that mkfs writes."""
        images = self._world.machines[node].pool.images
        return {
            name: {at // 4096 - 1: data for at, data in image.data.items() if at != SUPERBLOCK}
            for name, image in images.items()
        }

    def write(self, node: str, path: Path, block: int, data: bytes) -> None:
        """Write as a pod does."""
        self._world.machines[node].write(path, block, data)

    def read(self, node: str, path: Path, block: int) -> bytes:
        """Read as a pod does."""
        return self._world.machines[node].read(path, block)

    def faults(self) -> list[str]:
        """Return what no driver may do."""
        return self._world.faults()

    def left(self, node: str) -> int | None:
        """Return what the ledger says."""
        return self._world.agents[node].pool().ledger.left()

    def close(self) -> None:
        """Stop everything."""
        self._world.close()


def _done(side: AgentSide) -> bool:
    """Return whether an agent does nothing now."""
    return side.agent.idle() and not side.life.busy()


def _dead_or_done(side: AgentSide | ControllerSide) -> bool:
    """Return whether nothing more comes of a call on one side; a controller is through when it has answered."""
    return side.life.dead or isinstance(side, ControllerSide) or _done(side)
