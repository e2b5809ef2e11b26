"""What a server has come to, in a form that two servers can be compared by: records, files, devices, mounts, capacity.

What no run has in common is left out: folders, device numbers, times, versions, and how often something was tried.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csi_driver.assemble import DATABASE
from csi_driver.backends import passports
from csi_driver.deadline import Deadline, wait_for
from csi_driver.records import Snapshot, Volume
from csi_driver.rpc import csi_pb2 as csi
from csi_driver.store.sqlite import SqliteStore
from tests.leftovers import Leftovers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serving import Server

Record = Volume | Snapshot
SETTLE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class State:
    """Hold all of it, by name or as sorted lines."""

    records: dict[str, Any]
    files: dict[str, Any]
    devices: list[str]
    mounts: list[str]
    left: int

    @classmethod
    def of(cls, server: Server) -> State:
        """Look."""
        root = str(server.folder)
        things = [thing.replace(root, "ROOT") for thing in Leftovers.now(root).things if "/pool.xfs" not in thing]
        return cls(
            records={record.spec.name: _plain(record, root) for record in records(server)},
            files={path.name: _file(path) for path in sorted((server.pool / "pool/images").iterdir())},
            devices=sorted(thing.partition(" on ")[2] for thing in things if thing.startswith("loop device")),
            mounts=sorted(thing.partition(" at ")[2] for thing in things if thing.startswith("mount")),
            left=server.client.controller.GetCapacity(csi.GetCapacityRequest(), timeout=20).available_capacity,
        )


def records(server: Server) -> list[Record]:
    """Return all records of volumes and snapshots."""
    store = SqliteStore(server.folder / "state" / DATABASE)
    try:
        return [*store.all(Volume), *store.all(Snapshot)]
    finally:
        store.close()


def settle(server: Server) -> None:
    """Bring to an end what calls that were cut short left wished, and wait until every record is followed."""
    for record in records(server):
        if record.spec.absent or not record.status.history.made:
            delete(server, record)
    wait_for("the agent follows all records", lambda: all(map(_followed, records(server))), Deadline(SETTLE_SECONDS))


def delete(server: Server, record: Record) -> None:
    """Delete a volume or a snapshot, as its sidecar would."""
    controller = server.client.controller
    if isinstance(record, Volume):
        controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=record.id), timeout=SETTLE_SECONDS)
    else:
        controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=record.id), timeout=SETTLE_SECONDS)


def _followed(record: Record) -> bool:
    return bool(record.status.history.made) and record.status.seen.generation >= record.generation


def _plain(record: Record, root: str) -> dict[str, Any]:
    """Return a record without what no two runs have in common."""
    history, seen = record.status.history, record.status.seen
    offer = dataclasses.replace(record.spec.offer, number=1) if record.spec.offer else None
    accepted = dataclasses.replace(history.accepted, number=1) if history.accepted else None
    return {
        "kind": record.KIND,
        "spec": dataclasses.replace(record.spec, offer=offer),
        "history": dataclasses.replace(history, accepted=accepted, made="made" if history.made else ""),
        "seen": dataclasses.replace(
            seen, generation=0, device="up" if seen.device else "", staged=seen.staged.replace(root, "ROOT")
        ),
        "deleting": record.deleting,
    }


def _file(path: Path) -> tuple[int, int, Any]:
    fd = os.open(path, os.O_RDONLY)
    try:
        status, passport = os.fstat(fd), passports.read(fd)
    finally:
        os.close(fd)
    assert passport is not None
    return status.st_size, status.st_mode, dataclasses.replace(passport, made="")
