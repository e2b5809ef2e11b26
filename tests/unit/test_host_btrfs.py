"""What the host package knows of btrfs: whose mounts are whose, superblocks, and what the kernel can."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver import parameters
from csi_driver.errors import NotFound, Unready
from csi_driver.host import block, filesystem, geometry, mountinfo
from csi_driver.host.block import Device
from csi_driver.host.btrfs import Btrfs, copies_mount
from csi_driver.host.freeze import Freezer, Still
from csi_driver.host.syscalls import BTRFS_IOC_RESIZE, Kernel
from qos.limits import DevNo
from tests.fakes.host import FakeDeadMan
from tests.fakes.machine import FakeMachine

if TYPE_CHECKING:
    from collections.abc import Callable

LINES = """\
36 35 98:0 / /data rw - ext4 /dev/dm-3 rw
45 24 0:31 / /staging rw shared:41 - btrfs /dev/dm-3 rw,subvolid=5
46 24 0:31 / /pod rw shared:41 - btrfs /dev/dm-3 rw,subvolid=5
47 24 0:32 / /clone rw - btrfs /dev/dm-4 rw,subvolid=5
48 24 0:33 / /renamed rw - btrfs /mnt/nfs/link rw
49 24 0:34 / /gone rw - btrfs /dev/dm-9 rw
50 24 0:35 / /odd\\040-\\040btrfs\\040 rw - tmpfs /dev/dm-3 rw
"""
NUMBERS = {"/dev/dm-3": DevNo(253, 3), "/dev/dm-4": DevNo(253, 4)}
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def device_at(path: Path) -> Device:
        assert path.is_relative_to("/dev"), f"{path} is looked at, and it could hang"
        if str(path) not in NUMBERS:
            raise NotFound(f"no block device at {path}")
        return Device(path, NUMBERS[str(path)])

    (tmp_path / "mountinfo").write_text(LINES)
    monkeypatch.setattr(mountinfo, "MOUNTINFO", tmp_path / "mountinfo")
    monkeypatch.setattr(block, "device_at", device_at)


def test_mounts_of_a_btrfs_are_those_of_its_device() -> None:
    """Their own number says nothing; a source that is no device, or none any more, leaves it."""
    found = {str(mount.target): mount.dev for mount in mountinfo.all_mounts()}

    assert [str(mount.target) for mount in mountinfo.of(DevNo(253, 3))] == ["/staging", "/pod"]
    assert [str(mount.target) for mount in mountinfo.of(DevNo(253, 4), DevNo(98, 0))] == ["/clone", "/data"]
    assert found["/renamed"] == DevNo(0, 33)
    assert found["/gone"] == DevNo(0, 34)
    assert found["/odd - btrfs "] == DevNo(0, 35)


def image(tmp_path: Path, magic: bytes = b"_BHRfS_M", devices: int = 1) -> Path:
    """Return an image with the superblock of a btrfs of 512 MiB."""
    superblock = bytearray(4096)
    superblock[0x40:0x48] = magic
    struct.pack_into("<Q", superblock, 0x70, 512 * MIB)
    struct.pack_into("<Q", superblock, 0x88, devices)
    path = tmp_path / "image"
    path.write_bytes(bytes(64 << 10) + superblock)
    return path


def test_a_superblock_tells_the_size(tmp_path: Path) -> None:
    """It is that of its one device."""
    assert geometry.btrfs_size(geometry.btrfs_superblock(image(tmp_path))) == 512 * MIB


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda folder: image(folder, b"!BHRfS_M"), "whose mkfs did not end"),
        (lambda folder: image(folder, bytes(8)), "no btrfs superblock; `btrfs rescue super-recover`"),
        (lambda folder: image(folder, devices=3), "one of 3 devices"),
        (lambda _: Path("/nonexistent"), "read error"),
    ],
    ids=["half made", "gone", "several devices", "unreadable"],
)
def test_what_can_not_be_mounted_is_said_before_it_is_tried(
    tmp_path: Path, made: Callable[[Path], Path], words: str
) -> None:
    """Each in words that a person can act on."""
    with pytest.raises(Unready, match=words):
        geometry.btrfs_superblock(made(tmp_path))


def test_the_kernel_says_itself_whether_it_mounts_copies(tmp_path: Path) -> None:
    """Once its btrfs is loaded; before that its release has to do."""
    features = tmp_path / "features"
    by_release = {
        release: copies_mount(features, release)
        for release in ("6.6.99-1", "6.7.0", "6.12.48+deb13", "10.1", "strange")
    }
    features.mkdir()
    without = copies_mount(features, "6.12.0")
    (features / "temp_fsid").touch()

    assert by_release == {"6.6.99-1": False, "6.7.0": True, "6.12.48+deb13": True, "10.1": True, "strange": False}
    assert (without, copies_mount(features, "6.1.0")) == (False, True)


def test_a_long_structure_reaches_the_kernel_and_its_refusal_has_a_name() -> None:
    """Python's own ioctl takes none of 4096 bytes without keeping the GIL."""
    with Path("/dev/null").open("rb") as file, pytest.raises(OSError, match=r"BTRFS_IOC_RESIZE: .*'/a/path'"):
        Kernel().ioctl_struct(file.fileno(), BTRFS_IOC_RESIZE, bytes(4096), path="/a/path")


