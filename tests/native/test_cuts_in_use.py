"""A volume in use that can't be cut in time: its users go on, the caller hears why, and nobody tries for ever."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver import assemble
from csi_driver.groups import GroupSnapshot
from csi_driver.records import Snapshot
from csi_driver.rpc import csi_pb2 as csi
from csi_driver.store.sqlite import SqliteStore
from hack.bench.calls import Caller, Failed
from tests.serving import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.native

SIZE = 128 << 20
NO_TIME = (
    "from csi_driver.host import freeze, reflink; freeze.BODY_SHARE = 0.0; reflink.FEW = 0; "
    "from csi_driver.cli import main; main()"
)


class Hurried(Server):
    """A server for which no cut of a volume in use is quick enough."""

    def __init__(self) -> None:
        super().__init__()
        self._argv[1:3] = ["-c", NO_TIME]


@pytest.fixture
def hurried() -> Iterator[Hurried]:
    with Hurried() as server:
        yield server


@pytest.fixture
def caller(hurried: Hurried) -> Iterator[Caller]:
    caller = Caller(hurried.socket, hurried.folder / "work", "cut", SIZE)
    yield caller
    caller.close()


def write(file: Path) -> None:
    """Write and wait for the disk, which hangs on what is frozen."""
    fd = os.open(file, os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x")
    os.fsync(fd)
    os.close(fd)


def test_a_cut_that_takes_too_long_is_refused_for_good_until_the_volume_is_unstaged(
    hurried: Hurried, caller: Caller
) -> None:
    """A final code, nothing frozen, no half-made image, no record that an agent would try again; then it works."""
    volume = caller.create()
    caller.publish(volume)
    with pytest.raises(Failed, match=r"FAILED_PRECONDITION.* extents.* unstage the volume"):
        caller.cut(volume)
    write(caller.target / "alive")
    images = hurried.images()
    store = SqliteStore(hurried.folder / "state" / assemble.DATABASE)
    records = store.all(Snapshot)
    store.close()
    for rpc, message in caller._down(volume):
        caller.call(rpc, message)
    snapshot = caller.cut(volume)
    made = hurried.images()
    caller.delete_snapshot(snapshot)
    caller.delete(volume)

    assert images == [f"{volume}.img"]
    assert list(records) == []
    assert made == sorted([f"{volume}.img", f"{snapshot}.img"])


def test_a_group_of_which_one_cut_takes_too_long_is_none(hurried: Hurried, caller: Caller) -> None:
    """Whatever the other member is: a final code, nothing frozen, no cut of either, no record; then it works."""
    in_use, other = caller.create(), caller.create()
    caller.publish(in_use)
    request = csi.CreateVolumeGroupSnapshotRequest(name="group", source_volume_ids=[in_use, other])
    with pytest.raises(grpc.RpcError) as refusal:
        hurried.client.groups.CreateVolumeGroupSnapshot(request, timeout=30)
    write(caller.target / "alive")
    images = hurried.images()
    store = SqliteStore(hurried.folder / "state" / assemble.DATABASE)
    records = [*store.all(GroupSnapshot), *store.all(Snapshot)]
    store.close()
    for rpc, message in caller._down(in_use):
        caller.call(rpc, message)
    group = hurried.client.groups.CreateVolumeGroupSnapshot(request, timeout=30).group_snapshot
    members = [member.snapshot_id for member in group.snapshots]
    hurried.client.groups.DeleteVolumeGroupSnapshot(
        csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=members)
    )
    for volume in (in_use, other):
        caller.delete(volume)

    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "unstage the volume" in str(refusal.value.details())
    assert images == sorted([f"{in_use}.img", f"{other}.img"])
    assert records == []
    assert len(members) == 2
