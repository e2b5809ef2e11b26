"""btrfs where it is other than ext4 and XFS: copies with one UUID, a device number of its own, discards, subvolumes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from csi_driver.rpc import csi_pb2 as csi
from tests.kernel.node import Node, refusal, run
from tests.kernel.volume import CALL_SECONDS, Volume

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

MIB = 1 << 20
SIZE, LARGER = 256 * MIB, 384 * MIB


def _up(node: Node, name: str) -> Volume:
    volume = node.create(name, SIZE, fs_type="btrfs").up()
    _write(volume, "origin", "of all")
    return volume


def _write(volume: Volume, name: str, text: str) -> None:
    with (volume.target / name).open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _files(volume: Volume) -> dict[str, str]:
    return {path.name: path.read_text() for path in volume.target.iterdir()}


def _cloned(node: Node, source: Volume, name: str, size: int = SIZE) -> Volume:
    """Return a volume that was made from another one, not from a snapshot."""
    request = csi.CreateVolumeRequest(
        name=name,
        capacity_range=csi.CapacityRange(required_bytes=size),
        volume_capabilities=[Volume.capability(block=False, fs_type="btrfs")],
    )
    request.volume_content_source.volume.volume_id = source.id
    answer = node.client.controller.CreateVolume(request, timeout=CALL_SECONDS)
    volume = Volume(node, name, answer.volume.volume_id, block=False, fs_type="btrfs")
    node.volumes.append(volume)
    return volume


def _total(volume: Volume) -> int:
    told = os.statvfs(volume.target)
    return told.f_blocks * told.f_frsize


def _uuid_on_disk(image: Path) -> bytes:
    with image.open("rb") as file:
        file.seek((64 << 10) + 0x20)
        return file.read(16)


def test_a_volume_its_clone_and_its_restored_snapshot_are_used_at_once(node: Node) -> None:
    """All three have one UUID. Each shows its own bytes: through a restart, brought up in any order, and grown."""
    source = _up(node, "source")
    restored = node.create("restored", SIZE, fs_type="btrfs", source=node.cut(source, "cut")).up()
    clone = _cloned(node, source, "clone").up()
    volumes = {"source": source, "restored": restored, "clone": clone}
    for name, volume in volumes.items():
        _write(volume, name, name)
    mine = {name: {"origin": "of all", name: name} for name in volumes}
    at_first = {name: _files(volume) for name, volume in volumes.items()}
    node.stop()
    node.start()
    for volume in volumes.values():  # each call finds its own mount, and has nothing to do
        volume.up()
    after_restart = {name: _files(volume) for name, volume in volumes.items()}
    for volume in volumes.values():
        volume.down()
    clone.expand(LARGER)
    for name in ("clone", "restored", "source"):
        volumes[name].up()
    restored.expand(LARGER)
    restored.expand_on_node(LARGER)
    in_another_order = {name: _files(volume) for name, volume in volumes.items()}

    assert len({_uuid_on_disk(node.image(volume.id)) for volume in volumes.values()}) == 1
    assert at_first == mine
    assert after_restart == mine
    assert in_another_order == mine
    assert [_total(volume) for volume in volumes.values()] == [SIZE, LARGER, LARGER]
    source.down()
    assert (_files(restored), _files(clone)) == (mine["restored"], mine["clone"])


def test_a_device_number_that_another_btrfs_had_shows_the_new_one(node: Node) -> None:
    """The kernel remembers btrfs devices by number and UUID, and numbers are used again at once."""
    source = _up(node, "source")
    snapshot = node.cut(source, "cut")
    other = node.create("other", SIZE, fs_type="btrfs").up()
    _write(other, "other", "other")
    number = other.number
    other.down()
    restored = node.create("restored", SIZE, fs_type="btrfs", source=snapshot).up()

    assert restored.number == number
    assert _files(restored) == {"origin": "of all"}


def test_nothing_is_discarded_behind_the_limits_back(node: Node) -> None:
    """The kernel's own choice would be discard=async; whoever asks for it by name gets it."""
    plain = _up(node, "plain")
    asked = node.create("asked", SIZE, fs_type="btrfs", mountOptions="discard=async").up()

    assert "discard=async" not in _options(plain)
    assert "discard=async" in _options(asked)


def test_what_is_shown_is_the_top_whatever_its_user_made_the_default(node: Node) -> None:
    """A default subvolume would hide the rest of the volume at the next stage, and what is at the top is grown."""
    volume = _up(node, "data")
    run("btrfs", "subvolume", "create", volume.target / "inner")
    run("btrfs", "subvolume", "set-default", volume.target / "inner")
    volume.down()
    volume.up()

    assert (volume.target / "origin").read_text() == "of all"
    assert volume.condition_on_node() == ""


def test_its_inodes_are_not_said_to_be_used_up(node: Node) -> None:
    """It has no table of them: 0 of 0 would read as full."""
    volume = _up(node, "data")
    request = csi.NodeGetVolumeStatsRequest(volume_id=volume.id, volume_path=str(volume.target))
    answer = node.client.node.NodeGetVolumeStats(request, timeout=CALL_SECONDS)

    (usage,) = answer.usage
    assert (usage.unit, usage.total) == (csi.VolumeUsage.BYTES, SIZE)
    assert 0 < usage.available < SIZE


def test_a_btrfs_on_a_second_device_is_not_mounted(node: Node) -> None:
    """Whoever may add devices in a pod could make a volume depend on another: it is said how to undo that."""
    volume = _up(node, "data")
    volume.down()
    with node.image(volume.id).open("r+b") as file:
        file.seek((64 << 10) + 0x88)  # num_devices
        file.write(b"\x02")
    code, said = refusal(volume.stage)

    assert (code.name, "one of 2 devices" in said) == ("UNAVAILABLE", True), said


def _options(volume: Volume) -> list[str]:
    with open("/proc/self/mountinfo") as file:  # noqa: PTH123 - a kernel file
        line = next(line for line in file if f" {volume.staging} " in line)
    return line.split(" - ")[1].split()[2].split(",")
