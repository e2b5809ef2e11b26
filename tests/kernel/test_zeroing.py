"""Zeroing a thick volume outlives the server: what is noted as zeroed isn't zeroed again, and all the rest is."""

from __future__ import annotations

import functools
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.backends.lvmgroup import REACHED
from csi_driver.deadline import Deadline, wait_for
from tests.faults.rig import until_done
from tests.kernel.node import MIB, refusal
from tests.kernel.slices import Slice, sliced
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.thinpool import ThinPool, lvm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

SIZE_MIB = 1200
"""More than one try zeroes, which is 1,000 at most."""
DIRT_MIB = 1150
SOON = 120.0
SLOW_MS = 30


@pytest.fixture
def disk() -> Iterator[Slice]:
    """Give a disk with room for the volume beside a pool that could promise as much."""
    before = Leftovers.now()
    with sliced(a=2 * SIZE_MIB + 300) as made:
        yield made["a"]

    assert Leftovers.now().since(before) == []


@pytest.fixture
def thin(disk: Slice) -> Iterator[ThinNode]:
    """Give a node that serves a thin pool on that disk."""
    with ThinNode(qos="off", thin=ThinPool(disk=str(disk.path), size=("-L", f"{SIZE_MIB + 50}m"))) as running:
        yield running


def written(name: str, at: int, words: bytes) -> None:
    """Write words at a place of a logical volume."""
    fd = os.open(f"/dev/fast/{name}", os.O_RDWR)
    try:
        os.pwrite(fd, words, at)
        os.fsync(fd)
    finally:
        os.close(fd)


def half_zeroed(thin: ThinNode) -> str:
    """Kill the server when it has noted how far it got with a new volume, and return the logical volume's name."""
    make = functools.partial(thin.create, "a", SIZE_MIB * MIB, block=True, tier="scratch")
    with ThreadPoolExecutor() as callers:
        answer = callers.submit(refusal, make)
        wait_for("it is noted", lambda: REACHED in lvm("lvs", "--noheadings", "-o", "lv_tags", "fast"), Deadline(SOON))
        thin.stop(signal.SIGKILL)
    assert answer.result()[0] in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    (name,) = thin.images()
    return name


def test_zeroing_goes_on_where_a_killed_server_had_got_to(thin: ThinNode, disk: Slice) -> None:
    """A word that is written behind the mark is still there in the end; the secret before it isn't."""
    lvm("lvcreate", "-y", "-W", "n", "-L", f"{SIZE_MIB}m", "-n", "dirt", "fast")
    written("dirt", DIRT_MIB * MIB, b"a secret" * MIB)
    lvm("lvremove", "-f", "fast/dirt")
    with disk.slow(SLOW_MS):
        name = half_zeroed(thin)
        tags = thin.tags(name.removeprefix("sluice-"))
        written(name, 0, b"zeroed once")
    thin.start()
    until_done(functools.partial(thin.create, "a", SIZE_MIB * MIB, block=True, tier="scratch"), SOON)
    volume = thin.volumes[-1].up()
    with volume.file.open("rb") as file:
        begin = file.read(16)
        file.seek(DIRT_MIB * MIB)
        end = file.read()

    assert "sluice:zeroed=0" in tags
    assert begin == b"zeroed once".ljust(16, b"\0")
    assert (len(end), end.strip(b"\0")) == ((SIZE_MIB - DIRT_MIB) * MIB, b"")
    assert not any(tag.startswith(REACHED) for tag in thin.tags(volume.id))