def test_it_is_made_with_one_copy_of_all_and_without_a_discard() -> None:
    """Sectors are 4 KiB, whatever the device's: such a file system fits all of them."""
    words = {" ".join(Btrfs(Kernel()).mkfs(sector_size=size, blank=True)) for size in (512, 4096)}

    assert words == {"mkfs.btrfs -q -f -K -s 4096 -d single -m single"}


def test_both_tables_of_file_systems_say_the_same() -> None:
    """What a class may ask for is what can be made, and from which size."""
    assert set(parameters.FILE_SYSTEMS) == set(filesystem.SMALLEST)
    assert parameters.SMALLEST == filesystem.SMALLEST


class Mapper:
    """Stand in for device-mapper, with one device."""

    def __init__(self, done: list[str]) -> None:
        self.suspended = False
        self.device = Device(Path("/dev/dm-3"), NUMBERS["/dev/dm-3"])
        self._done = done

    def list(self, _: str) -> tuple[str, ...]:
        return ("sluice-x",)

    def info(self, _: str) -> Mapper:
        return self

    def suspend(self, _: str, *, lock_fs: bool) -> None:
        self.suspended = True
        self._done.append("suspend and lock" if lock_fs else "suspend")

    def resume(self, _: str) -> None:
        self.suspended = False
        self._done.append("resume")


class Watched(Kernel):
    """Note what is done, and do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def syncfs(self, path: Path) -> None:
        self.done.append(f"syncfs {path.name}")

    def ioctl(self, fd: int, request: int, argument: int | bytearray = 0, *, path: object = "") -> int:  # noqa: ARG002
        self.done.append({0xC0045877: "FIFREEZE", 0xC0045878: "FITHAW"}[request])
        return 0


def freezer(folder: Path) -> tuple[Freezer, Mapper, list[str]]:
    """Return a freezer, its mapper, and the list of what they do."""
    kernel = Watched()
    mapper = Mapper(kernel.done)
    return Freezer(kernel, mapper, FakeDeadMan(FakeMachine(folder))), mapper, kernel.done  # type: ignore[arg-type]


def test_a_file_system_that_is_not_frozen_by_its_device_is_frozen_by_itself(tmp_path: Path) -> None:
    """Suspending the device below a btrfs would leave what is in memory out of the cut."""
    made, _, done = freezer(tmp_path)
    with made.together(Still(tmp_path, "sluice-x", by_itself=True)):
        done.append("cut")

    assert done == [f"syncfs {tmp_path.name}", "FIFREEZE", "suspend", "cut", "resume", "FITHAW"]


def test_others_are_frozen_by_their_device_alone(tmp_path: Path) -> None:
    """A second freeze would refuse an administrator's."""
    made, _, done = freezer(tmp_path)
    with made.together(Still(tmp_path, "sluice-x")):
        done.append("cut")

    assert done == [f"syncfs {tmp_path.name}", "suspend and lock", "cut", "resume"]


def test_what_was_frozen_by_itself_is_thawed_with_its_device_at_the_next_start(tmp_path: Path) -> None:
    """A killed container takes the dead man along. What isn't suspended is an administrator's, and left alone."""
    made, mapper, done = freezer(tmp_path)
    line = f"45 24 0:31 / {tmp_path} rw - btrfs /dev/dm-3 rw\n"
    (tmp_path / "mountinfo").write_text(line)
    untouched = made.resume_all(), list(done)
    mapper.suspended = True
    resumed = made.resume_all(), list(done)
    (tmp_path / "mountinfo").write_text(line.replace("btrfs", "ext4").replace("0:31", "253:3"))
    done.clear()
    mapper.suspended = True
    made.resume_all()

    assert untouched == ((), [])
    assert resumed == (("sluice-x",), ["resume", "FITHAW"])
    assert done == ["resume"]
