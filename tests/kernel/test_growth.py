"""File systems that grow, and those that are not fit for use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.kernel.images import digest
from tests.kernel.node import Node, refusal, run
from tests.leftovers import Leftovers
from tests.torture import pick

if TYPE_CHECKING:
    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

MIB = 1 << 20
SIZES = {"ext4": (64 * MIB, 256 * MIB), "xfs": (300 * MIB, 600 * MIB), "btrfs": (256 * MIB, 512 * MIB)}
OVERHEAD = 0.75
"""What is left of a file system for data, at least: the rest is its log or journal, and tables."""


def _filled(node: Node, fs_type: str) -> tuple[Volume, bytes]:
    volume = node.create("data", SIZES[fs_type][0], fs_type=fs_type).up()
    volume.fill(8 * MIB)
    return volume, volume.file.read_bytes()


def _size(volume: Volume) -> int:
    told = os.statvfs(volume.target)
    return told.f_blocks * told.f_frsize


@pytest.mark.parametrize("fs_type", list(SIZES))
def test_a_mounted_file_system_grows_under_its_pod(node: Node, fs_type: str) -> None:
    """An open file goes on, what was there is there, and there is room for what did not fit before."""
    volume, data = _filled(node, fs_type)
    old, new = SIZES[fs_type]
    with volume.file.open("r+b") as file:
        needs_the_node = volume.expand(new)
        volume.expand_on_node(new)
        volume.expand_on_node(new)
        file.seek(0, os.SEEK_END)
        file.write(bytes(old))
        os.fsync(file.fileno())

    assert needs_the_node
    assert _size(volume) >= OVERHEAD * new
    assert volume.file.read_bytes() == data + bytes(old)


@pytest.mark.parametrize("fs_type", pick(["xfs"], list(SIZES)))
def test_a_file_system_that_is_not_staged_grows_when_it_is(node: Node, fs_type: str) -> None:
    """A kubelet may never ask: the stage does it."""
    volume, data = _filled(node, fs_type)
    new = SIZES[fs_type][1]
    volume.down()
    volume.expand(new)
    volume.up()

    assert _size(volume) >= OVERHEAD * new
    assert volume.file.read_bytes() == data


@pytest.mark.parametrize("fs_type", pick(["btrfs"], list(SIZES)))
def test_a_snapshot_restored_into_a_larger_volume_fills_it(node: Node, fs_type: str) -> None:
    """The file system of a copy is as small as its source's was."""
    volume, data = _filled(node, fs_type)
    new = SIZES[fs_type][1]
    restored = node.create("restored", new, fs_type=fs_type, source=node.cut(volume, "cut")).up()

    assert _size(restored) >= OVERHEAD * new
    assert restored.file.read_bytes() == data
    assert volume.file.read_bytes() == data


def test_a_raw_block_volume_grows_under_its_pod_and_the_new_part_is_zero(node: Node) -> None:
    """The pod's own device shows it; no file system is there for the node to grow."""
    volume = node.create("data", 64 * MIB, block=True).up()
    volume.fill(64 * MIB)
    with volume.file.open("rb") as file:
        data = file.read()
        volume.expand(128 * MIB)
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.seek(0)
        grown = file.read()
    volume.expand_on_node(128 * MIB)

    assert size == 128 * MIB
    assert grown == data + bytes(64 * MIB)


def test_a_device_that_is_too_small_is_not_said_to_be_large_enough(node: Node) -> None:
    """NodeExpandVolume never grows bytes: without the controller's part it refuses."""
    volume = node.create("data", 64 * MIB).up()

    code, said = refusal(lambda: volume.expand_on_node(128 * MIB))
    assert (code, str(64 * MIB) in said) == (grpc.StatusCode.OUT_OF_RANGE, True), said


@pytest.mark.parametrize("fs_type", pick(["btrfs"], ["ext4", "btrfs"]))
def test_a_file_system_that_went_read_only_is_not_well(node: Node, fs_type: str) -> None:
    """Both who asks for its condition and who stages it again are told, and nothing is taken down under the pod."""
    volume = node.create("data", SIZES[fs_type][0], fs_type=fs_type).up()
    run("mount", "-o", "remount,ro", volume.device, volume.staging)

    assert "read-only" in volume.condition_on_node()
    code, said = refusal(volume.stage)
    assert (code, "read-only" in said) == (grpc.StatusCode.UNAVAILABLE, True), said
    assert volume.target.is_mount()


@pytest.mark.parametrize("fs_type", pick(["ext4"], list(SIZES)))
def test_a_device_that_is_read_only_is_not_mounted_as_if_it_were_not(node: Node, fs_type: str) -> None:
    """The kernel would mount it read-only, and a pod's first write would be the first to know."""
    volume = node.create("data", SIZES[fs_type][0], fs_type=fs_type).up()
    volume.down()
    raw = volume.staged_as(block=True)
    raw.stage()
    run("blockdev", "--setro", volume.device)

    code, said = refusal(volume.stage)
    assert (code, "read-only" in said.lower()) == (grpc.StatusCode.UNAVAILABLE, True), said
    assert not volume.staging.is_mount()


def _debugfs(node: Node, volume: Volume, *commands: str) -> None:
    volume.down()
    for command in commands:
        run("debugfs", "-w", "-R", command, node.image(volume.id))


def test_a_file_system_with_small_faults_is_repaired_before_it_is_mounted(node: Node) -> None:
    """Wrong counts of free blocks, after a file system noted errors: e2fsck puts that right by itself."""
    volume, data = _filled(node, "ext4")
    _debugfs(node, volume, "set_super_value free_blocks_count 5", "set_super_value state 2")
    volume.up()

    assert volume.file.read_bytes() == data
    volume.down()
    run("e2fsck", "-fn", node.image(volume.id))


def test_a_file_system_that_needs_a_person_is_not_mounted(node: Node) -> None:
    """Its root folder's inode is gone: the error says who must act, and nothing stays up."""
    volume, _ = _filled(node, "ext4")
    _debugfs(node, volume, "clri <2>", "set_super_value state 2")
    before = Leftovers.now()

    code, said = refusal(volume.stage)
    assert (code, "needs repair by hand" in said) == (grpc.StatusCode.UNAVAILABLE, True), said
    assert Leftovers.now().since(before) == []


def test_an_xfs_that_does_not_mount_is_left_as_it_is(node: Node) -> None:
    """Its superblock is damaged: refused, nothing stays up, and not one byte is changed."""
    volume, _ = _filled(node, "xfs")
    volume.down()
    with node.image(volume.id).open("r+b") as file:
        file.seek(8)
        file.write(b"\xff" * 64)
    before, bytes_before = Leftovers.now(), digest(node.image(volume.id))

    code, said = refusal(volume.stage)
    assert code == grpc.StatusCode.UNAVAILABLE, said
    assert digest(node.image(volume.id)) == bytes_before
    assert Leftovers.now().since(before) == []
