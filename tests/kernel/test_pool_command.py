"""`sluice pool` on real disks: what is refused, what is made, and a pool that grows under a server."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.rpc import csi_pb2 as csi
from tests.kernel.node import MIB, refusal, run
from tests.kernel.parted import clean, parts, sluice, sluice_json
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.thinpool import ThinPool, lvm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

SECONDS = 60.0
CREATE = ("pool", "create", "--name", "fast")


class MadeNode(ThinNode):
    """A node whose pool was made by `sluice pool create`: no flag of the server names it."""

    def __init__(self, disk: str, *words: str) -> None:
        super().__init__()
        self._words = words
        self.thin = ThinPool(disk=disk)
        self._argv = [word for word in self._argv if not word.startswith("--pool=")]
        self.said = ""

    def format(self) -> None:
        state = self.folder / "state"
        self.said, _ = sluice(*CREATE, "--device", self.thin.disk, "--state", state, *self._words)

    def pool_condition(self) -> str:
        (shown,) = sluice_json("pool", "list", "--state", self.folder / "state")
        return str(shown["condition"])


@pytest.fixture(scope="module")
def disks() -> Iterator[tuple[str, ...]]:
    """Give the parts of the data disk, and see that nothing is left on them."""
    before = Leftovers.now()
    with parts() as made:
        yield made

    assert Leftovers.now().since(before) == []


def attributes(*fields: str) -> list[str]:
    return lvm("lvs", "--noheadings", "--separator", "|", "-o", ",".join(fields), "fast/thin").strip().split("|")


def fill(path: Path, at: int = 0, most: int = 1 << 30) -> int:
    """Write numbered mebibytes past the page cache until one is refused; return how many were taken."""
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    with mmap.mmap(-1, MIB) as piece:
        try:
            for number in range(at, most):
                struct.pack_into("<Q", piece, 0, number)
                os.pwrite(fd, piece, number * MIB)
        except OSError:
            return number
        finally:
            os.close(fd)
    return most


def numbers(path: Path, count: int) -> list[int]:
    """Return the numbers that the first mebibytes begin with, past the page cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as piece:
        try:
            return [
                struct.unpack_from("<Q", piece)[0]
                for at in range(count)
                if os.preadv(fd, [piece], at * MIB) == len(piece)
            ]
        finally:
            os.close(fd)


def beginning(disk: str) -> bytes:
    with Path(disk).open("rb") as file:
        return file.read(MIB)


def test_a_disk_that_holds_anything_is_refused(disks: tuple[str, ...], tmp_path: Path) -> None:
    """What it holds is said, and how a person wipes it; not a byte of it changes."""
    ext4, swap, mounted = disks
    run("mkfs.ext4", "-q", "-F", ext4)
    run("mkswap", swap)
    run("mkfs.xfs", "-q", "-f", mounted)
    run("mount", mounted, tmp_path)
    before = [beginning(disk) for disk in (ext4, swap)]
    state = tmp_path / "none"
    try:
        said = [sluice(*CREATE, "--state", state, "--device", disk, status=1)[1] for disk in (disks[0][:-1], *disks)]
        run("swapon", swap)
        said.append(sluice(*CREATE, "--state", state, "--device", swap, status=1)[1])
        run("swapoff", swap)
    finally:
        run("umount", tmp_path)
    after = [beginning(disk) for disk in (ext4, swap)]
    clean(*disks)

    expected = [
        (f"partition {Path(ext4).name}", f"partition {Path(mounted).name} (the mount {tmp_path})"),
        (f"{ext4} holds ext4", f"wipefs --all {ext4}"),
        ("holds swap",),
        (f"carries the mount {tmp_path}",),
        ("carries swap",),
    ]
    assert [words for words, text in zip(expected, said, strict=True) if not all(word in text for word in words)] == []
    assert [first == second for first, second in zip(before, after, strict=True)] == [True, True]
    assert not state.exists()


