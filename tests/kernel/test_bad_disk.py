"""The mkfs rule on a disk that can't be read: a failing sector is no reason to believe that nothing is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.kernel.images import digest, extents
from tests.kernel.node import MIB, Node, refusal, run
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.kernel

SIZE = 16 * MIB


@pytest.fixture
def flaky() -> Iterator[Path]:
    """Give a device on the data disk that can be made to fail its reads."""
    disk = os.environ["SLUICE_DISK"]
    run("dmsetup", "create", "flaky", "--table", f"0 {_sectors(disk)} linear {disk} 0")
    run("udevadm", "settle")
    yield Path("/dev/mapper/flaky")
    run("dmsetup", "remove", "--retry", "flaky")


@pytest.mark.parametrize("formatted", pick([True], [False, True]))
def test_what_can_not_be_read_is_never_formatted(flaky: Path, formatted: bool) -> None:
    """Bad sectors where a superblock would be, or is: the stage fails, and when the disk is well again all is there."""
    with Node(disk=str(flaky)) as node:
        volume = node.create("data", SIZE, block=not formatted).up()
        volume.fill(4 * MIB)
        volume.down()
        image = node.image(volume.id)
        before, extent = digest(image), extents(image)[0]
        _fail_reads(extent.start, extent.length)
        code, said = refusal(volume.staged_as(block=False).stage)
        _load(f"0 {_sectors(os.environ['SLUICE_DISK'])} linear {os.environ['SLUICE_DISK']} 0")
        after, done = digest(image), node.record(volume.id).status.history.format_done
        volume.up()

    assert code == grpc.StatusCode.UNAVAILABLE, said
    assert "error" in said
    assert after == before
    assert done == ("ext4" if formatted else "")


def _sectors(disk: str) -> int:
    return int(run("blockdev", "--getsz", disk))


def _fail_reads(start: int, length: int) -> None:
    """Let the flaky device fail reads of one stretch: dm-flakey, up for no second and down for an hour."""
    disk = os.environ["SLUICE_DISK"]
    after = start + length
    _load(
        f"0 {start} linear {disk} 0\n"
        f"{start} {length} flakey {disk} {start} 0 3600 1 error_reads\n"
        f"{after} {_sectors(disk) - after} linear {disk} {after}"
    )


def _load(table: str) -> None:
    run("sh", "-c", 'printf "%s\\n" "$0" | dmsetup load flaky', table)
    run("dmsetup", "suspend", "flaky")
    run("dmsetup", "resume", "flaky")
