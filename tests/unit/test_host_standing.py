"""What stands on a device, by a sysfs made of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.errors import InUse, Invalid
from csi_driver.host import block, mountinfo, standing
from csi_driver.host.block import Device
from qos.limits import DevNo

if TYPE_CHECKING:
    from csi_driver.host.mountinfo import Mount

DISK = DevNo(8, 0)


@pytest.fixture
def sys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a sysfs with one disk, and a machine with no mounts but those of `mounted`."""
    monkeypatch.setattr(mountinfo, "of", lambda *_: ())
    monkeypatch.setattr(block, "claimed", lambda _: False)
    device(tmp_path, "sda", DISK)
    return tmp_path


def device(sys: Path, name: str, dev: DevNo, on: str = "", **files: str) -> Path:
    """Make a device's folder, of a partition inside its disk's."""
    folder = sys / "devices" / on / name
    folder.mkdir(parents=True)
    for file, text in {"dev": str(dev), "ro": "0", "size": "2048", **files}.items():
        (folder / file.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.replace("__", "/")).write_text(f"{text}\n")
    for link in (sys / "dev/block" / str(dev), sys / "block" / name):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)
    return folder


def hold(folder: Path, name: str) -> None:
    (folder / "holders" / name).mkdir(parents=True)


def check(sys: Path, swaps: Path = Path("/nonexistent")) -> None:
    standing.check_free(Device(Path("/dev/sda"), DISK), sys, swaps)


def test_a_bare_disk_is_free(sys: Path) -> None:
    """Nothing is said of it."""
    check(sys)


def test_partitions_mappings_and_mounts_are_told_to_the_bottom(sys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person sees what the disk is used for, not only that it is."""
    part = device(sys, "sda1", DevNo(8, 1), on="sda", partition="1")
    device(sys, "dm-0", DevNo(253, 0), dm__name="vg-root", dm__uuid="LVM-x")
    hold(part, "dm-0")
    root = mountinfo.parse_line(b"22 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw")
    mounts: dict[DevNo, tuple[Mount, ...]] = {DevNo(253, 0): (root,)}
    monkeypatch.setattr(mountinfo, "of", lambda dev: mounts.get(dev, ()))

    with pytest.raises(InUse, match=r"carries partition sda1 \(vg-root \(the mount /\)\)"):
        check(sys)


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ({"ro": "1"}, Invalid, "is read-only"),
        ({"dm__uuid": "LVM-abc"}, InUse, "is a logical volume"),
        ({"dm__uuid": "SLUICE-abc"}, InUse, "a volume of a pool's"),
    ],
)
def test_what_can_not_carry_a_pool_is_refused(
    sys: Path, files: dict[str, str], error: type[Exception], words: str
) -> None:
    """A pool on a tenant's volume would be the tenant's."""
    device(sys, "dm-7", DevNo(253, 7), **files)

    with pytest.raises(error, match=words):
        standing.check_free(Device(Path("/dev/dm-7"), DevNo(253, 7)), sys)


def test_a_loop_device_is_refused(sys: Path) -> None:
    """The server would not find the pool again."""
    device(sys, "loop3", DevNo(7, 3))

    with pytest.raises(Invalid, match="looks for no pool on loop3"):
        standing.check_free(Device(Path("/dev/loop3"), DevNo(7, 3)), sys)


def test_a_device_that_a_program_has_for_itself_is_refused(sys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running mkfs, a database on the bare disk."""
    monkeypatch.setattr(block, "claimed", lambda _: True)

    with pytest.raises(InUse, match="fuser -v"):
        check(sys)


def test_swap_is_told(sys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is gone says nothing; a swap file counts for its file system's disk."""
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type Size Used Priority\n/dev/sda partition 1 0 -2\n/gone file 1 0 -3\n")
    of = {"/dev/sda": Device(Path("/dev/sda"), DISK)}
    found = block.device_at
    monkeypatch.setattr(block, "device_at", lambda path: of.get(str(path)) or found(path))

    with pytest.raises(InUse, match="carries swap"):
        check(sys, swaps)
