"""No tenant reads what another wrote: new, grown, restored and discarded space shows zeros, also after a crash.

The thin pools are so small that what one volume wrote is where the next one's chunks will be.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import grpc
import pytest

from tests.kernel.hindered import HinderedNode
from tests.kernel.node import MIB, Node, run
from tests.kernel.slices import sliced
from tests.leftovers import Leftovers
from tests.thinpool import ThinPool
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

T = TypeVar("T")

SIZE, HALF = 48 * MIB, 24 * MIB
THIN_MIB, XFS_MIB = 64, 320
SECRET = b"another tenant's" * (MIB // 16)
MARK = b"our own" + bytes(4089)
STEP = 64 << 10
ZEROS = bytes(STEP)


@pytest.fixture(scope="module", params=pick(["64k"], ["loop", "64k", "512k"]))
def machine(request: pytest.FixtureRequest) -> Iterator[Node]:
    """Give a node with a small pool: image files, or a thin pool with chunks of a size."""
    before = Leftovers.now()
    with sliced(a=XFS_MIB) as slices:
        disk = str(slices["a"].path)
        thin = ThinPool(chunk=request.param, disk=disk, size=("-L", f"{THIN_MIB}m"))
        made = Node(qos="off", disk=disk) if request.param == "loop" else HinderedNode(thin=thin)
        with made as running:
            yield running

    assert Leftovers.now().since(before) == []


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    """Give the module's node, and take down all that the test made there."""
    yield machine
    machine.take_down()

    assert machine.images() == []


def spoiled(node: Node) -> Volume:
    """Return a published volume that is full of what nobody else may see."""
    volume = node.create("a", SIZE, block=True).up()
    with volume.file.open("r+b", buffering=0) as file:
        for _ in range(SIZE // MIB):
            file.write(SECRET)
        os.fsync(file.fileno())
    return volume


def gone(volume: Volume) -> None:
    """Take a volume down and delete it."""
    volume.down()
    volume.delete()


def foreign(volume: Volume) -> list[int]:
    """Return where a volume has anything but zeros and our marks, in steps."""
    run("blockdev", "--flushbufs", volume.device)
    found = []
    with volume.file.open("rb") as file:
        at = 0
        while data := file.read(STEP):
            if data != ZEROS and data.replace(MARK, b"").strip(b"\0"):
                found.append(at)
            at += 1
    return found


def mark(volume: Volume, start: int, end: int) -> None:
    """Write 4 KiB into each step, at another place in each: the rest of a chunk is what its allocation makes of it."""
    with volume.file.open("r+b", buffering=0) as file:
        for number, at in enumerate(range(start, end, STEP)):
            file.seek(at + number % (STEP // len(MARK)) * len(MARK))
            file.write(MARK)
        os.fsync(file.fileno())


def attack(volume: Volume, expand: Callable[[], object]) -> list[list[int]]:
    """Read a new volume, write to parts of all its chunks, grow it, discard; return what was seen at each step."""
    seen = [foreign(volume)]
    mark(volume, 0, HALF)
    seen.append(foreign(volume))
    expand()
    seen.append(foreign(volume))
    mark(volume, HALF, SIZE)
    seen.append(foreign(volume))
    for offset, length in ((4096, 8192), (MIB, MIB), (2 * MIB + 4096, 3 * MIB)):
        run("blkdiscard", "--offset", str(offset), "--length", str(length), volume.device)
    mark(volume, 0, SIZE)
    return [*seen, foreign(volume)]


def test_a_volume_shows_nothing_of_a_deleted_one(node: Node) -> None:
    """Neither new, nor where it is written in part, nor grown, nor discarded."""
    gone(spoiled(node))
    volume = node.create("b", HALF, block=True).up()

    assert attack(volume, partial(volume.expand, SIZE)) == [[]] * 5


@pytest.mark.torture
def test_a_volume_shows_nothing_of_a_deleted_snapshot_and_its_clone(node: Node) -> None:
    """A clone that is larger than its source is zeros behind it; when all are deleted, they are gone for all."""
    source = spoiled(node)
    snapshot = node.cut(source, "cut")
    clone = node.create("c", SIZE + 4 * MIB, block=True, source=snapshot).up()
    mark(clone, SIZE, SIZE + 4 * MIB)
    behind = [at for at in foreign(clone) if at >= SIZE // STEP]
    for each in (source, clone):
        gone(each)
    snapshot.delete()
    volume = node.create("b", HALF, block=True).up()

    assert behind == []
    assert attack(volume, partial(volume.expand, SIZE)) == [[]] * 5


@pytest.mark.parametrize("machine", pick(["64k"], ["64k", "512k"]), indirect=True)
def test_a_crash_in_the_middle_shows_nothing_either(node: Node) -> None:
    """The server dies while lvm cuts, clones, removes, makes and grows; the command goes on, or ends with it."""
    assert isinstance(node, HinderedNode)
    source = spoiled(node)
    snapshot = crashed(node, "lvcreate", partial(node.cut, source, "cut"))
    clone = crashed(node, "lvcreate", partial(node.create, "c", SIZE, block=True, source=snapshot))
    source.down()
    crashed(node, "lvremove", source.delete)
    clone.delete()
    snapshot.delete()
    volume = crashed(node, "lvcreate", partial(node.create, "b", HALF, block=True)).up()

    assert attack(volume, lambda: crashed(node, "lvextend", partial(volume.expand, SIZE))) == [[]] * 5


def crashed(node: HinderedNode, command: str, call: Callable[[], T]) -> T:
    """Make a call whose lvm command is the server's end, and again with the next server."""
    node.once(command, 'kill -9 "$PPID"')
    with pytest.raises(grpc.RpcError):
        call()
    node.stop(signal.SIGKILL)
    node.start()
    return call()
