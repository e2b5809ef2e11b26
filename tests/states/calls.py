"""CSI's calls on volumes and snapshots that have names instead of ids."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from csi_driver.rpc import csi_pb2 as csi
from tests.states.asking import ASKS, CLASSES, USES, Ask, Use
from tests.states.driver import Code
from tests.states.frame import Call, Frame
from tests.states.things import PENDING, Thing

if TYPE_CHECKING:
    from pathlib import Path

VOLUMES, SNAPSHOTS = ("v0", "v1", "v2"), ("s0", "s1")
NOTHING, THERE, STAGED, PUBLISHED = range(4)
"""How far a volume is brought before a call, so that most calls make sense."""


class Calls(Frame):
    """Make calls; each is checked as `run` checks it."""

    file_system: ClassVar[str] = ""
    """What every mounted volume is asked to be, "" for what its ask and its class say."""

    def way(self, use: Use) -> Use:
        """Return a use as this world can have it."""
        return use if use.block or not self.file_system else replace(use, fs=self.file_system)

    def bring(self, name: str, level: int) -> None:
        """Bring a volume as far as that, by ordinary calls, where its node runs."""
        if level >= THERE and self.model.volume(name) is None:
            self.make(name, ASKS["plain"])
        if level >= STAGED and (thing := self.model.volume(name)) and not thing.staged:
            self.mount(name)
        if level >= PUBLISHED and (thing := self.model.volume(name)) and thing.up and not self.pods(thing):
            self.show(name, self.form(thing))

    def form(self, thing: Thing) -> Use:
        """Return how a staged volume can be published."""
        return USES["mounted" if self.node_model.staged(thing) else "a device"]

    @staticmethod
    def pods(thing: Thing) -> list[str]:
        """Return the paths at which pods have a volume."""
        return sorted(one.path for one in (thing.up.shown if thing.up else ()) if "/pods/" in one.path)

    # the controller's

    def make(self, name: str, ask: Ask, how: str = "once") -> None:
        """CreateVolume."""
        ask = replace(ask, use=self.way(ask.use))
        source_id = self.model.id(*ask.source) if ask.source else ""
        request = ask.message(name, source_id, self.driver.topology_key, self.driver.nodes)
        self.run(Call("CreateVolume", ("volume", name), lambda: self.model.create(name, ask), request), how)

    def free(self, name: str, how: str = "once") -> None:
        """DeleteVolume."""
        key = ("volume", name)
        request = csi.DeleteVolumeRequest(volume_id=self.model.id(*key))
        self.run(Call("DeleteVolume", key, lambda: self.model.delete(key), request), how)

    def enlarge(self, name: str, size: int, limit: int, how: str = "once") -> None:
        """ControllerExpandVolume."""
        request = csi.ControllerExpandVolumeRequest(volume_id=self.model.id("volume", name))
        request.capacity_range.required_bytes, request.capacity_range.limit_bytes = size, limit
        key = ("volume", name)
        self.run(Call("ControllerExpandVolume", key, lambda: self.model.expand(name, size, limit), request), how)

    def reclass(self, name: str, mutable: str, how: str = "once") -> None:
        """ControllerModifyVolume."""
        given, key = CLASSES[mutable], ("volume", name)
        request = csi.ControllerModifyVolumeRequest(volume_id=self.model.id(*key), mutable_parameters=given)
        self.run(Call("ControllerModifyVolume", key, lambda: self.model.modify(name, given), request), how)

    def copy(self, name: str, volume: str, how: str = "once") -> None:
        """CreateSnapshot."""
        request = csi.CreateSnapshotRequest(name=name, source_volume_id=self.model.id("volume", volume))
        self.run(Call("CreateSnapshot", ("snapshot", name), lambda: self.model.cut(name, volume), request), how)

    def drop(self, name: str, how: str = "once") -> None:
        """DeleteSnapshot."""
        key = ("snapshot", name)
        request = csi.DeleteSnapshotRequest(snapshot_id=self.model.id(*key))
        self.run(Call("DeleteSnapshot", key, lambda: self.model.delete(key), request), how)

    # the node's

    def node_of(self, name: str, elsewhere: int = 0) -> str:
        """Return the node that a volume is on, or another."""
        thing = self.model.volume(name)
        at = self.driver.nodes.index(thing.node) if thing else 0
        return self.driver.nodes[(at + elsewhere) % len(self.driver.nodes)]

    def place(self, node: str, kind: str, name: str, number: int) -> Path:
        """Return a path as kubelet would name it."""
        return self.driver.folder(node) / kind / f"{name}-{number}"

    def mount(self, name: str, use: str = "mounted", number: int = 0, elsewhere: int = 0, how: str = "once") -> None:
        """NodeStageVolume."""
        node, way = self.node_of(name, elsewhere), self.way(USES[use])
        path = self.place(node, "staging", name, number)
        path.mkdir(exist_ok=True)
        request = csi.NodeStageVolumeRequest(
            volume_id=self.model.id("volume", name), staging_target_path=str(path), volume_capability=way.message()
        )
        key = ("volume", name)
        self.run(Call("NodeStageVolume", key, lambda: self.node_model.stage(node, name, path, way), request, node), how)

    def unmount(self, name: str, number: int = 0, elsewhere: int = 0, how: str = "once") -> None:
        """NodeUnstageVolume."""
        node, key = self.node_of(name, elsewhere), ("volume", name)
        path = self.place(node, "staging", name, number)
        request = csi.NodeUnstageVolumeRequest(volume_id=self.model.id(*key), staging_target_path=str(path))
        self.run(Call("NodeUnstageVolume", key, lambda: self.node_model.unstage(node, name, path), request, node), how)

    def show(
        self,
        name: str,
        use: Use = USES["mounted"],
        numbers: tuple[int, int] = (0, 0),
        how: str = "once",
        *,
        ro: bool = False,
    ) -> None:
        """NodePublishVolume, from one of two staging paths to one of two targets."""
        node, way = self.node_of(name), self.way(use)
        staging, target = self.place(node, "staging", name, numbers[0]), self.place(node, "pods", name, numbers[1])
        request = csi.NodePublishVolumeRequest(
            volume_id=self.model.id("volume", name),
            staging_target_path=str(staging),
            target_path=str(target),
            volume_capability=way.message(),
            readonly=ro,
        )
        key, paths = ("volume", name), (staging, target)
        foreseen = self.node_model.publish
        self.run(Call("NodePublishVolume", key, lambda: foreseen(node, name, paths, way, ro), request, node), how)

    def hide(self, name: str, number: int = 0, of: str = "", how: str = "once") -> None:
        """NodeUnpublishVolume, with its own path or another volume's."""
        node, key = self.node_of(name), ("volume", name)
        target = self.place(node, "pods", of or name, number)
        request = csi.NodeUnpublishVolumeRequest(volume_id=self.model.id(*key), target_path=str(target))
        call = Call("NodeUnpublishVolume", key, lambda: self.node_model.unpublish(node, name, target), request, node)
        if self.run(call, how).code is Code.OK:
            assert not target.exists()

    def grow_and_measure(self, name: str, kind: str, number: int, required: int) -> None:
        """NodeExpandVolume and NodeGetVolumeStats."""
        node, key = self.node_of(name), ("volume", name)
        path, volume_id = self.place(node, kind, name, number), self.model.id(*key)
        request = csi.NodeExpandVolumeRequest(volume_id=volume_id, volume_path=str(path))
        if required:
            request.capacity_range.required_bytes = required
        grow = self.node_model.grow
        grown = self.run(Call("NodeExpandVolume", key, lambda: grow(node, name, path, required), request, node))
        stats = csi.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=str(path))
        told = self.run(Call("NodeGetVolumeStats", key, lambda: self.node_model.stats(node, name, path), stats, node))
        thing = self.model.volume(name)
        if thing and told.code is Code.OK:
            assert not told.message.volume_condition.abnormal, told.message
            assert grown.code is not Code.OK or grown.message.capacity_bytes == thing.size

    # a pod's

    def fill(self, name: str, block: int, data: bytes) -> None:
        """Write into a published volume, and read all back."""
        thing = self.model.volume(name)
        if thing is None or thing.up is None:
            return
        for one in sorted(thing.up.shown, key=lambda one: one.path):
            if "/pods/" in one.path and not one.read_only:
                path = self.place(thing.node, "pods", name, int(one.path[-1]))
                self.trail.append(f"write {data!r} to block {block} of {name}")
                self.driver.write(thing.node, path, block, data)
                blocks = self.model.contents[thing.id]
                blocks[block] = data
                assert {at: self.driver.read(thing.node, path, at) for at in blocks} == blocks
                return

    # one after another

    def further(self, name: str, ask: str, use: str, how: str) -> None:
        """Do what comes next in the life of a volume."""
        thing = self.model.volume(name)
        if thing is None or thing.phase in PENDING:
            self.make(name, ASKS[ask], how)
        elif not thing.staged:
            self.mount(name, use, how=how)
        elif not self.pods(thing):
            self.show(name, self.form(thing), how=how)
        elif not self.model.contents[thing.id]:
            self.fill(name, 0, name.encode())
        elif self.model.snapshot(SNAPSHOTS[0]) is None:
            self.copy(SNAPSHOTS[0], name, how)
        else:
            self.enlarge(name, 2 * thing.size, 0, how)

    def back(self, name: str, how: str = "once") -> None:
        """Do what comes next in the end of a volume."""
        thing = self.model.volume(name)
        if thing and self.pods(thing):
            self.hide(name, int(self.pods(thing)[0][-1]), how=how)
        elif thing and thing.up:
            staged = self.node_model.staged(thing)
            self.unmount(name, int(staged[0][-1]) if staged else 0, how=how)
        else:
            self.free(name, how)

    def unused(self, name: str) -> None:
        """Take a volume away from all pods and from its node, where that runs."""
        thing = self.model.volume(name)
        while thing and thing.up and self.driver.up(thing.node):
            self.back(name)
            thing = self.model.volume(name)

    def take_down(self) -> None:
        """Take everything down."""
        for name in VOLUMES:
            while self.model.volume(name):
                self.back(name)
        for name in SNAPSHOTS:
            while self.model.snapshot(name):
                self.drop(name)
