"""Bad input in messages and maps: capabilities, sizes, sources, topologies, parameters, tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from csi_driver.rpc import csi_pb2 as csi
from tests.input.served import IDS, NODE
from tests.input.stand import CUT, IDLE, KEY, MIB, MOUNT, RAW, USED, changed
from tests.input.valid import fill, request

if TYPE_CHECKING:
    from tests.input.served import Served

BAD, NONE, SIZE, TOKEN, FULL = "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "ABORTED", "RESOURCE_EXHAUSTED"
Capability = csi.VolumeCapability
Mode = Capability.AccessMode
Source = csi.VolumeContentSource
MOST = (1 << 63) - 1
LONG = "x" * 4000


def mount(**parts: Any) -> csi.VolumeCapability:  # noqa: ANN401 - parts of any kind
    """Return a capability to mount with these parts."""
    return changed(MOUNT, mount=Capability.MountVolume(**parts))


def mode(number: int) -> csi.VolumeCapability:
    """Return a capability with an access mode, known or not."""
    made = changed(MOUNT)
    made.ClearField("access_mode")
    made.access_mode.MergeFromString(b"\x08" + bytes([number]))
    return made


def size(required: int = 0, limit: int = 0) -> csi.CapacityRange:
    return csi.CapacityRange(required_bytes=required, limit_bytes=limit)


def topology(**segments: str) -> csi.TopologyRequirement:
    return csi.TopologyRequirement(requisite=[csi.Topology(segments=segments)])


def snapshot(snapshot_id: str) -> csi.VolumeContentSource:
    return Source(snapshot=Source.SnapshotSource(snapshot_id=snapshot_id))


def volume(volume_id: str) -> csi.VolumeContentSource:
    return Source(volume=Source.VolumeSource(volume_id=volume_id))


CAPABILITIES = {
    "neither block nor mount": (Capability(access_mode=MOUNT.access_mode), "access_type is missing"),
    "no access mode": (Capability(mount=Capability.MountVolume()), "access_mode UNKNOWN"),
    "many readers": (mode(Mode.MULTI_NODE_READER_ONLY), "access_mode MULTI_NODE_READER_ONLY"),
    "one writer, many readers": (mode(Mode.MULTI_NODE_SINGLE_WRITER), "access_mode MULTI_NODE_SINGLE_WRITER"),
    "many writers": (mode(Mode.MULTI_NODE_MULTI_WRITER), "access_mode MULTI_NODE_MULTI_WRITER"),
    "a mode of a later CSI": (mode(99), "access_mode 99"),
    "no such file system": (mount(fs_type="ntfs"), "fs_type: 'ntfs'"),
    "a path for a file system": (mount(fs_type="../ext4"), "fs_type: '../ext4'"),
    "a long file system": (mount(fs_type=LONG), "fs_type: 'xxx"),
    "a file system on two lines": (mount(fs_type="ext4\nxfs"), r"fs_type: 'ext4\nxfs'"),
    "a mount group": (mount(volume_mount_group="0"), "volume_mount_group"),
    "more than 4 KiB of flags": (mount(mount_flags=["noatime"] * 600), "mount_flags: 4200 bytes"),
}
CAPABILITY_OF = {
    "CreateVolume": "volume_capabilities",
    "GetCapacity": "volume_capabilities",
    "ControllerExpandVolume": "volume_capability",
    "NodeStageVolume": "volume_capability",
    "NodePublishVolume": "volume_capability",
    "NodeExpandVolume": "volume_capability",
}


def right(served: Served, method: str, name: str = USED) -> Any:  # noqa: ANN401 - any message
    """Return a request with nothing wrong in it."""
    return request(method, served, name)


def check_refused(served: Served, method: str, message: Any, code: str, *words: str) -> None:  # noqa: ANN401 - the same
    """Check code and words of a call that must change nothing."""
    before = served.state()
    answered, said = served.ask(method, message)

    assert answered == code, said
    assert [word for word in words if word not in said] == [], said
    assert served.state() == before
    assert len(said) < 700


@pytest.mark.parametrize("case", CAPABILITIES)
@pytest.mark.parametrize("method", CAPABILITY_OF)
def test_a_capability_that_is_not_served_is_named(served: Served, method: str, case: str) -> None:
    """In every call that takes one; the message names the field that it came in."""
    capability, words = CAPABILITIES[case]
    field = CAPABILITY_OF[method]
    value = [capability] if field == "volume_capabilities" else capability
    check_refused(served, method, fill(right(served, method), field, value), BAD, field, words)


@pytest.mark.parametrize("case", CAPABILITIES)
def test_a_capability_that_is_not_served_is_not_confirmed(served: Served, case: str) -> None:
    """ValidateVolumeCapabilities answers OK, and says in its answer why not."""
    asked = fill(right(served, "ValidateVolumeCapabilities"), "volume_capabilities", [CAPABILITIES[case][0]])
    answer = served.answer("ValidateVolumeCapabilities", asked.SerializeToString())

    assert not answer.HasField("confirmed")
    assert CAPABILITIES[case][1] in answer.message


FLAGS = [
    "suid",
    "bind",
    "remount",
    "loop",
    "noatime,suid",
    "commit=hunter2",
    "commit=٣",
    "data=../x",
    "",
    " ",
    "ro\n",
    "\0",
]


@pytest.mark.parametrize("flag", FLAGS, ids=ascii)
@pytest.mark.parametrize("method", ["CreateVolume", "NodeStageVolume"])
def test_a_mount_flag_that_is_not_allowed_is_named_by_its_place(served: Served, method: str, flag: str) -> None:
    """Not by its text, which may be sensitive."""
    flags = mount(fs_type="ext4", mount_flags=["ro", flag])
    field = CAPABILITY_OF[method]
    asked = fill(right(served, method, IDLE), field, [flags] if field == "volume_capabilities" else flags)
    code, said = served.ask(method, asked)

    assert code == BAD
    assert "mount_flags: option 2 of 2 is not allowed for ext4; allowed are " in said
    assert not flag.strip() or flag not in said.partition("; allowed are ")[0]


def test_flags_of_a_tiers_own_file_system_are_taken(served: Served) -> None:
    """Where neither class nor claim names one, the tier does, and its flags count."""
    asked = right(served, "CreateVolume")
    fill(asked, "volume_capabilities", [mount(mount_flags=["largeio"])])
    fill(asked, "capacity_range", size(300 * MIB))
    check_refused(served, "CreateVolume", asked, BAD, "mount_flags: option 1 of 1 is not allowed for ext4")
    fill(asked, "parameters", {"tier": "training"})
    code, said = served.ask("CreateVolume", asked)
    served.restore()

    assert (code, said) == ("OK", "")


SIZES = {
    "negative": (size(-1), BAD, "capacity_range: -1 to 0"),
    "a negative limit": (size(0, -1), BAD, "capacity_range: 0 to -1"),
    "the least there is": (size(-MOST - 1), BAD, "capacity_range: -9223372036854775808"),
    "neither": (size(), BAD, "capacity_range: required_bytes and limit_bytes are both missing"),
    "more than the limit": (size(2 << 30, 1 << 30), BAD, "required_bytes 2147483648, limit_bytes 1073741824"),
    "the most there is": (size(MOST), SIZE, "capacity_range: "),
    "a limit of one byte": (size(0, 1), SIZE, "the limit is 1"),
    "a limit below what is required, rounded": (size(64 * MIB + 1, 64 * MIB + 2), SIZE, "the limit is 67108866"),
}


@pytest.mark.parametrize("case", SIZES)
@pytest.mark.parametrize("method", ["CreateVolume", "ControllerExpandVolume"])
def test_a_size_that_makes_no_sense_is_refused(served: Served, method: str, case: str) -> None:
    """INVALID_ARGUMENT where no volume can have it, OUT_OF_RANGE where ours can't."""
    capacity, code, words = SIZES[case]
    check_refused(served, method, fill(right(served, method), "capacity_range", capacity), code, words)


