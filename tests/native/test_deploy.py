"""The classes in deploy/, as sidecars hand them to a real server."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from csi_driver.records import Volume
from csi_driver.rpc import csi_pb2 as csi
from csi_driver.store.sqlite import SqliteStore
from qos.limits import UNLIMITED, Limits
from tests.deploy import Manifest, manifests

if TYPE_CHECKING:
    from tests.serving import Server

pytestmark = pytest.mark.native

MIB = 1 << 20
SIZE = 300 * MIB
"""Room for an XFS, and in the pool, which gives a thick volume all of it."""

# What the tiers give so little: their lower bounds, all.
TRAINING = Limits(rbps=100 * MIB, wbps=64 * MIB, riops=6400, wiops=4096)
INFERENCE = Limits(rbps=125 * MIB, wbps=64 * MIB, riops=1000, wiops=500)
WEIGHTS = Limits(rbps=256 * MIB, wbps=128 * MIB, riops=2048, wiops=1024)
VECTOR_DB = Limits(rbps=128 * MIB, wbps=64 * MIB, riops=4096, wiops=2048)
SCRATCH = Limits(rbps=200 * MIB, wbps=200 * MIB, riops=12800, wiops=12800)
BY_STORAGE_CLASS = {
    "sluice-standard": UNLIMITED,
    "sluice-training": TRAINING,
    "sluice-inference": INFERENCE,
    "inference-on-fast": INFERENCE,
    "sluice-weights": WEIGHTS,
    "sluice-vector-db": VECTOR_DB,
    "sluice-scratch": SCRATCH,
}
BY_ATTRIBUTES_CLASS = {
    "sluice-standard": UNLIMITED,
    "sluice-training": TRAINING,
    "sluice-training-gentle": TRAINING,
    "sluice-inference": Limits(rbps=250 * MIB, wbps=64 * MIB, riops=1000, wiops=500),
    "sluice-weights": WEIGHTS,
    "sluice-vector-db": VECTOR_DB,
    "sluice-scratch": SCRATCH,
}


def _of(kind: str) -> list[object]:
    return [pytest.param(found, id=found.name) for found in manifests(kind)]


def _create(server: Server, found: Manifest) -> str:
    capability = csi.VolumeCapability(
        mount=csi.VolumeCapability.MountVolume(fs_type=found.fs_type),
        access_mode=csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
    )
    request = csi.CreateVolumeRequest(
        name=f"pvc-{found.name}",
        capacity_range=csi.CapacityRange(required_bytes=SIZE),
        volume_capabilities=[capability],
        parameters=found.parameters,
    )
    return str(server.client.controller.CreateVolume(request, timeout=30).volume.volume_id)


def _delete(server: Server, volume_id: str) -> None:
    server.client.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume_id), timeout=30)


def _limits(server: Server, volume_id: str) -> Limits:
    with closing(SqliteStore(server.folder / "state" / "sluice.db")) as store:
        record = store.get(Volume, volume_id)
    assert record is not None
    return record.spec.qos.limits


@pytest.mark.parametrize("found", _of("StorageClass"))
def test_a_volume_of_a_storage_class_gets_its_tiers_limits(server: Server, found: Manifest) -> None:
    """CreateVolume with the class's parameters records the limits that the class promises."""
    volume_id = _create(server, found)
    limits = _limits(server, volume_id)
    _delete(server, volume_id)

    assert limits == BY_STORAGE_CLASS[found.name]


@pytest.mark.parametrize("found", _of("VolumeAttributesClass"))
def test_a_volume_attributes_class_changes_the_limits(server: Server, found: Manifest) -> None:
    """ControllerModifyVolume with the class's parameters records the limits that the class promises."""
    volume_id = _create(server, next(other for other in manifests("StorageClass") if other.name == "sluice-standard"))
    request = csi.ControllerModifyVolumeRequest(volume_id=volume_id, mutable_parameters=found.parameters)
    server.client.controller.ControllerModifyVolume(request, timeout=30)
    limits = _limits(server, volume_id)
    _delete(server, volume_id)

    assert limits == BY_ATTRIBUTES_CLASS[found.name]
