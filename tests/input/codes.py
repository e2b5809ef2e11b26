"""Which codes CSI has for which call, beside OK, when its input is bad and all else is well."""

from __future__ import annotations

BAD = "INVALID_ARGUMENT"
NONE = "NOT_FOUND"
OTHER = "ALREADY_EXISTS"
USED = "FAILED_PRECONDITION"
SIZE = "OUT_OF_RANGE"
FULL = "RESOURCE_EXHAUSTED"
TOKEN = "ABORTED"  # noqa: S105 - a code
NOT_SERVED = "UNIMPLEMENTED"

RIGHT: dict[str, set[str]] = {
    "GetPluginInfo": {BAD},
    "GetPluginCapabilities": {BAD},
    "Probe": {BAD},
    "CreateVolume": {BAD, NONE, OTHER, SIZE, FULL},
    "DeleteVolume": {BAD, USED},
    "ControllerPublishVolume": {BAD, NOT_SERVED},
    "ControllerUnpublishVolume": {BAD, NOT_SERVED},
    "ValidateVolumeCapabilities": {BAD, NONE},
    "ListVolumes": {BAD, TOKEN},
    "GetCapacity": {BAD},
    "ControllerGetCapabilities": {BAD},
    "CreateSnapshot": {BAD, NONE, OTHER, FULL},
    "DeleteSnapshot": {BAD},
    "ListSnapshots": {BAD, TOKEN},
    "GetSnapshot": {BAD, NONE},
    "ControllerExpandVolume": {BAD, NONE, SIZE},
    "ControllerGetVolume": {BAD, NONE},
    "ControllerModifyVolume": {BAD, NONE},
    "GroupControllerGetCapabilities": {BAD},
    "CreateVolumeGroupSnapshot": {BAD, NONE, OTHER, USED, FULL},
    "DeleteVolumeGroupSnapshot": {BAD},
    "GetVolumeGroupSnapshot": {BAD, NONE},
    "NodeStageVolume": {BAD, NONE, OTHER, USED},
    "NodeUnstageVolume": {BAD, NONE, USED},
    "NodePublishVolume": {BAD, NONE, OTHER, USED},
    "NodeUnpublishVolume": {BAD, NONE, USED},
    "NodeGetVolumeStats": {BAD, NONE},
    "NodeExpandVolume": {BAD, NONE, SIZE},
    "NodeGetCapabilities": {BAD},
    "NodeGetInfo": {BAD},
}
"""A service that isn't offered is UNIMPLEMENTED throughout."""


def right(method: str) -> set[str]:
    """Return the codes that are right for a call, whatever its input."""
    return {"OK", *RIGHT[method]} if method in RIGHT else {NOT_SERVED}
