"""The world of this machine: a real server behind its socket, SQLite, loop devices; a death is a SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from csi_driver.assemble import DATABASE
from csi_driver.backends.loop import SUFFIX
from csi_driver.config import DRIVER_NAME
from csi_driver.deadline import Deadline, wait_for
from csi_driver.host import mountinfo
from csi_driver.host.block import SECTOR, dev_number
from csi_driver.host.mountinfo import is_read_only
from csi_driver.records import Pool, Snapshot, Volume
from csi_driver.rpc import csi_pb2 as csi
from csi_driver.store.sqlite import SqliteStore
from qos.limits import DevNo
from tests.killpoints.calls import SCOPE
from tests.killpoints.fuse import Point
from tests.states.driver import A, Answer, Code, Cut, Shown, Up, View
from tests.states.quiet import at_rest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qos.limits import Limits
    from tests.killpoints.killable import Killable

NODE = "node-a"
SYS, DEV = Path("/sys/block"), Path("/dev")
SECONDS = 20.0
BLOCK = 4096


class NativeDriver:
    """Be one server, controller and node in one: it is never away for long, and dies as a whole."""

    nodes: tuple[str, ...] = (NODE,)
    scope = SCOPE
    topology_key = f"{DRIVER_NAME}/node"
    enforces = False

    def __init__(self, server: Killable) -> None:
        self._server = server
        self.store = SqliteStore(server.folder / "state" / DATABASE)
        (pool,) = self.store.all(Pool)
        wait_for("the pool is published", lambda: bool(self.store.all(Pool)[0].status.total), Deadline(SECONDS))
        (pool,) = self.store.all(Pool)
        self.total = int(pool.status.total * pool.spec.ratio)
        self._armed = self._died = False
        self._read = self._kills = 0
        for folder in ("staging", "pods"):
            (server.folder / folder).mkdir(exist_ok=True)

    # calls

    def call(self, rpc: str, request: Any, node: str = "") -> Answer:  # noqa: ANN401 - any message
        """Call over the socket."""
        client, answer = self._server.client, Answer(None)
        try:
            answer = Answer(Code.OK, getattr(client.node if node else client.controller, rpc)(request, timeout=SECONDS))
        except grpc.RpcError as error:
            if not (self._armed and error.code() is Code.UNAVAILABLE and self._dead()):
                answer = Answer(error.code(), said=str(error.details()))
        if self._armed:
            self._armed = False
            self._server.disarm()
            if self._dead():
                self._died = True
                self._server.start()
        return answer

    def _dead(self) -> bool:
        """Return whether the server is dead, which its parent may hear of later than its callers."""
        if not self._server.ended():
            try:
                self._server.client.identity.Probe(csi.ProbeRequest(), timeout=SECONDS)
            except grpc.RpcError:
                assert self._server.ended(SECONDS)
        return self._server.ended()

    def arm(self, cut: Cut) -> None:
        """Let the server die at an effect to come."""
        self._server.arm(Point(cut.effects + 1, "before" if cut.when == "before" else "after"))
        self._armed = True

    def died(self) -> bool:
        """Return whether it died since this was asked last."""
        died, self._died = self._died, False
        return died

    def unsure(self) -> bool:
        """Return that who writes to this Store knows."""
        return False

    def up(self, node: str) -> bool:  # noqa: ARG002 - there is one
        """Return that it runs: whenever it died, it was started again."""
        return True

    def kill(self, node: str) -> None:  # noqa: ARG002
        """Kill it, and start it again; only each third time, for a start takes as long as thirty calls."""
        self._kills += 1
        if self._kills % 3 == 0:
            self._server.stop(signal.SIGKILL)
            self._server.start()

    def stop(self, node: str) -> None:  # noqa: ARG002
        """Stop it in good order, and start it again."""
        assert self._server.stop() == 0
        self._server.start()

    def start(self, node: str) -> None:
        """Do nothing: it runs."""

    def restart_controller(self) -> None:
        """Kill it, and start it again."""
        self.kill(NODE)

    def reboot(self, node: str) -> None:
        """Refuse: this machine is not ours to reboot."""
        raise NotImplementedError

    # looks

    def settle(self) -> None:
        """Wait until all is at rest, and the pool's hint is true."""
        wait_for("all is at rest", self._at_rest, Deadline(SECONDS))

    def _at_rest(self) -> bool:
        records: list[A] = [*self.store.all(Volume), *self.store.all(Snapshot)]
        promised = sum(record.status.history.size for record in records if not record.status.history.gone)
        (pool,) = self.store.all(Pool)
        views, left = {NODE: self.view(NODE)}, self.total - promised
        return pool.status.left == left and all(at_rest(record, views, self.up, {NODE: left}) for record in records)

    def view(self, node: str) -> View:  # noqa: ARG002
        """Look at the pool, at devices and mounts."""
        sizes, devices, strays = self._bytes()
        shown, limits = self._shown(devices, strays), self._limits(devices)
        ups = {
            name: Up(int((path / "size").read_text()) * SECTOR, limits.get(name), shown[name])
            for name, path in devices.items()
        }
        return View(sizes, ups, tuple(strays))

    def _bytes(self) -> tuple[dict[str, int], dict[str, Path], list[str]]:
        """Return the sizes of what is in the pool, volumes' devices in sysfs, and what belongs to none."""
        images = self._server.pool / "pool" / "images"
        sizes = {path.stem: path.stat().st_size for path in images.glob(f"*{SUFFIX}")}
        strays = [f"half-made {path}" for path in (self._server.pool / "pool" / "new").iterdir()]
        devices: dict[str, Path] = {}
        for name, path in _bound():
            if path.parent == images:
                devices[path.name.removesuffix(SUFFIX)] = SYS / name
            elif self._server.folder in path.parents and path != self._server.pool / "pool.xfs":
                strays.append(f"loop device {name} of {path}")
        return sizes, devices, strays

    def _limits(self, devices: dict[str, Path]) -> dict[str, Limits]:  # noqa: ARG002 - no limits, of any
        """Return the limits in force."""
        return {}

    def _shown(self, devices: dict[str, Path], strays: list[str]) -> dict[str, frozenset[Shown]]:
        """Return where each device is mounted or shown; note the mounts that belong to none."""
        numbers = {DevNo.parse((path / "dev").read_text().strip()): name for name, path in devices.items()}
        roots = {f"/{path.name}": name for name, path in devices.items()}
        shown: dict[str, set[Shown]] = {name: set() for name in devices}
        nodes = dev_number(DEV.stat().st_dev)
        for mount in mountinfo.all_mounts():
            if self._server.folder not in mount.target.parents or mount.target == self._server.pool / "pool":
                continue
            raw = mount.dev == nodes
            name = roots.get(mount.root) if raw else numbers.get(mount.dev)
            if name is None:
                strays.append(f"mount at {mount.target}")
            else:
                shown[name].add(Shown(str(mount.target), is_read_only(mount), raw))
        return {name: frozenset(where) for name, where in shown.items()}

    def folder(self, node: str) -> Path:  # noqa: ARG002
        """Return the server's folder."""
        return self._server.folder

    def contents(self, node: str) -> None:
        """Tell nothing: only pods see into their volumes."""

    def write(self, node: str, path: Path, block: int, data: bytes) -> None:  # noqa: ARG002
        """Write a file of a mounted volume, or a block of a device, and flush it."""
        told = bytes([len(data)]) + data
        raw = path.is_block_device()
        fd = os.open(
            path if raw else path / f"block-{block}", os.O_RDWR | (0 if raw else os.O_CREAT | os.O_TRUNC), 0o600
        )
        try:
            os.pwrite(fd, told.ljust(BLOCK, b"\0"), block * BLOCK if raw else 0)
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self, node: str, path: Path, block: int) -> bytes:  # noqa: ARG002
        """Read it back."""
        raw = path.is_block_device()
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path if raw else path / f"block-{block}", os.O_RDONLY)
            try:
                told = os.pread(fd, BLOCK, block * BLOCK if raw else 0)
            finally:
                os.close(fd)
            return told[1 : 1 + told[0]]
        return b""

    def faults(self) -> list[str]:
        """Return the log's new lines that tell of a bug."""
        with self._server.log.open() as log:
            log.seek(self._read)
            lines = log.read().splitlines()
            self._read = log.tell()
        return [line for line in lines if "] bug" in line or "Traceback" in line]

    def left(self, node: str) -> None:
        """Tell nothing: GetCapacity does."""

    def close(self) -> None:
        """Let go of the records; the server goes on."""
        self.store.close()


def _bound() -> Iterator[tuple[str, Path]]:
    """Yield the loop devices that have a file, with its path. There may be hundreds that have none."""
    for name in os.listdir(SYS):  # noqa: PTH208 - names are all that is wanted
        if name.startswith("loop"):
            with contextlib.suppress(OSError), open(f"{SYS}/{name}/loop/backing_file", "rb") as file:  # noqa: PTH123
                yield name, Path(os.fsdecode(file.read()).rstrip("\n"))
