"""The stand in memory: one process is played, on a fake machine and a hostile Store, and dies by an exception."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from csi_driver.agent.agent import followed
from csi_driver.controller.requests import SizeRange, VolumeRequest
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import StorageError
from csi_driver.node.uses import Use
from csi_driver.records import Snapshot, Source, Volume
from csi_driver.rpc.status import code_of
from csi_driver.stack import PREFIX
from csi_driver.store.hostile import HostileStore, Malice
from qos.limits import UNLIMITED
from tests.fakes.life import Killed, Life
from tests.fakes.world import SCOPE, World, controller_side
from tests.killpoints.calls import GOES_ON
from tests.killpoints.fuse import Fuse
from tests.killpoints.names import Names, all_things, groups_made, promised
from tests.killpoints.outcomes import IOPS, SIZES, VOLUMES
from tests.killpoints.stand import Cut, Mounted, Sight

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import grpc

    from qos.limits import DevNo
    from tests.fakes.machine import FakeMachine
    from tests.fakes.world import AgentSide
    from tests.killpoints.fuse import Point

NODE = "n1"
CALL_SECONDS = 20.0
PATIENCE_SECONDS = 20.0
IDLE_SECONDS = 10.0
PIECE = 4096
MALICE = Malice(delay=0.0, skip=0.0, silence=0.0)
"""Lists are stale and watches repeat themselves; nothing is slow, for there is much to do."""


class Played(Names):
    """A stand of objects in this process: a controller and a node that share one life."""

    scope = SCOPE
    size = SIZES["ext4"]

    def __init__(self, seed: int, *, mapper: bool) -> None:
        self._passed: list[tuple[int, str, str]] = []
        self._fuse = Fuse(self._die, self._note)
        self._fuse.disarm()
        self._life = Life(self._fuse)
        self._world = World(HostileStore(seed, MALICE), (NODE,), mapper=mapper)
        for name in VOLUMES:
            self._staging(name).mkdir(parents=True)
            self._target(name).parent.mkdir(parents=True)
        self._world.kill_agent(NODE)
        self._begin()

    def close(self) -> None:
        """End it, and see that it did nothing that no driver may do."""
        faults = self._world.faults()
        self._world.close()
        assert faults == []

    @property
    def _machine(self) -> FakeMachine:
        return self._world.machines[NODE]

    @property
    def _node(self) -> AgentSide:
        return self._world.agents[NODE]

    def _die(self) -> None:
        self._life.kill()

    def _note(self, line: str) -> None:
        number, when, name = line.split(" ", 2)
        self._passed.append((int(number), when, name))

    def _begin(self) -> None:
        self._world.controller.kill()
        self._life = Life(self._fuse)
        self._world.controller = controller_side(self._world.store, life=self._life)
        self._world.start_agent(NODE, self._life)

    # calls

    def _staging(self, name: str) -> Path:
        return self._world.folder / "staging" / name

    def _target(self, name: str) -> Path:
        return self._world.folder / "pods" / name / "volume"

    def create(self, name: str, source: str = "", *, snapshot: bool = False) -> None:
        """Create a volume, from the volume or snapshot of a name if one is given."""
        kind, named = (Snapshot, self.snapshot_id) if snapshot else (Volume, self.volume_id)
        request = VolumeRequest(
            name,
            SizeRange(self.size),
            parameters={"tier": "standard"},
            mutable={"readIOPS": str(IOPS)},
            source=Source(kind.KIND, named(source)) if source else None,
            fs_type="ext4",
        )
        record = self._world.controller.volumes.create(request, Deadline(CALL_SECONDS))
        assert (record.id, record.status.history.size) == (self.volume_id(name), self.size)

    def delete(self, name: str) -> None:
        """Delete a volume by the id that follows from its name."""
        self._world.controller.volumes.delete(self.volume_id(name), Deadline(CALL_SECONDS))

    def stage(self, name: str) -> None:
        """Stage a volume."""
        use = Use(fs_type="ext4")
        self._node.staging.stage(self.volume_id(name), self._staging(name), use, Deadline(CALL_SECONDS))

    def unstage(self, name: str) -> None:
        """Unstage a volume."""
        self._node.staging.unstage(self.volume_id(name), self._staging(name), Deadline(CALL_SECONDS))

    def publish(self, name: str) -> None:
        """Publish a volume."""
        use = Use(fs_type="ext4")
        self._node.publishing.publish(self.volume_id(name), self._staging(name), self._target(name), use)

    def unpublish(self, name: str) -> None:
        """Unpublish a volume."""
        self._node.publishing.unpublish(self.volume_id(name), self._target(name), Deadline(CALL_SECONDS))
        assert not self._target(name).exists()

    def snapshot(self, name: str, volume: str) -> None:
        """Make a snapshot."""
        snapshots = self._world.controller.snapshots
        assert snapshots.create(name, self.volume_id(volume), {}, Deadline(CALL_SECONDS)).status.history.made

    def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot by the id that follows from its name."""
        self._world.controller.snapshots.delete(self.snapshot_id(name), Deadline(CALL_SECONDS))

    def group(self, name: str, *volumes: str) -> None:
        """Make a group snapshot."""
        ids = [self.volume_id(volume) for volume in volumes]
        _, members = self._world.controller.groups.create(name, ids, {}, Deadline(CALL_SECONDS))
        assert len(members) == len(volumes)

    def delete_group(self, name: str, *volumes: str) -> None:
        """Delete a group snapshot by the ids that follow from names."""
        members = [self.snapshot_id(self.member(name, volume)) for volume in volumes]
        self._world.controller.groups.delete(self.group_id(name), members, Deadline(CALL_SECONDS))

    def expand(self, name: str, size: int) -> None:
        """Grow a volume's bytes and device."""
        self._world.controller.volumes.expand(self.volume_id(name), SizeRange(size), Deadline(CALL_SECONDS))

    def expand_on_node(self, name: str, size: int) -> None:
        """Grow a published volume's file system."""
        grown = self._node.growing.expand(self.volume_id(name), self._target(name), size, Deadline(CALL_SECONDS))
        assert grown == size

    def modify(self, name: str, iops: int) -> None:
        """Give a volume another limit."""
        self._world.controller.volumes.modify(self.volume_id(name), {"readIOPS": str(iops)}, Deadline(CALL_SECONDS))

    def write(self, name: str, data: bytes) -> None:
        """Write a pod's data to a published volume; their length is written first, in a piece of its own."""
        pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
        for block, piece in enumerate([str(len(data)).encode(), *pieces]):
            self._machine.write(self._target(name), block, piece)

    def read(self, name: str) -> bytes:
        """Return a pod's data, b"" when there are none."""
        length = int(self._machine.read(self._target(name), 0) or b"0")
        pieces = range(1, -(-length // PIECE) + 1)
        return b"".join(self._machine.read(self._target(name), block) for block in pieces)

    def room(self, name: str) -> int:
        """Return the size of a published volume as its pod sees it, in bytes."""
        usage = self._node.growing.stats(self.volume_id(name), self._target(name)).usage
        assert usage is not None
        return usage.total_bytes

    def patiently(self, call: Callable[[], None]) -> None:
        """Call, and call again for as long as the answer is one after which sidecars go on asking."""
        last: list[str] = []

        def done() -> bool:
            try:
                call()
            except StorageError as error:
                code: grpc.StatusCode = code_of("", error)
                if code not in GOES_ON:
                    raise
                last[:] = [f"{code}: {error}"]
                return False
            return True

        wait_for(f"it was done; the last answer was {last}", done, Deadline(PATIENCE_SECONDS))

    # cuts

    def cut(self, call: Callable[[], None], point: Point | None) -> Cut:
        """Call once and have the process die at a point."""
        self._passed.clear()
        self._fuse.arm(point)
        answered = False
        with contextlib.suppress(Killed):
            call()
            answered = True
        if answered:
            wait_for("it is idle, or dead", lambda: self._life.dead or self._idle(), Deadline(IDLE_SECONDS))
        self._fuse.disarm()
        return Cut(answered, self._life.dead, tuple(self._passed))

    def restart(self) -> None:
        """Begin another life."""
        if NODE in self._world.agents:  # else it died at its start
            self._world.kill_agent(NODE)
        self._begin()

    def recover(self, point: Point) -> bool:
        """Begin another life, and have it die at a point of its recovery. Return whether it did."""
        self._fuse.arm(point)
        with contextlib.suppress(Killed):
            self.restart()
        wait_for("it is idle, or dead", lambda: self._life.dead or self._idle(), Deadline(IDLE_SECONDS))
        self._fuse.disarm()
        died = self._life.dead
        self._die()
        return died

    def settle(self) -> None:
        """Wait until every record is followed."""
        wait_for("every record is followed", self._idle, Deadline(IDLE_SECONDS))

    def _idle(self) -> bool:
        return all(map(followed, all_things(self._world.store).values())) and self._node.agent.idle()

    # looks

    def look(self) -> Sight:
        """Look at what is there."""
        assert isinstance(self._world.store, HostileStore)
        self._world.store.settle()
        records, machine = all_things(self._world.store), self._machine
        loops, mapped = self._devices()
        devices = {**loops, **mapped}
        volumes = [record for record in records.values() if isinstance(record, Volume)]
        mounted = self._mounts(devices)
        listed, _ = self._world.controller.volumes.page("", 0)
        cuts, _ = self._world.controller.snapshots.page("", 0)
        return Sight(
            volumes={record.id: record.status.history.size for record in listed},
            snapshots={record.id for record in cuts},
            groups=groups_made(records.values()),
            records=set(records),
            images=set(machine.pool.images),
            temporary=set(),
            devices={name: self._limit(dev) for name, dev in devices.items()},
            up=set(mapped) if machine.mapper else set(loops),
            wanted={record.id: str(record.spec.qos.limits) for record in volumes},
            staged=mounted.staged,
            published=mounted.published,
            told={record.id for record in volumes if record.status.seen.device},
            noted={record.id for record in volumes if record.status.seen.staged},
            strays=mounted.strays,
            promised=promised(records.values()),
            free=self._node.pool().ledger.left(),
        )

    def limits(self) -> set[str | None]:
        """Return the limits on what is staged."""
        loops, mapped = self._devices()
        devices = {**loops, **mapped}
        return {self._limit(devices[name]) for name in self._mounts(devices).staged}

    def _limit(self, dev: DevNo) -> str:
        return str(self._machine.limits.get(dev, UNLIMITED))

    def _devices(self) -> tuple[dict[str, DevNo], dict[str, DevNo]]:
        """Return volumes' loop devices and mapped devices."""
        loops = {name: device.dev for name, device in self._machine.pool.devices.items()}
        mapped = {name.removeprefix(PREFIX): one.device.dev for name, one in self._machine.mapped.items()}
        return loops, mapped

    def frozen(self) -> set[str]:
        """Return what is frozen or suspended."""
        suspended = {name for name, one in self._machine.mapped.items() if one.suspended}
        return suspended | self._machine.frozen

    def _mounts(self, devices: dict[str, DevNo]) -> Mounted:
        staging = {self._staging(name): self.volume_id(name) for name in VOLUMES}
        targets = {self._target(name): self.volume_id(name) for name in VOLUMES}
        return Mounted.of(self._machine.mounts, staging, targets, devices)
