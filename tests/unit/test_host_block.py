"""What devices stand on, as sysfs tells it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from csi_driver.errors import NotFound, Unready
from csi_driver.host import block
from qos.limits import DevNo

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


class Tree:
    """A sysfs of our own making."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "dev/block").mkdir(parents=True)

    def device(self, name: str, number: str, *, below: tuple[Path, ...] = (), inside: Path | None = None) -> Path:
        folder = (inside or self.root / "devices") / name
        (folder / "slaves").mkdir(parents=True)
        (folder / "queue").mkdir()
        for file, text in (("dev", number), ("size", "2048"), ("queue/rotational", "0"), ("ro", "0")):
            (folder / file).write_text(f"{text}\n")
        for one in below:
            (folder / "slaves" / one.name).symlink_to(one)
        if inside:
            (folder / "partition").write_text("1\n")
        (self.root / "dev/block" / number).symlink_to(folder)
        return folder


def test_the_disks_are_found_through_stripes_and_partitions(tmp_path: Path) -> None:
    """A mapping over a mirror over two partitions of two disks stands on both, each named once."""
    tree = Tree(tmp_path)
    disks = [tree.device(name, number) for name, number in (("sda", "8:0"), ("sdb", "8:16"))]
    (disks[0] / "device").mkdir()
    (disks[0] / "device/model").write_text("Fast disk  \n")
    (disks[0] / "wwid").write_text("t10.one\n")
    parts = [tree.device(f"{disk.name}1", f"8:{at}", inside=disk) for disk, at in zip(disks, (1, 17), strict=True)]
    mirror = tree.device("md0", "9:0", below=tuple(parts))
    thin = tree.device("dm-0", "253:0", below=(mirror,))
    (thin / "dm").mkdir()
    tree.device("dm-1", "253:1", below=(thin, mirror))

    found = block.disks_of(DevNo(253, 1), tmp_path)

    assert [(disk.name, disk.dev) for disk in found] == [("sda", DevNo(8, 0)), ("sdb", DevNo(8, 16))]
    assert (found[0].model, found[0].serial, found[0].size_bytes) == ("Fast disk", "t10.one", MIB)
    assert block.disks_of(DevNo(8, 17), tmp_path) == found[1:]


def test_a_disk_that_was_pulled_out_is_still_named_below(tmp_path: Path) -> None:
    """The kernel leaves a link that leads nowhere; whoever is there is not named."""
    tree = Tree(tmp_path)
    disks = tuple(tree.device(name, number) for name, number in (("sda", "8:0"), ("sdb", "8:16")))
    tree.device("dm-0", "253:0", below=disks)
    before = block.pulled_below(DevNo(253, 0), tmp_path)
    shutil.rmtree(disks[1])

    assert (before, block.pulled_below(DevNo(253, 0), tmp_path)) == ((), ("sdb",))


def test_a_circle_of_devices_ends(tmp_path: Path) -> None:
    """A tree that can't be still ends the walk."""
    tree = Tree(tmp_path)
    one = tree.device("dm-0", "253:0")
    other = tree.device("dm-1", "253:1", below=(one,))
    (one / "slaves/dm-1").symlink_to(other)

    assert block.disks_of(DevNo(253, 0), tmp_path) == ()


def test_what_the_kernel_does_not_have_is_not_found(tmp_path: Path) -> None:
    """An unknown number has no size, no holders and no disks; an unreadable one says which file."""
    tree = Tree(tmp_path)
    (tree.device("sda", "8:0") / "size").write_text("many\n")

    assert block.disks_of(DevNo(0, 40), tmp_path) == ()
    assert block.holders(DevNo(0, 40), tmp_path) == ()
    with pytest.raises(NotFound):
        block.size_bytes(DevNo(0, 40), tmp_path)
    with pytest.raises(Unready, match="size"):
        block.size_bytes(DevNo(8, 0), tmp_path)
