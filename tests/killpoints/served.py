"""The stand on a real server: it is killed, and what is there is seen by the kernel's word and the records'."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import grpc

from csi_driver.agent.agent import followed
from csi_driver.assemble import DATABASE
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Unknown
from csi_driver.host import mountinfo
from csi_driver.host.block import dev_number
from csi_driver.host.syscalls import FIFREEZE, FITHAW, Kernel
from csi_driver.records import Pool, Volume
from csi_driver.rpc import csi_pb2 as csi
from csi_driver.stack import PREFIX
from csi_driver.store.sqlite import SqliteStore
from qos.cgroup import MOUNTPOINT, Cgroup
from qos.limits import UNLIMITED, DevNo
from tests.killpoints.below import SYS, Images
from tests.killpoints.calls import CALL_SECONDS, Calls
from tests.killpoints.names import all_things, groups_made, promised
from tests.killpoints.orphans import end_orphans
from tests.killpoints.outcomes import RAW, VOLUMES
from tests.killpoints.stand import Cut, Mounted, Sight

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.killpoints.below import Below
    from tests.killpoints.fuse import Point
    from tests.killpoints.killable import Killable

SLICE = MOUNTPOINT / "sluice.slice"
IDLE_SECONDS = 20.0
DEATH_SECONDS = 20.0
LATE_SECONDS = 0.05
ORPHAN_SECONDS = 0.6
"""In which a program of a server that died gets anywhere, under emulation."""
HINT_SECONDS = 5.0


class Served(Calls):
    """A stand of a server that serves."""

    def __init__(self, server: Killable, *, enforced: bool, fs_type: str = "ext4", below: Below | None = None) -> None:
        super().__init__(server, fs_type)
        self._below = below or Images(server)
        self._sudden: random.Random | None = None
        self._enforced = enforced
        self._store = SqliteStore(server.folder / "state" / DATABASE)

    def close(self) -> None:
        """Let the records go."""
        self._store.close()

    @contextlib.contextmanager
    def orphans_dying(self, chosen: random.Random) -> Iterator[None]:
        """Have the programs of a server that dies end with it, or a moment later, while the body runs."""
        self._sudden = chosen
        try:
            yield
        finally:
            self._sudden = None

    def cut(self, call: Callable[[], None], point: Point | None) -> Cut:
        """Call once and have the server die at a point."""
        self.server.arm(point)
        answered = True
        with self._timed(point.seconds if point else 0.0):
            try:
                call()
            except grpc.RpcError:
                answered = False
                if not self.server.ended(DEATH_SECONDS):
                    raise
            if answered:
                wait_for("it is idle, or dead", lambda: self.server.ended() or self._idle(), Deadline(IDLE_SECONDS))
        self.server.disarm()
        died = self.server.ended() or self.server.ended(LATE_SECONDS if point else 0)
        if died and self._sudden:
            time.sleep(self._sudden.uniform(0, ORPHAN_SECONDS))
            end_orphans(self.server)
        return Cut(answered, died, tuple(self.server.effects()))

    @contextlib.contextmanager
    def _timed(self, seconds: float) -> Iterator[None]:
        """Kill the server so many seconds after the body has begun, unless it ends before; with 0.0 don't."""
        timer = threading.Timer(seconds, os.kill, (self.server.pid, signal.SIGKILL))
        if seconds:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if seconds:
                timer.join()

    def restart(self) -> None:
        """Begin another life."""
        self.server.start()

    def recover(self, point: Point) -> bool:
        """Begin another life, and have it die at a point of its recovery. Return whether it did."""
        self.server.arm(point)
        self.server.begin()
        wait_for("it is idle, or dead", lambda: self.server.ended() or self._idle(), Deadline(IDLE_SECONDS))
        self.server.disarm()
        if self.server.ended(LATE_SECONDS):
            return True
        self.server.stop(signal.SIGKILL)
        return False

    def settle(self) -> None:
        """Wait until every record is followed."""
        wait_for("every record is followed", self._idle, Deadline(IDLE_SECONDS))

    def _idle(self) -> bool:
        return all(map(followed, all_things(self._store).values()))

    def look(self) -> Sight:
        """Look at what is there."""
        records, mapped = all_things(self._store), _mapped()
        devices = self._devices(mapped)
        mounted = self._mounts(devices)
        noted = {record.id for record in records.values() if isinstance(record, Volume) and record.status.seen.staged}
        volumes = [record for record in records.values() if isinstance(record, Volume)]
        return Sight(
            volumes=self._listed(),
            snapshots=self._listed_snapshots(),
            groups=groups_made(records.values()),
            records=set(records),
            images=self._below.images(),
            temporary=self._below.temporary(),
            devices={name: self._limit(dev) for name, dev in devices.items()},
            up=set(mapped if self._enforced else devices),
            wanted={record.id: str(record.spec.qos.limits) for record in volumes},
            staged=noted if self._fs_type == RAW else mounted.staged,
            published=mounted.published,
            told={record.id for record in volumes if record.status.seen.device},
            noted=noted,
            strays=mounted.strays | self._below.strays(),
            promised=promised(records.values()),
            free=self._free(promised(records.values())),
        )

    def limits(self) -> set[str | None]:
        """Return the limits on what is staged."""
        devices = self._devices(_mapped())
        mounted = self._mounts(devices)
        return {self._limit(devices[name]) for name in mounted.staged | mounted.published}

    def _devices(self, mapped: dict[str, tuple[DevNo, bool]]) -> dict[str, DevNo]:
        """Return the uppermost device of each volume that has one."""
        return {**self._below.attached(), **{name: dev for name, (dev, _) in mapped.items()}}

    def frozen(self) -> set[str]:
        """Return mapped devices that are suspended, and file systems that are frozen."""
        suspended = {name for name, (_, state) in _mapped().items() if state} | self._below.suspended()
        return set(suspended or (str(path) for path in self._staging_mounts() if _is_frozen(path)))

    def _listed(self) -> dict[str, int]:
        answer = self.server.client.controller.ListVolumes(csi.ListVolumesRequest(), timeout=CALL_SECONDS)
        return {each.volume.volume_id: each.volume.capacity_bytes for each in answer.entries}

    def _listed_snapshots(self) -> set[str]:
        answer = self.server.client.controller.ListSnapshots(csi.ListSnapshotsRequest(), timeout=CALL_SECONDS)
        return {each.snapshot.snapshot_id for each in answer.entries}

    def _limit(self, dev: DevNo) -> str | None:
        return str(Cgroup(SLICE).read_limits().get(dev, UNLIMITED)) if self._enforced else None

    def _free(self, gone: int) -> int:
        """Return what the pool says is left, when that is what it has to be, or has been wrong for a while."""
        found: list[int] = []

        def right() -> bool:
            (pool,) = self._store.all(Pool)
            found[:] = [pool.status.left]
            return pool.status.left == int(pool.status.total * pool.spec.ratio) - gone

        try:
            wait_for("the pool says what is left", right, Deadline(HINT_SECONDS))
        except Unknown:
            return found[0]
        return found[0]

    def _staging_mounts(self) -> list[Path]:
        places = [mount.target for mount in mountinfo.all_mounts()]
        return [path for path in places if path.parent == self.server.folder / "staging"]

    def _mounts(self, devices: dict[str, DevNo]) -> Mounted:
        staging = {self.staging(name): self.volume_id(name) for name in VOLUMES}
        targets = {self.target(name): self.volume_id(name) for name in VOLUMES}
        below = (mount for mount in mountinfo.all_mounts() if self.server.folder in mount.target.parents)
        rest = [mount for mount in below if mount.target not in self._below.own]
        if self._fs_type != RAW:
            return Mounted.of(rest, staging, targets, devices)
        # A bare device is seen by its node, which is of another file system.
        shown = {mount.target: devices.get(targets.get(mount.target, "")) for mount in rest if mount.target.exists()}
        right = [mount for mount in rest if shown.get(mount.target) == dev_number(mount.target.stat().st_rdev)]
        published = {targets[mount.target] for mount in right}
        return Mounted(set(), published, {f"mount at {mount.target}" for mount in rest if mount not in right})


def _mapped() -> dict[str, tuple[DevNo, bool]]:
    """Return our mapped devices by record id: number, and whether it is suspended."""
    found = {}
    for device in (path for path in SYS.iterdir() if path.name.startswith("dm-")):
        name = (device / "dm/name").read_text().strip()
        if name.startswith(PREFIX):
            dev = DevNo.parse((device / "dev").read_text().strip())
            found[name.removeprefix(PREFIX)] = (dev, (device / "dm/suspended").read_text().strip() == "1")
    return found


def _is_frozen(path: Path) -> bool:
    """Return whether a file system is frozen: freezing it again fails."""
    kernel = Kernel()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        kernel.ioctl(fd, FIFREEZE, path=path)
        with contextlib.suppress(OSError):  # a dead man that had not yet fired has thawed it
            kernel.ioctl(fd, FITHAW, path=path)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise
    finally:
        os.close(fd)
    return False
