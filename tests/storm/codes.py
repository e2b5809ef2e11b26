"""Which codes are right for which call in a storm, beside OK and ABORTED (another call holds that volume; ask again).

Nothing here may be INTERNAL, UNKNOWN, UNAVAILABLE, RESOURCE_EXHAUSTED or DEADLINE_EXCEEDED: all is well in a storm but
that others are at the same volumes, the pool has room for all, and callers have time.
"""

from __future__ import annotations

ALWAYS = frozenset({"OK", "ABORTED"})
GONE = "NOT_FOUND"
"""Another caller has deleted it, or has not made it yet."""
USED = "FAILED_PRECONDITION"
"""It is staged, or published, or is not staged where it would have to be."""
SMALL = "OUT_OF_RANGE"
"""The device has not grown to that size."""

RIGHT: dict[str, frozenset[str]] = {
    "Probe": frozenset(),
    "CreateVolume": frozenset({GONE}),  # its source
    "DeleteVolume": frozenset({USED}),
    "CreateSnapshot": frozenset({GONE}),  # its volume
    "DeleteSnapshot": frozenset(),
    "ControllerExpandVolume": frozenset({GONE}),
    "ControllerModifyVolume": frozenset({GONE}),
    "ControllerGetVolume": frozenset({GONE}),
    "ValidateVolumeCapabilities": frozenset({GONE}),
    "ListVolumes": frozenset(),
    "ListSnapshots": frozenset(),
    "GetSnapshot": frozenset({GONE}),
    "GetCapacity": frozenset(),
    "NodeStageVolume": frozenset({GONE}),
    "NodeUnstageVolume": frozenset({USED}),
    "NodePublishVolume": frozenset({GONE, USED}),
    "NodeUnpublishVolume": frozenset(),
    "NodeGetVolumeStats": frozenset({GONE}),
    "NodeExpandVolume": frozenset({GONE, SMALL}),
}


def is_right(rpc: str, code: str) -> bool:
    """Return whether an answer is one that a caller in a storm has to expect."""
    return code in ALWAYS or code in RIGHT[rpc]
