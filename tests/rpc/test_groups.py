"""The GroupController service on a real socket, on a sim pool: codes, and what a sidecar needs of the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.rpc import csi_pb2 as csi
from csi_driver.rpc.csi_pb2_grpc import GroupControllerStub
from tests.rpc.test_server import Served, create, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Code = grpc.StatusCode


class Sidecar(Served):
    """Ask for groups."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.groups = GroupControllerStub(self.channel)
        self.volume_ids = [
            self.stub.CreateVolume(create(name=name), timeout=10).volume.volume_id for name in ("a", "b")
        ]

    def cut(self, **changes: str | list[str] | dict[str, str]) -> csi.VolumeGroupSnapshot:
        """Ask for a group of both volumes, or for something else."""
        words = {"name": "g", "source_volume_ids": self.volume_ids, **changes}
        request = csi.CreateVolumeGroupSnapshotRequest(**words)  # type: ignore[arg-type]
        return self.groups.CreateVolumeGroupSnapshot(request, timeout=10).group_snapshot

    def delete(self, group_id: str, snapshot_ids: list[str]) -> None:
        """Ask for a group to be deleted."""
        request = csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group_id, snapshot_ids=snapshot_ids)
        self.groups.DeleteVolumeGroupSnapshot(request, timeout=10)

    def get(self, group_id: str, snapshot_ids: list[str]) -> csi.VolumeGroupSnapshot:
        """Ask for a group."""
        request = csi.GetVolumeGroupSnapshotRequest(group_snapshot_id=group_id, snapshot_ids=snapshot_ids)
        return self.groups.GetVolumeGroupSnapshot(request, timeout=10).group_snapshot


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    made = Sidecar(tmp_path)
    yield made
    made.close()


def test_the_plugin_says_that_it_serves_groups(sidecar: Sidecar) -> None:
    """The snapshotter asks both before it makes any."""
    plugin = sidecar.identity.GetPluginCapabilities(csi.GetPluginCapabilitiesRequest(), timeout=10)
    groups = sidecar.groups.GroupControllerGetCapabilities(csi.GroupControllerGetCapabilitiesRequest(), timeout=10)

    assert csi.PluginCapability.Service.GROUP_CONTROLLER_SERVICE in [one.service.type for one in plugin.capabilities]
    assert [one.rpc.type for one in groups.capabilities] == [
        csi.GroupControllerServiceCapability.RPC.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
    ]


def test_a_group_is_shown_with_its_members(sidecar: Sidecar) -> None:
    """Its id stands in each member, there and in every list; all are ready, and of one moment."""
    group = sidecar.cut()
    ids = [one.snapshot_id for one in group.snapshots]
    listed = sidecar.stub.ListSnapshots(csi.ListSnapshotsRequest(), timeout=10).entries
    got = sidecar.stub.GetSnapshot(csi.GetSnapshotRequest(snapshot_id=ids[0]), timeout=10).snapshot

    assert [one.source_volume_id for one in group.snapshots] == sorted(sidecar.volume_ids)
    assert {one.group_snapshot_id for one in group.snapshots} == {group.group_snapshot_id}
    assert {one.creation_time.ToDatetime() for one in group.snapshots} == {group.creation_time.ToDatetime()}
    assert group.ready_to_use
    assert all(one.ready_to_use for one in group.snapshots)
    assert sorted(entry.snapshot.snapshot_id for entry in listed) == sorted(ids)
    assert got == group.snapshots[0]
    assert sidecar.get(group.group_snapshot_id, ids) == group == sidecar.cut()


def test_a_snapshot_that_stands_alone_names_no_group(sidecar: Sidecar) -> None:
    """A CO may delete it alone then, and only then."""
    request = csi.CreateSnapshotRequest(name="s", source_volume_id=sidecar.volume_ids[0])
    snapshot = sidecar.stub.CreateSnapshot(request, timeout=10).snapshot

    assert snapshot.group_snapshot_id == ""


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"name": ""}, Code.INVALID_ARGUMENT, "name is missing"),
        ({"name": "a\x1bb"}, Code.INVALID_ARGUMENT, "name: 'a"),
        ({"source_volume_ids": []}, Code.INVALID_ARGUMENT, "source_volume_ids is missing"),
        ({"source_volume_ids": ["a", ""]}, Code.INVALID_ARGUMENT, "source_volume_ids is missing"),
        ({"source_volume_ids": ["x" * 129]}, Code.INVALID_ARGUMENT, "source_volume_ids: 'xxx"),
        ({"source_volume_ids": ["../a"]}, Code.NOT_FOUND, "volume_id: there is no volume '../a'"),
        ({"parameters": {"speed": "high"}}, Code.INVALID_ARGUMENT, "parameter 'speed' is not known"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_request_has_the_code_of_csi(
    sidecar: Sidecar, changes: dict[str, str | list[str] | dict[str, str]], code: grpc.StatusCode, says: str
) -> None:
    """It says what is wrong, and makes nothing."""
    with pytest.raises(grpc.RpcError) as caught:
        sidecar.cut(**changes)

    assert caught.value.code() is code
    assert says in said(caught)
    assert len(sidecar.world.disks["n1"].images) == 2


def test_other_volumes_under_the_name_exist_already(sidecar: Sidecar) -> None:
    """ALREADY_EXISTS: the caller has to choose another name."""
    sidecar.cut()
    with pytest.raises(grpc.RpcError) as caught:
        sidecar.cut(source_volume_ids=sidecar.volume_ids[:1])

    assert caught.value.code() is Code.ALREADY_EXISTS


def test_a_wrong_list_of_members_is_invalid(sidecar: Sidecar) -> None:
    """Get and Delete say so, and which id they mean; a member alone can't be deleted."""
    group = sidecar.cut()
    ids = [one.snapshot_id for one in group.snapshots]
    calls: tuple[Callable[[], object], ...] = (
        lambda: sidecar.get(group.group_snapshot_id, ids[:1]),
        lambda: sidecar.delete(group.group_snapshot_id, [*ids, "other"]),
        lambda: sidecar.stub.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=ids[0]), timeout=10),
    )
    for call, says in zip(calls, (ids[1], "'other'", "DeleteVolumeGroupSnapshot"), strict=True):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is Code.INVALID_ARGUMENT
        assert says in said(caught)
    sidecar.delete(group.group_snapshot_id, ids[::-1])

    assert len(sidecar.world.disks["n1"].images) == 2


def test_a_group_that_is_not_there_is_not_found_and_deleted_already(sidecar: Sidecar) -> None:
    """Get: NOT_FOUND. Delete: OK, whatever members are named. Without an id both are INVALID_ARGUMENT."""
    sidecar.delete("fake-vol-id", [])
    with pytest.raises(grpc.RpcError) as missing:
        sidecar.get("fake-vol-id", [])
    with pytest.raises(grpc.RpcError) as unnamed:
        sidecar.delete("", [])

    assert missing.value.code() is Code.NOT_FOUND
    assert (unnamed.value.code(), unnamed.value.details()) == (Code.INVALID_ARGUMENT, "group_snapshot_id is missing")
