"""Messages to values and back. Everything that a caller sends is checked here, and named when it is wrong."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from csi_driver.controller.requests import SizeRange
from csi_driver.errors import Invalid, quoted
from csi_driver.node.uses import Use
from csi_driver.parameters import check_file_system
from csi_driver.records import Source
from csi_driver.rpc import csi_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from csi_driver.groups import GroupSnapshot
    from csi_driver.records import Snapshot, Volume

LONGEST_STRING = 128
LONGEST_MAP = 4096
LONGEST_PATH, LONGEST_NAME = 4095, 255
"""Bytes. The first two are CSI's limits; paths are longer than 128 in every cluster, and end where the kernel does."""

BANNED = re.compile("[\0-\b\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""The characters that CSI bans from names: all that control a terminal, but for tab, newline and carriage return."""

Mode = csi_pb2.VolumeCapability.AccessMode
MODES = {
    Mode.SINGLE_NODE_WRITER,
    Mode.SINGLE_NODE_READER_ONLY,
    Mode.SINGLE_NODE_SINGLE_WRITER,
    Mode.SINGLE_NODE_MULTI_WRITER,
}
"""A volume's bytes are on one node, so no mode of many nodes makes sense."""


def text(value: str, field: str) -> str:
    """Return a required string. Raises Invalid when it is empty, too long or has control characters."""
    if not value:
        raise Invalid(f"{field} is missing")
    return optional_text(value, field)


def optional_text(value: str, field: str) -> str:
    """Return a string that may be empty. Raises Invalid when it is too long or has control characters."""
    if len(value.encode()) > LONGEST_STRING:
        raise Invalid(f"{field}: {value[:32]!r}... is longer than {LONGEST_STRING} bytes")
    if BANNED.search(value):
        raise Invalid(f"{field}: {value!r} has control characters")
    return value


def texts(values: Iterable[str], field: str) -> list[str]:
    """Return a list of strings, which may be empty. Raises Invalid for one that is empty, or that `text` refuses."""
    return [text(value, field) for value in values]


def path(value: str, field: str) -> Path:
    """Return a required absolute path, free of `..`. Raises Invalid."""
    if not value:
        raise Invalid(f"{field} is missing")
    data = value.encode()
    if "\0" in value or len(data) > LONGEST_PATH or any(len(name) > LONGEST_NAME for name in data.split(b"/")):
        raise Invalid(f"{field}: {quoted(value)} is no path that the kernel takes: it is too long, or has a NUL")
    found = Path(value)
    if not found.is_absolute() or ".." in found.parts:
        raise Invalid(f"{field}: {quoted(value)} is not an absolute path without '..'")
    return found


def pairs(value: Mapping[str, str], field: str) -> dict[str, str]:
    """Return a map as a dict. Raises Invalid when it is larger than CSI allows."""
    size = sum(len(key.encode()) + len(item.encode()) for key, item in value.items())
    if size > LONGEST_MAP:
        raise Invalid(f"{field}: {size} bytes are more than the {LONGEST_MAP} of a CSI map")
    return dict(value)


def size_range(message: csi_pb2.CapacityRange) -> SizeRange:
    """Return a capacity range that the caller gave. Raises Invalid when it is empty, or has negative sizes."""
    if message.required_bytes < 0 or message.limit_bytes < 0:
        raise Invalid(f"capacity_range: {message.required_bytes} to {message.limit_bytes} bytes is no range")
    if not message.required_bytes and not message.limit_bytes:
        raise Invalid("capacity_range: required_bytes and limit_bytes are both missing")
    return SizeRange(message.required_bytes, message.limit_bytes)


def use(message: csi_pb2.VolumeCapability, *, read_only: bool = False, field: str = "volume_capability") -> Use:
    """Return how a caller means to use a volume. Raises Invalid for a capability that this driver hasn't."""
    kind = message.WhichOneof("access_type")
    if kind is None:
        raise Invalid(f"{field}: access_type is missing; it must be block or mount")
    mode = message.access_mode.mode
    if mode not in MODES:
        name = Mode.Mode.Name(mode) if mode in Mode.Mode.values() else str(mode)
        known = ", ".join(sorted(Mode.Mode.Name(each) for each in MODES))
        raise Invalid(f"{field}: access_mode {name} is not served, a volume is on one node; served are {known}")
    mount = message.mount
    if mount.fs_type:
        check_file_system(mount.fs_type, f"{field}: fs_type")
    if mount.volume_mount_group:
        raise Invalid(f"{field}: volume_mount_group is not served; use the pod's fsGroup")
    if (size := sum(len(flag.encode()) for flag in mount.mount_flags)) > LONGEST_MAP:
        raise Invalid(f"{field}: mount_flags: {size} bytes are more than the {LONGEST_MAP} that CSI allows")
    return Use(
        block=kind == "block",
        fs_type=mount.fs_type,
        mount_flags=tuple(mount.mount_flags),
        read_only=read_only or mode == Mode.SINGLE_NODE_READER_ONLY,
        shared=mode == Mode.SINGLE_NODE_MULTI_WRITER,
    )


def uses(messages: Iterable[csi_pb2.VolumeCapability]) -> list[Use]:
    """Return all capabilities. Raises Invalid when there is none, or when they name different file systems."""
    found = [use(message, field="volume_capabilities") for message in messages]
    if not found:
        raise Invalid("volume_capabilities is missing")
    if len(types := {each.fs_type for each in found if each.fs_type}) > 1:
        raise Invalid(f"volume_capabilities: one volume can't have the file systems {', '.join(sorted(types))}")
    return found


def source(message: csi_pb2.VolumeContentSource) -> Source:
    """Return what a volume is to be made from. Raises Invalid when it is of no known kind, or has no id."""
    match message.WhichOneof("type"):
        case "snapshot":
            return Source("snapshot", text(message.snapshot.snapshot_id, "volume_content_source: snapshot_id"))
        case "volume":
            return Source("volume", text(message.volume.volume_id, "volume_content_source: volume_id"))
    raise Invalid("volume_content_source: type is missing; it must be snapshot or volume")


def nodes(topologies: Iterable[csi_pb2.Topology], key: str, field: str) -> tuple[str, ...]:
    """Return the nodes that topologies name, in order. Raises Invalid when they name something else."""
    found = []
    for topology in topologies:
        segments = pairs(topology.segments, f"{field}: segments")
        if key not in segments:
            raise Invalid(f"{field}: segments {quoted(', '.join(sorted(segments)))} lacks {key!r}")
        found.append(segments[key])
    return tuple(found)


def volume(record: Volume, key: str) -> csi_pb2.Volume:
    """Return a volume as CSI shows it."""
    return fill_volume(csi_pb2.Volume(), record, key)


def fill_volume(message: csi_pb2.Volume, record: Volume, key: str) -> csi_pb2.Volume:
    """Show a volume in an empty message: in a long list, half the cost of one that is then copied there."""
    history = record.status.history
    message.volume_id = record.id
    message.capacity_bytes = record.status.seen.size or history.size
    if history.accepted:
        message.accessible_topology.add().segments[key] = history.accepted.node
    if record.spec.source:
        if record.spec.source.kind == "snapshot":
            message.content_source.snapshot.snapshot_id = record.spec.source.id
        else:
            message.content_source.volume.volume_id = record.spec.source.id
    return message


def fill_condition(message: csi_pb2.VolumeCondition, abnormal: str) -> None:
    """Show a condition in an empty message. CSI 1.13 has it no longer, so it is known here only."""
    message.abnormal = bool(abnormal)
    message.message = abnormal or "the volume is healthy"


def snapshot(record: Snapshot) -> csi_pb2.Snapshot:
    """Return a snapshot as CSI shows it."""
    return csi_pb2.Snapshot(
        snapshot_id=record.id,
        source_volume_id=record.spec.volume,
        size_bytes=record.status.history.size,
        creation_time=_made(record),
        ready_to_use=True,
        group_snapshot_id=record.spec.group,
    )


def group(record: GroupSnapshot, members: Iterable[Snapshot]) -> csi_pb2.VolumeGroupSnapshot:
    """Return a group snapshot as CSI shows it."""
    return csi_pb2.VolumeGroupSnapshot(
        group_snapshot_id=record.id,
        snapshots=[snapshot(member) for member in members],
        creation_time=_made(record),
        ready_to_use=True,
    )


def _made(record: Snapshot | GroupSnapshot) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(datetime.fromisoformat(record.status.history.made))
    return made