def test_what_was_made_before_a_failure_is_removed(disks: tuple[str, ...], tmp_path: Path) -> None:
    """A disk that is too small is as empty afterwards as before; one with rubbish is taken when told so."""
    device = disks[1]
    with Path(device).open("r+b") as file:
        file.write(b"rubbish")
    unknown = sluice(*CREATE, "--state", tmp_path, "--device", device, status=1)[1]
    words = ("--wiped", "--device", device, "--state", tmp_path)
    small = sluice(*CREATE, *words, "--metadata", "700Mi", status=1)[1]

    assert "say --wiped" in unknown
    assert "too few for a thin pool" in small
    assert lvm("pvs", "--noheadings").strip() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["pools.lock"]
    clean(device)


def test_a_made_pool_is_sound_and_served_and_grows_under_the_server(disks: tuple[str, ...]) -> None:
    """The next server needs no flag for it; disks and sizes that are added are used at once, and no volume notices."""
    first, second, _ = disks
    with MadeNode(first) as node:
        state = ("--state", node.folder / "state")
        sound = attributes("zero", "lv_when_full", "discards", "chunk_size", "vg_tags", "vg_autoactivation")
        volume = node.up("a", 256 * MIB, fs_type="xfs")
        (volume.target / "file").write_text("before")
        left = node.client.controller.GetCapacity(csi.GetCapacityRequest(), timeout=60).available_capacity
        twice = sluice(*CREATE, "--device", second, *state, status=1)[1]
        by_disk = sluice_json("pool", "extend", "fast", "--device", second, *state)
        by_size = sluice_json("pool", "extend", "fast", "--size", "+20Mi", "--metadata", "+8Mi", *state)
        too_much = sluice("pool", "extend", "fast", "--size", "+10Gi", *state, status=1)[1]
        other = node.up("b", 64 * MIB)
        (volume.target / "large").write_bytes(bytes(200 * MIB))
        now = node.client.controller.GetCapacity(csi.GetCapacityRequest(), timeout=60).available_capacity
        (shown,) = sluice_json("pool", "list", *state)
        table, _ = sluice("pool", "list", *state)
        conditions = node.listed()
        kept = (volume.target / "file").read_text()
    run("pvremove", "-y", second)
    clean(*disks)

    assert sound == ["zero", "error", "passdown", "64.00k", "sluice:pool=fast", ""]
    assert "--pool name=fast,backend=lvm,vg=fast,thinpool=thin" in node.said
    assert "pool fast is there already" in twice
    assert by_disk["after"]["size"] - by_disk["before"]["size"] > 600 * MIB
    assert by_size["after"]["size"] - by_size["before"]["size"] == 20 * MIB
    assert by_size["after"]["metadata"] - by_size["before"]["metadata"] == 8 * MIB
    assert by_size["after"]["spare"] == by_size["after"]["metadata"]
    assert "add a disk by --device" in too_much
    assert now > left
    assert (shown["name"], shown["where"], shown["condition"]) == ("fast", "fast/thin", "")
    assert shown["metadataUsed"] > 0
    assert "well" in table
    assert conditions == {volume.id: "", other.id: ""}
    assert kept == "before"


@pytest.mark.torture
def test_a_full_pool_gives_errors_and_serves_again_when_it_is_extended(disks: tuple[str, ...]) -> None:
    """At once and not after a minute; what was acknowledged is there, and from the reserve there is room at once."""
    with MadeNode(disks[1], "--ratio", "10") as node:
        state = ("--state", node.folder / "state")
        volume = node.create("raw", 1500 * MIB, block=True).up()
        taken = fill(volume.file)
        wait_for("the condition says it", lambda: "full" in node.pool_condition(), Deadline(SECONDS))
        refused = refusal(lambda: node.create("more"))
        sluice("pool", "extend", "fast", "--size", "+20Mi", *state)
        more = fill(volume.file, taken, taken + 16)
        sluice("pool", "extend", "fast", "--device", disks[2], *state)
        wait_for("the condition ends", lambda: not node.pool_condition(), Deadline(SECONDS))
        other = node.up("more")
        (other.target / "file").write_bytes(bytes(MIB))
        kept = numbers(volume.file, more)
    run("pvremove", "-y", disks[2])
    clean(*disks)

    assert 500 < taken < 800
    assert refused[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert more == taken + 16
    assert kept == list(range(more))
