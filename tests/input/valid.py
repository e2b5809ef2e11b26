"""A right request of every method, for tests to take something away from, or to put something wrong into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csi_driver.rpc import csi_pb2 as csi
from tests.input import proto
from tests.input.stand import CUT, GROUP, IDLE, KEY, MEMBERS, MIB, MOUNT, USED

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tests.input.stand import Stand

REQUIRED = {
    "CreateVolume": ("name", "volume_capabilities"),
    "DeleteVolume": ("volume_id",),
    "ValidateVolumeCapabilities": ("volume_id", "volume_capabilities"),
    "CreateSnapshot": ("name", "source_volume_id"),
    "DeleteSnapshot": ("snapshot_id",),
    "GetSnapshot": ("snapshot_id",),
    "ControllerExpandVolume": ("volume_id", "capacity_range"),
    "ControllerGetVolume": ("volume_id",),
    "ControllerModifyVolume": ("volume_id",),
    "CreateVolumeGroupSnapshot": ("name", "source_volume_ids"),
    "DeleteVolumeGroupSnapshot": ("group_snapshot_id", "snapshot_ids"),
    "GetVolumeGroupSnapshot": ("group_snapshot_id", "snapshot_ids"),
    "NodeStageVolume": ("volume_id", "staging_target_path", "volume_capability"),
    "NodeUnstageVolume": ("volume_id", "staging_target_path"),
    "NodePublishVolume": ("volume_id", "staging_target_path", "target_path", "volume_capability"),
    "NodeUnpublishVolume": ("volume_id", "target_path"),
    "NodeGetVolumeStats": ("volume_id", "volume_path"),
    "NodeExpandVolume": ("volume_id", "volume_path"),
}
"""The fields that the proto calls REQUIRED, and those that this driver's capabilities make so, of methods served."""


def request(method: str, stand: Stand, name: str = USED) -> Any:  # noqa: ANN401 - any message
    """Return a request that would be answered with OK, or with what `IDLE` is not ready for."""
    made = proto.new(proto.METHODS[method].input_type)
    ids = stand.ids
    values: dict[str, object] = {
        "name": "new",
        "volume_id": ids[IDLE if method in {"DeleteVolume", "NodeStageVolume"} else USED],
        "source_volume_id": ids[USED],
        "source_volume_ids": [ids[name] for name in MEMBERS],
        "snapshot_id": ids[CUT],
        "group_snapshot_id": ids[GROUP],
        "snapshot_ids": [ids[f"{GROUP} {name}"] for name in MEMBERS],
        "volume_capability": MOUNT,
        "volume_capabilities": [MOUNT],
        "capacity_range": csi.CapacityRange(required_bytes=65 * MIB),
        "accessible_topology": csi.Topology(segments={KEY: stand.node}),
        "staging_target_path": stand.staging(name),
        "target_path": stand.target(name),
        "volume_path": stand.target(name),
    }
    for field in made.DESCRIPTOR.fields_by_name:
        if field in values:
            fill(made, field, values[field])
    return made


def fill(message: Message, name: str, value: Any) -> Any:  # noqa: ANN401 - any value
    """Set a field of any kind to a value, and return the message."""
    message.ClearField(name)
    if isinstance(value, dict):
        getattr(message, name).update(value)
    elif isinstance(value, list):
        getattr(message, name).extend(value)
    elif hasattr(value, "DESCRIPTOR"):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)
    return message
