"""What the node's calls must answer, and what must be so afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from csi_driver.parameters import SMALLEST
from tests.states.driver import Code, Shown, Up
from tests.states.model import Expect, Model, only
from tests.states.things import MADE, Thing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.states.asking import Use


class NodeModel:
    """Foresee the calls of nodes, from the model of what is there."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def on(self, node: str, name: str) -> Thing | None:
        """Return a volume of which something is up on a node."""
        now = self._model.volume(name)
        return now if now is not None and now.up is not None and now.node == node else None

    def stage(self, node: str, name: str, path: Path, use: Use) -> Expect:
        """Foresee NodeStageVolume."""
        now = self._model.volume(name)
        if now is None or now.phase != MADE or now.node != node:
            return only(Code.NOT_FOUND)
        fs = use.fs or now.done or now.fs
        if not use.block and (now.done not in {"", fs} or (not now.done and now.size < SMALLEST[fs])):
            return only(Code.INVALID_ARGUMENT)
        if any(one.raw != use.block for one in (now.up.shown if now.up else ())):
            return only(Code.ALREADY_EXISTS)
        if use.block:
            return only(Code.OK, self._brought_up(replace(now, raw=True)))
        return self._mounted(now, Shown(str(path), "ro" in use.flags), fs)

    def _mounted(self, now: Thing, here: Shown, fs: str) -> Expect:
        """Foresee the stage of a file system: mkfs only where nobody can have written."""
        there = next((one for one in (now.up.shown if now.up else ()) if one.path == here.path), None)
        if there:
            return only(Code.OK if here.read_only or not there.read_only else Code.UNAVAILABLE, self._brought_up(now))
        if self.staged(now):
            return only(Code.FAILED_PRECONDITION)
        staged = self._brought_up(now if now.done else replace(now, begun=fs, done=fs), here)
        written = bool(self._model.contents.get(now.id))
        if now.done or not (written or (now.begun and now.raw)):
            return only(Code.OK, staged)
        # A cut mkfs and then a pod: what stands there is known to nobody, and zeros only if mkfs did not begin.
        return Expect(frozenset({Code.UNAVAILABLE, *(() if written else (Code.OK,))}), staged)

    def _brought_up(self, now: Thing, *more: Shown) -> Thing:
        shown = now.up.shown if now.up else frozenset()
        up = Up(now.size, self._model.limits(now.qos), shown | {*more})
        return replace(now, up=up)

    def staged(self, now: Thing) -> list[str]:
        """Return where a volume is staged."""
        folder = str(self._model.driver.folder(now.node) / "staging")
        return [one.path for one in (now.up.shown if now.up else ()) if one.path.startswith(folder)]

    def unstage(self, node: str, name: str, path: Path) -> Expect:
        """Foresee NodeUnstageVolume."""
        now = self.on(node, name)
        if now is None or now.up is None:
            return only(Code.OK)
        if any(one.path != str(path) for one in now.up.shown):
            return only(Code.FAILED_PRECONDITION)
        return only(Code.OK, replace(now, up=None))

    def publish(self, node: str, name: str, paths: tuple[Path, Path], use: Use, read_only: bool) -> Expect:
        """Foresee NodePublishVolume."""
        staging, target = paths
        now = self.on(node, name)
        if now is None or now.up is None or not now.up.size:
            known = self._model.volume(name) is not None
            return only(Code.FAILED_PRECONDITION if known else Code.NOT_FOUND)
        shown = now.up.shown
        staged = any(one.path == str(staging) for one in shown)
        read_only = read_only or any(one.read_only for one in shown if one.path == str(staging))
        # What a cut stage left is not staged as a device: a pod's bytes there would be no bar to an mkfs.
        if use.block == staged or (use.block and not now.raw) or any(one.raw != use.block for one in shown):
            return only(Code.FAILED_PRECONDITION)
        pods = [one for one in shown if one.path != str(staging)]
        if same := next((one for one in pods if one.path == str(target)), None):
            return only(Code.OK if same.read_only == read_only else Code.ALREADY_EXISTS)
        if pods and not use.shared:
            return only(Code.FAILED_PRECONDITION)
        if target.exists() and target.is_dir() == use.block:  # left by a cut publish, or a reboot, in the other form
            return only(Code.INVALID_ARGUMENT)
        more = Shown(str(target), read_only, use.block)
        up = replace(now.up, shown=shown | {more})
        return only(Code.OK, replace(now, up=up))

    def unpublish(self, node: str, name: str, target: Path) -> Expect:
        """Foresee NodeUnpublishVolume."""
        for thing in self._model.things.values():
            if thing.node == node and thing.up and any(one.path == str(target) for one in thing.up.shown):
                if thing.id != self._model.id("volume", name):
                    return only(Code.INVALID_ARGUMENT)
                rest = frozenset(one for one in thing.up.shown if one.path != str(target))
                gone = replace(thing, up=replace(thing.up, shown=rest))
                return only(Code.OK, gone)
        return only(Code.OK)

    def at(self, node: str, name: str, path: Path) -> Thing | None:
        """Return a volume that is shown at a path of a node."""
        now = self.on(node, name)
        shown = now.up.shown if now and now.up else ()
        return now if any(one.path == str(path) for one in shown) else None

    def grow(self, node: str, name: str, path: Path, required: int) -> Expect:
        """Foresee NodeExpandVolume."""
        now = self.at(node, name, path)
        if now is None or now.up is None:
            return only(Code.NOT_FOUND)
        return only(Code.OK if required <= now.up.size else Code.OUT_OF_RANGE)

    def stats(self, node: str, name: str, path: Path) -> Expect:
        """Foresee NodeGetVolumeStats."""
        return only(Code.OK if self.at(node, name, path) else Code.NOT_FOUND)
