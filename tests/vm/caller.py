"""Workers' calls made for real, and what is there afterwards compared with what must be."""

from __future__ import annotations

import hashlib
import os
import random
from typing import TYPE_CHECKING, NamedTuple

from csi_driver.deadline import Deadline, wait_for
from csi_driver.records import Snapshot as SnapshotRecord
from csi_driver.records import Volume as VolumeRecord
from csi_driver.rpc import csi_pb2 as csi
from tests.kernel.images import PIECE
from tests.kernel.volume import Snapshot, Volume
from tests.vm.plan import id_of

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    from tests.kernel.node import Node
    from tests.vm.kept import KeptImages, KeptThin
    from tests.vm.plan import Op, Thing

CALL_SECONDS = 60
SETTLE_SECONDS = 60
CONTENT = 128 << 10


class Seen(NamedTuple):
    """Hold what a volume or snapshot is: what its record says, and what its bytes say."""

    kind: str
    size: int
    digest: str


class Caller:
    """Make calls on a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def do(self, op: Op, things: Mapping[str, Thing]) -> None:
        """Make a call. `things` are there before it, or after it if it is a retry."""
        match op.verb:
            case "create":
                self._node.create(op.name, op.size, block=True)
            case "fill":
                volume = self._volume(op.name).up()
                _write(volume.file, op.name)
                volume.down()
            case "expand":
                self._volume(op.name).expand(op.size)
            case "cut":
                self._node.cut(self._volume(op.source), op.name)
            case "restore":
                source = self._snapshot(op.source)
                self._node.create(op.name, things[op.source].size, block=True, source=source)
            case "delete" if things[op.name].kind == VolumeRecord.KIND:
                self._volume(op.name).delete()
            case "delete":
                self._snapshot(op.name).delete()
            case verb:
                raise ValueError(verb)

    def _volume(self, name: str) -> Volume:
        return Volume(self._node, name, id_of(VolumeRecord.KIND, name), block=True, fs_type="")

    def _snapshot(self, name: str) -> Snapshot:
        return Snapshot(self._node, id_of(SnapshotRecord.KIND, name))


def settled(node: KeptImages | KeptThin, others: Container[str]) -> dict[str, Seen]:
    """Wait until nothing is half made or half deleted, and return what there is by its name. Of others, no digest."""
    records: list[VolumeRecord | SnapshotRecord] = []

    def whole() -> bool:
        records[:] = node.records()
        return all(_whole(record) for record in records)

    wait_for("all is made or gone", whole, Deadline(SETTLE_SECONDS))
    return {
        record.spec.name: Seen(
            record.KIND,
            record.status.history.size,
            "" if record.spec.name in others else node.digest_of(record.id, record.status.history.size),
        )
        for record in records
    }


def _whole(record: VolumeRecord | SnapshotRecord) -> bool:
    history = record.status.history
    return bool(history.made) and not (record.spec.absent or record.deleting or history.condemned or history.gone)


def offered(node: Node) -> set[str]:
    """Return the ids of all that callers see."""
    volumes = node.client.controller.ListVolumes(csi.ListVolumesRequest(), timeout=CALL_SECONDS)
    cuts = node.client.controller.ListSnapshots(csi.ListSnapshotsRequest(), timeout=CALL_SECONDS)
    return {each.volume.volume_id for each in volumes.entries} | {each.snapshot.snapshot_id for each in cuts.entries}


def wrong(
    seen: Mapping[str, Seen], before: Mapping[str, Thing], after: Mapping[str, Thing], cut: Sequence[Op] = ()
) -> list[str]:
    """Return what is neither as it was before the calls that were cut nor as it is after them."""
    found = []
    filled = {op.name for op in cut if op.verb == "fill"}
    for name in sorted(seen.keys() | before.keys() | after.keys()):
        there = seen.get(name)
        allowed = [meant(state[name]) if name in state else None for state in (before, after)]
        if name in filled and there is not None and there.digest:
            there = there._replace(digest=_digest_of(""))  # of what was not flushed, anything may be there
        if there not in allowed:
            found.append(f"{name} is {seen.get(name)}, not {allowed[0]} or {allowed[1]}")
    return found


def meant(thing: Thing) -> Seen:
    """Return what a thing looks like when it is whole."""
    return Seen(thing.kind, thing.size, _digest_of(thing.content))


def _content(name: str) -> bytes:
    return random.Random(name).randbytes(CONTENT)  # noqa: S311 - to be repeated, not secret


def _digest_of(name: str) -> str:
    """Return the digest of an image with this content and nothing else; see `images.digest`."""
    piece = (PIECE.to_bytes(8, "big") + _content(name).ljust(PIECE, b"\0")) if name else b""
    return hashlib.sha256(piece).hexdigest()


def _write(device: Path, name: str) -> None:
    fd = os.open(device, os.O_WRONLY)
    try:
        os.pwrite(fd, _content(name), PIECE)
        os.fsync(fd)
    finally:
        os.close(fd)