def test_the_smallest_size_is_rounded_up(served: Served) -> None:
    """One byte is a wish for at least one."""
    code, said = served.ask("CreateVolume", fill(right(served, "CreateVolume"), "capacity_range", size(1)))
    served.restore()

    assert (code, said) == ("OK", "")


def test_a_volume_of_more_than_the_pool_is_for_another_node(served: Served) -> None:
    """RESOURCE_EXHAUSTED, with the numbers."""
    asked = fill(right(served, "CreateVolume"), "capacity_range", size(1 << 60))
    check_refused(served, "CreateVolume", asked, FULL, "100Gi")


def test_growth_by_a_limit_alone_is_none(served: Served) -> None:
    """A volume is as large as is required; that it may be larger is no reason to make it so."""
    asked = fill(right(served, "ControllerExpandVolume"), "capacity_range", size(0, 2 << 30))
    code, said = served.ask("ControllerExpandVolume", asked)
    state = served.state()

    assert (code, said) == ("OK", "")
    assert state == served.furnished


REQUESTS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a source of no kind": (
        "CreateVolume",
        {"volume_content_source": Source()},
        BAD,
        "volume_content_source: type is missing",
    ),
    "a source without an id": ("CreateVolume", {"volume_content_source": snapshot("")}, BAD, "snapshot_id is missing"),
    "a volume as a snapshot": ("CreateVolume", {"volume_content_source": snapshot(IDS[USED])}, NONE, IDS[USED]),
    "a snapshot as a volume": ("CreateVolume", {"volume_content_source": volume(IDS[CUT])}, NONE, IDS[CUT]),
    "a source of another driver": (
        "CreateVolume",
        {"volume_content_source": volume("vol-0a1b2c")},
        NONE,
        "'vol-0a1b2c'",
    ),
    "a source that is a path": ("CreateVolume", {"volume_content_source": snapshot("../../cut")}, NONE, "'../../cut'"),
    "a snapshot of a snapshot": ("CreateSnapshot", {"source_volume_id": IDS[CUT]}, NONE, IDS[CUT]),
    "a snapshot with a class": ("CreateSnapshot", {"parameters": {"speed": "high"}}, BAD, "parameter 'speed'"),
    "a topology of others": (
        "CreateVolume",
        {"accessibility_requirements": topology(zone="a")},
        BAD,
        "segments 'zone' lacks",
    ),
    "an empty topology": (
        "CreateVolume",
        {"accessibility_requirements": topology()},
        BAD,
        "accessibility_requirements",
    ),
    "a node that isn't there": (
        "CreateVolume",
        {"accessibility_requirements": topology(**{KEY: "n9"})},
        FULL,
        "node n1 is not in the topology",
    ),
    "a large topology": (
        "CreateVolume",
        {"accessibility_requirements": topology(**{KEY: NODE, "x": "y" * 5000})},
        BAD,
        "accessibility_requirements: segments: 5022 bytes",
    ),
    "capacity of others": (
        "GetCapacity",
        {"accessible_topology": csi.Topology(segments={"zone": "a"})},
        BAD,
        "accessible_topology: segments 'zone' lacks",
    ),
    "a negative page of volumes": ("ListVolumes", {"max_entries": -1}, BAD, "max_entries: -1"),
    "a negative page of snapshots": (
        "ListSnapshots",
        {"max_entries": -(1 << 31), "snapshot_id": ""},
        BAD,
        "max_entries: -2147483648",
    ),
    "a token of others": ("ListVolumes", {"starting_token": "7"}, TOKEN, "starting_token: '7'"),
    "a token that is a path": ("ListSnapshots", {"starting_token": "../7", "snapshot_id": ""}, TOKEN, "'../7'"),
    "a long token": ("ListVolumes", {"starting_token": LONG}, TOKEN, "starting_token: 'xxx"),
    "context of more than 4 KiB": (
        "ValidateVolumeCapabilities",
        {"volume_context": {"a": LONG, "b": LONG}},
        BAD,
        "volume_context: 8002",
    ),
    "a volume that holds ext4 as xfs": (
        "NodePublishVolume",
        {"volume_id": IDS[RAW]},
        "FAILED_PRECONDITION",
        "staging_target_path",
    ),
    "a device that has not grown": (
        "NodeExpandVolume",
        {"capacity_range": size(1 << 40)},
        SIZE,
        "1099511627776 are required",
    ),
    "growth to nothing": ("NodeExpandVolume", {"capacity_range": size()}, BAD, "both missing"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_that_asks_for_what_is_not_there_is_refused(served: Served, case: str) -> None:
    """Each with the specification's code, and a message that names field and value."""
    method, parts, code, words = REQUESTS[case]
    asked = right(served, method)
    for field, value in parts.items():
        fill(asked, field, value)
    check_refused(served, method, asked, code, words)
