"""`sluice adopt` over a thin pool: records from the tags, and what has none is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.assemble import DATABASE
from csi_driver.deadline import Deadline, wait_for
from tests.kernel.node import run
from tests.kernel.parted import sluice, sluice_json
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.thinpool import lvm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

MIB = 1 << 20
SECONDS = 60.0
NAMELESS = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def thin() -> Iterator[ThinNode]:
    """Give a node that serves a thin pool, and see that nothing of it is left."""
    before = Leftovers.now()
    with ThinNode() as running:
        yield running

    assert Leftovers.now().since(before) == []


def test_records_are_rebuilt_from_tags(thin: ThinNode) -> None:
    """The volume serves as before, its snapshot can be restored, and an LV of our name without a passport stays."""
    volume = thin.up("a", tier="training", fs_type="xfs", size=400 * MIB)
    (volume.target / "file").write_text("a pod was here")
    snapshot = thin.cut(volume, "moment")
    volume.down()
    wait_for("the tags say it", lambda: "sluice:format=xfs" in thin.tags(volume.id), Deadline(SECONDS))
    thin.stop()
    for file in (thin.folder / "state").glob(f"{DATABASE}*"):
        file.unlink()
    lvm("lvcreate", "-q", "-y", "-V", "64m", "-T", "fast/thin", "-n", f"sluice-{NAMELESS}")
    flags = ("--state", thin.folder / "state", "--node-id", "node-a", "--pool", f"name=fast,{thin.thin.words}")
    plan = sluice_json("adopt", *flags, status=1)
    nothing = [path.name for path in (thin.folder / "state").glob(f"{DATABASE}*")]
    sluice("adopt", *flags, "--yes", status=1)
    thin.start()
    volume.up()
    copy = thin.create("b", 400 * MIB, fs_type="xfs", source=snapshot).up()
    kept = (volume.target / "file").read_text()
    copied = (copy.target / "file").read_text()
    listed = thin.listed()
    tier = thin.record(volume.id).spec.qos.tier
    lvm("lvremove", "-q", "-y", f"fast/sluice-{NAMELESS}")

    assert {step["id"]: step["action"] for step in plan["steps"]} == {
        volume.id: "adopt",
        snapshot.id: "adopt",
        NAMELESS: "leave",
    }
    assert (nothing, plan["troubles"]) == ([], {})
    assert (kept, copied, tier) == ("a pod was here", "a pod was here", "training")
    assert listed == {volume.id: "", copy.id: ""}


def test_an_administrators_volume_is_taken_over_on_his_word(thin: ThinNode) -> None:
    """It gets a name and a passport; its file system and its bytes are those that it had."""
    thin.stop()
    lvm("lvcreate", "-q", "-y", "-V", "128m", "-T", "fast/thin", "-n", "mine")
    run("mkfs.ext4", "-q", "/dev/fast/mine")
    run("mount", "/dev/fast/mine", "/mnt")
    Path("/mnt/file").write_text("from before")
    flags = ("--state", thin.folder / "state", "--node-id", "node-a", "--pool", f"name=fast,{thin.thin.words}")
    take = ("adopt", *flags, "--lv", "fast/mine", "--as", "old", "--tier", "inference")
    in_use = sluice(*take, "--yes", status=1)[1]
    run("umount", "/mnt")
    planned = sluice(*take)[0]
    unchanged = lvm("lvs", "--noheadings", "-o", "lv_name", "fast").split()
    sluice(*take, "--yes")
    thin.start()
    volume = thin.create("old", 128 * MIB, fs_type="ext4", tier="inference").up()
    kept = (volume.target / "file").read_text()
    again = sluice(*take, "--yes", status=1)[1]
    tier = thin.record(volume.id).spec.qos.tier

    assert "fast/mine is in use" in in_use
    assert "fast/mine, which holds ext4, would be fast/sluice-" in planned
    assert "mine" in unchanged
    assert (kept, tier) == ("from before", "inference")
    assert "another sluice" in again
