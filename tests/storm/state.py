"""What a server has come to, in a form that two servers can be compared by: records, files, devices, mounts, capacity.

What no run has in common is left out: folders, device numbers, times, versions, and how often something was tried.
"""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csi_driver.agent.agent import followed
from csi_driver.assemble import DATABASE
from csi_driver.backends import lvmtags, passports
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Unknown
from csi_driver.records import Snapshot, Volume
from csi_driver.rpc import csi_pb2 as csi
from csi_driver.store.sqlite import SqliteStore
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.thinpool import rows

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serving import Server
    from tests.thinpool import ThinPool

Record = Volume | Snapshot
SETTLE_SECONDS = 60
STEADY_LOOKS, LOOK_SECONDS = 10, 0.1


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
        ours = Leftovers.now(root, "mapped device sluice-", "mapped device fast-sluice-").things
        things = [thing.replace(root, "ROOT") for thing in ours if "/pool.xfs" not in thing]
        return cls(
            records={record.spec.name: _plain(record, root) for record in records(server)},
            files=_logical(server.thin) if isinstance(server, ThinNode) else _images(server),
            devices=sorted(_named(thing) for thing in things if thing.startswith(("loop device", "mapped device"))),
            mounts=sorted(thing.partition(" at ")[2] for thing in things if thing.startswith("mount")),
            left=_left(server),
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
    try:
        wait_for("the agent follows all records", lambda: not _behind(server), Deadline(SETTLE_SECONDS))
    except Unknown as error:
        error.add_note("\n".join(map(str, _behind(server))))
        raise


def delete(server: Server, record: Record) -> None:
    """Delete a volume or a snapshot, as its sidecar would."""
    controller = server.client.controller
    if isinstance(record, Volume):
        controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=record.id), timeout=SETTLE_SECONDS)
    else:
        controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=record.id), timeout=SETTLE_SECONDS)


def _left(server: Server) -> int:
    """Return how many bytes can still be promised, once it doesn't change any more: it is published after the calls."""
    said: list[int] = []
    while len(said) < STEADY_LOOKS or len(set(said[-STEADY_LOOKS:])) > 1:
        time.sleep(LOOK_SECONDS)
        said.append(server.client.controller.GetCapacity(csi.GetCapacityRequest(), timeout=20).available_capacity)
    return said[-1]


def _behind(server: Server) -> list[Record]:
    return [record for record in records(server) if not followed(record)]


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


def _named(thing: str) -> str:
    """Return a device's file, or its name."""
    return thing.partition(" on ")[2] or thing


def _images(server: Server) -> dict[str, Any]:
    return {path.name: _file(path) for path in sorted((server.pool / "pool/images").iterdir())}


def _logical(thin: ThinPool) -> dict[str, Any]:
    found = {}
    for row in rows("lvs", "-o", "lv_name,lv_size,lv_active,lv_tags", thin.vg):
        passport = lvmtags.read(row["lv_tags"].split(","))
        plain = dataclasses.replace(passport, made="") if passport else None
        found[row["lv_name"]] = (row["lv_size"], row["lv_active"], plain)
    return found


def _file(path: Path) -> tuple[int, int, Any]:
    fd = os.open(path, os.O_RDONLY)
    try:
        status, passport = os.fstat(fd), passports.read(fd)
    finally:
        os.close(fd)
    assert passport is not None
    return status.st_size, status.st_mode, dataclasses.replace(passport, made="")
