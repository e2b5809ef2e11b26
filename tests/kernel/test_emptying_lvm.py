"""Large thin volumes are emptied in steps before they are removed, by a server to which small ones are large."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.rpc import csi_pb2 as csi
from tests.kernel.node import MIB, refusal
from tests.kernel.parted import sluice_json
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.thinpool import rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

SIZE, WRITTEN = 10 << 30, 300 * MIB
"""Of so many bytes 4,800 chunks are mapped, in two places: 512 are left to the removal, and 18 tries are made."""
SOON = 90.0


class FewChunks(ThinNode):
    """A node whose server leaves few chunks to the removal."""

    def __init__(self) -> None:
        super().__init__(qos="off")
        self._argv = [sys.executable, "-m", "tests.kernel.few_chunks", *self._argv[3:]]

    def mapped(self) -> float:
        """Return the percentage of the pool that is mapped."""
        return float(rows("lvs", "-o", "data_percent", "fast/thin")[0]["data_percent"])


@pytest.fixture(scope="module")
def thin_machine() -> Iterator[FewChunks]:
    """Give a node that serves a thin pool, and see that nothing of it is left, and that the pool is sound."""
    before = Leftovers.now()
    with FewChunks() as running:
        yield running
        running.take_down()
        running.stop()
        running.thin.check()

    assert Leftovers.now().since(before) == []


def written(volume: Volume) -> None:
    """Write at a volume's begin, and far behind."""
    fd = os.open(volume.file, os.O_RDWR)
    try:
        for at in (0, SIZE - WRITTEN):
            for place in range(at, at + WRITTEN // 2, MIB):
                os.pwrite(fd, os.urandom(4096) * 256, place)
        os.fsync(fd)
    finally:
        os.close(fd)


def digest(volume: Volume, size: int) -> str:
    """Return a digest of a volume's begin, past the page cache."""
    with volume.file.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.sha256(file.read(size)).hexdigest()


def delete(thin: FewChunks, volume: Volume, seconds: float) -> None:
    """Ask once for a volume's deletion."""
    thin.client.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume.id), timeout=seconds)


def test_a_large_volume_goes_in_pieces_and_by_itself(thin: FewChunks) -> None:
    """One call hears how far it is and comes to no end; the space comes back, and of all others not a byte is gone."""
    neighbour = thin.create("n", 64 * MIB, block=True).up()
    neighbour.fill(32 * MIB)
    before, kept = thin.mapped(), digest(neighbour, 64 * MIB)
    large = thin.create("a", SIZE, block=True).up()
    written(large)
    large.down()
    code, words = refusal(lambda: delete(thin, large, 2.0))
    tags = thin.tags(large.id)
    wait_for("it goes by itself", lambda: f"sluice-{large.id}" not in thin.images(), Deadline(SOON))

    assert code is grpc.StatusCode.ABORTED
    assert f"sluice-{large.id} is emptied before it is removed" in words
    assert "sluice:condemned=yes" in tags
    assert digest(neighbour, 64 * MIB) == kept
    assert thin.mapped() == pytest.approx(before, abs=0.1)


def test_a_large_volume_that_was_cut_goes_at_once_and_its_snapshot_stays(thin: FewChunks) -> None:
    """What both share isn't discarded."""
    large = thin.create("a", SIZE, block=True).up()
    written(large)
    content = digest(large, WRITTEN // 2)
    snapshot = thin.cut(large, "moment")
    large.down()
    before = thin.log.read_text().count("emptying")
    large.delete()
    copy = thin.create("b", SIZE, block=True, source=snapshot).up()
    copied = digest(copy, WRITTEN // 2)
    copy.down()
    copy.delete()

    assert copied == content
    assert thin.log.read_text().count("emptying") == before


def test_what_a_killed_server_had_half_emptied_is_never_offered_and_goes(thin: FewChunks) -> None:
    """The next server goes on with it; were the records lost, nobody would take it for a volume."""
    large = thin.create("a", SIZE, block=True).up()
    written(large)
    large.down()
    refusal(lambda: delete(thin, large, 2.0))
    thin.stop(signal.SIGKILL)
    half = rows("lvs", "-o", "data_percent", f"fast/sluice-{large.id}")[0]["data_percent"]
    state = thin.folder / "another"
    flags = ("--state", state, "--node-id", "node-a", "--pool", f"name=fast,{thin.thin.words}")
    plan = sluice_json("adopt", *flags, status=1)
    thin.start()
    wait_for("it goes", lambda: f"sluice-{large.id}" not in thin.images(), Deadline(SOON))

    assert float(half) > 0
    assert [(step["id"], step["action"]) for step in plan["steps"]] == [(large.id, "leave")]


def test_a_volume_that_somebody_has_open_loses_nothing(thin: FewChunks) -> None:
    """An administrator's program reads the logical volume: it is deleted when that has ended."""
    large = thin.create("a", SIZE, block=True).up()
    written(large)
    content = digest(large, WRITTEN // 2)
    large.down()
    name = f"fast/sluice-{large.id}"
    fd = os.open(f"/dev/{name}", os.O_RDONLY)
    try:
        code, words = refusal(lambda: delete(thin, large, 3.0))
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        still = hashlib.sha256(os.read(fd, WRITTEN // 2)).hexdigest()
    finally:
        os.close(fd)
    wait_for("it goes by itself", lambda: name.partition("/")[2] not in thin.images(), Deadline(SOON))

    assert code is grpc.StatusCode.ABORTED
    assert "when nobody has it open any more" in words
    assert still == content
