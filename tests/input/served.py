"""The driver's handlers behind its interceptor and a real socket, on a fake machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline, wait_for
from csi_driver.groups import GroupSnapshot
from csi_driver.records import GIB, Snapshot, Volume
from csi_driver.rpc.controller import Controller
from csi_driver.rpc.group import Group
from csi_driver.rpc.identity import Identity
from csi_driver.rpc.node import Node
from csi_driver.rpc.server import Server
from csi_driver.store.sqlite import SqliteStore
from tests.fakes.world import SCOPE, World
from tests.input.stand import KEY, SECONDS, Stand, ids_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODE = "n1"
IDS = ids_in(SCOPE)


class Served(Stand):
    """Hold the server and the machine below it."""

    def __init__(self, folder: Path) -> None:
        self.world = World(SqliteStore(folder / "sluice.db"), (NODE,), total=100 * GIB, away_after=60)
        side, socket = self.world.agents[NODE], folder / "made" / "csi.sock"
        self.server = Server(
            f"unix://{socket}",
            lambda *_: None,
            Identity("csi.sluice.dev", "1", lambda: True),
            Controller(self.world.controller.volumes, self.world.controller.snapshots, KEY),
            Node(side.staging, side.publishing, side.growing, NODE, KEY),
            Group(self.world.controller.groups),
        )
        self.server.start()
        super().__init__(self.world.folder, socket, SCOPE, NODE)

    def close(self) -> None:
        """Stop everything."""
        self.channel.close()
        self.server.stop()
        self.world.close()

    def quiet(self) -> None:
        """Wait until no call runs, also of those whose callers are gone."""
        pool = self.server._intercept._pools["controller"]
        idle = pool._idle_semaphore
        wait_for("all calls have ended", lambda: idle._value == len(pool._threads), Deadline(SECONDS))

    def state(self) -> list[str]:
        """Return what the Store, the folders and the fake machine hold."""
        store = self.world.store
        records: list[Volume | Snapshot | GroupSnapshot] = [*store.all(Volume), *store.all(Snapshot)]
        records += store.all(GroupSnapshot)
        found = [f"{one.KIND} {one.id} {one.spec} {one.status.history}" for one in records]
        found += [f"{path} {path.lstat().st_mode:o}" for path in sorted(self.folder.rglob("*"))]
        return found + self.world.machines[NODE].things()

    def shown(self) -> Iterator[tuple[str, str]]:
        """Ask the fake machine."""
        machine = self.world.machines[NODE]
        for name, mapped in list(machine.mapped.items()):
            for mount in list(machine.mounts):
                if mount.dev == mapped.device.dev or mount.root == f"/{mapped.device.path.name}":
                    yield name.removeprefix("sluice-"), str(mount.target)

    def made(self) -> tuple[set[str], dict[str, str]]:
        """Ask the Store."""
        store = self.world.store
        snapshots = {record.id: record.spec.group for record in store.all(Snapshot)}
        return {record.id for record in store.all(Volume)}, snapshots
