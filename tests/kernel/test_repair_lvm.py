"""The runbook for thin pools that broke: each command of deploy/lvm.md is typed, and all that was synced is there."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.host.block import SECTOR
from hack.bench.thindevices import ThinDevices
from tests.faults.rig import until_done
from tests.kernel.node import MIB, refusal, run
from tests.kernel.runbook import commands, typed
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.thinpool import ThinPool, lvm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

SOON = 60.0
BACKUP = Path("/etc/lvm/backup/fast")
AREA = 16 * MIB
"""What comes before the first extent: label and text of the group."""
BITMAPS_AT = 64 + 16
"""Where the superblock of a thin pool's metadata has the root of the data's bitmaps (thin-provisioning-tools)."""
BLOCK = 4096


@pytest.fixture
def thin(request: pytest.FixtureRequest) -> Iterator[ThinNode]:
    """Give a node of its own, since its pool is broken."""
    before = Leftovers.now()
    pool = ThinPool(size=("-L", "400m"), metadata=getattr(request, "param", "32m"))
    with ThinNode(qos="off", thin=pool) as running:
        yield running

    assert Leftovers.now().since(before) == []


def digest(volume: Volume) -> str:
    return hashlib.sha256(volume.file.read_bytes()).hexdigest()


def written(thin: ThinNode) -> dict[str, str]:
    """Make volumes, one of them cut and changed since, and return the hashes of their files."""
    first, second = (thin.up(name, 96 * MIB) for name in ("first", "second"))
    first.fill(24 * MIB)
    second.fill(24 * MIB)
    thin.cut(first, "moment")
    with first.file.open("r+b") as file:
        file.write(bytes(4 * MIB))
        os.fsync(file.fileno())
    return {volume.id: digest(volume) for volume in thin.volumes}


def hashes(thin: ThinNode) -> dict[str, str]:
    """Stage and publish the volumes, and return the hashes of their files."""
    for volume in thin.volumes:
        until_done(volume.up, SOON)
    return {volume.id: digest(volume) for volume in thin.volumes}


def down(thin: ThinNode) -> None:
    for volume in thin.volumes:
        volume.down()
    thin.stop()


def damage() -> None:
    """Lose the bitmaps of what is allocated: no check passes, and a repair can make them anew."""
    lvm("lvchange", "-ay", "-y", "fast/thin_tmeta")
    start = int(run("dmsetup", "table", "fast-thin_tmeta").split()[-1]) * SECTOR
    lvm("lvchange", "-an", "fast/thin_tmeta")
    with Path(os.environ["SLUICE_DISK"]).open("r+b", buffering=0) as disk:  # the volume itself can only be read
        (root,) = struct.unpack("<Q", os.pread(disk.fileno(), 8, start + BITMAPS_AT))
        os.pwrite(disk.fileno(), bytes(BLOCK), start + root * BLOCK)
        os.fsync(disk.fileno())


def fill_metadata(pool: ThinPool) -> None:
    """Take block after block until there is none."""
    with ThinDevices.of(pool.vg, pool.name) as devices, contextlib.suppress(OSError):
        for number in itertools.count():
            devices.create(number)


def test_damaged_metadata_are_repaired(thin: ThinNode) -> None:
    """Until then no call is answered by guesses; afterwards all is there, the snapshot too, and can be written."""
    before = written(thin)
    down(thin)
    lvm("vgchange", "-an", "fast")
    damage()
    thin.start()
    volume = thin.volumes[0]
    condition, refused = volume.condition(), refusal(volume.stage)
    thin.stop()
    *repair, remove = commands("The pool must be repaired")
    for line in repair:
        typed(line)
    thin.start()
    after = hashes(thin)
    copy = thin.create("copy", 96 * MIB, source=thin.snapshots[0]).up()
    copied = copy.file.read_bytes()[: 4 * MIB]
    thin.up("new").fill(4 * MIB)
    typed(remove)
    listed = set(thin.listed().values())

    assert "thin_check" in condition or "heck of pool" in condition
    assert refused[0] is grpc.StatusCode.UNAVAILABLE
    assert after == before
    assert copied != bytes(4 * MIB)
    assert listed == {""}


@pytest.mark.torture
def test_a_group_is_restored_from_its_backup(thin: ThinNode) -> None:
    """Label and text of its only disk are wiped, while the server serves; the pool and its bytes come back."""
    before = written(thin)
    for volume in thin.volumes:
        volume.down()
    kept = BACKUP.read_text()
    with Path(thin.thin.disk).open("r+b", buffering=0) as disk:
        disk.writelines(bytes(MIB) for _ in range(AREA // MIB))
        os.fsync(disk.fileno())
    volume = thin.volumes[0]
    wait_for("its condition says so", lambda: bool(volume.condition()), Deadline(SOON))
    condition, refused = volume.condition(), refusal(volume.stage)
    thin.stop()
    found = re.search(r'pv0 \{\s+id = "([^"]+)"', kept)
    for line in commands("The group's own text is damaged"):
        typed(line, UUID=found[1] if found else "", DISK=thin.thin.disk)
    thin.start()
    after = hashes(thin)
    thin.up("new").fill(4 * MIB)

    assert all(f"sluice-{volume_id}" in kept for volume_id in before)
    assert "is a physical volume" in condition
    assert refused[0] is grpc.StatusCode.UNAVAILABLE
    assert after == before


@pytest.mark.torture
@pytest.mark.parametrize("thin", ["2m"], indirect=True)
def test_full_metadata_are_extended(thin: ThinNode) -> None:
    """The pool says that it is read-only and why, and serves again when they are larger."""
    before = written(thin)
    fill_metadata(thin.thin)
    volume = thin.volumes[0]
    wait_for("its condition says so", lambda: bool(volume.condition()), Deadline(SOON))
    condition = volume.condition()
    down(thin)
    (extend,) = commands("Metadata are full")
    typed(extend, state=("--state", thin.folder / "state", "--pool", f"name=fast,{thin.thin.words}"))
    thin.start()
    after = hashes(thin)
    thin.up("new").fill(4 * MIB)

    assert "pool extend --metadata" in condition
    assert after == before
