"""Loop devices and file systems on them. Needs root and the module loop, of any kernel."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from csi_driver.deadline import Deadline
from csi_driver.errors import Busy, Foreign, InUse, Invalid, NotFound, OutOfRange, Unready, Unsupported
from csi_driver.host import block, facts
from csi_driver.host.dm import DeviceMapper
from csi_driver.host.filesystem import Filesystems
from csi_driver.host.loopdev import LoopDevices
from csi_driver.host.run import Runner
from csi_driver.host.syscalls import LO_FLAGS_AUTOCLEAR, LOOP_CLR_FD, LOOP_CONFIGURE, Kernel
from qos.limits import DevNo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from csi_driver.host.block import Device

pytestmark = pytest.mark.native
MIB = 1 << 20
T = TypeVar("T")


def soon() -> Deadline:
    return Deadline(60)


class Counting(Kernel):
    """A door to the kernel that remembers what went through, and refuses what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.effects: list[str] = []
        self.refuse: list[tuple[str, int]] = []
        self.before: Callable[[str], None] = lambda _name: None

    def _effect(self, name: str, path: object, call: Callable[[], T]) -> T:
        self.effects.append(name)
        self.before(name)
        if self.refuse and self.refuse[0][0] == name:
            number = self.refuse.pop(0)[1]
            raise OSError(number, f"{name}: injected", str(path))
        return super()._effect(name, path, call)


class Rig:
    """A folder of images and their loop devices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel = Counting()
        self.loops = LoopDevices(self.kernel)
        self.filesystems = Filesystems(Runner(), self.kernel)

    def image(self, name: str = "image", size: int = 64 * MIB) -> Path:
        path = self.folder / name
        path.touch()
        os.truncate(path, size)
        return path

    def attach(self, image: Path, sector_size: int = 4096) -> Device:
        return self.loops.attach(image, sector_size=sector_size, deadline=soon())


@pytest.fixture
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sluice-loop-") as folder:
        made = Rig(Path(folder))
        yield made
        made.kernel.refuse.clear()
        for attached in made.loops.list(made.folder):
            made.loops.detach(attached, soon())
        assert made.loops.list(made.folder) == ()


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_an_image_becomes_a_device_of_its_size(rig: Rig, sector_size: int) -> None:
    """The device has the image's size and the sector size asked for, and bypasses the page cache."""
    device = rig.attach(rig.image(), sector_size)

    assert block.size_bytes(device.dev) == 64 * MIB
    assert block.sector_size(device.dev) == sector_size
    assert not block.read_only(device.dev)
    assert rig.loops.direct_io(device)


def test_attaching_again_gives_the_same_device(rig: Rig) -> None:
    """A retry finds the device of this very file, also after a restart, and changes nothing."""
    image = rig.image()
    first = rig.attach(image)
    rig.kernel.effects.clear()

    again = rig.attach(image)
    after_restart = LoopDevices(rig.kernel).attach(image, sector_size=4096, deadline=soon())

    assert first == again == after_restart
    assert rig.kernel.effects == []


def test_a_device_is_found_by_inode_not_by_name(rig: Rig) -> None:
    """A second link to the file, and the file renamed, lead to the same device; a new file of the old name doesn't."""
    image = rig.image()
    device = rig.attach(image)
    os.link(image, rig.folder / "link")
    image.rename(rig.folder / "renamed")
    rig.image("image")
    fresh = LoopDevices(rig.kernel)

    found = [fresh.find(rig.folder / name) for name in ("link", "renamed", "image", "absent")]

    assert found == [device, device, None, None]


def test_a_file_of_the_same_name_in_another_folder_is_another_file(rig: Rig) -> None:
    """The name is only a hint: the device itself says which file it has."""
    rig.attach(rig.image())
    (rig.folder / "other").mkdir()

    assert rig.loops.find(rig.image("other/image")) is None


def test_another_sector_size_is_refused(rig: Rig) -> None:
    """What is attached with 512 bytes a sector must not pass for 4096."""
    image = rig.image()
    rig.attach(image, 512)

    with pytest.raises(InUse, match="sectors of 512"):
        rig.attach(image, 4096)


def test_a_read_only_device_refuses_writes(rig: Rig) -> None:
    """Read-only is the device's own."""
    device = rig.loops.attach(rig.image(), sector_size=4096, read_only=True, deadline=soon())

    assert block.read_only(device.dev)


def test_a_missing_image_is_not_found(rig: Rig) -> None:
    """No device number is used up for a file that isn't there."""
    with pytest.raises(NotFound):
        rig.attach(rig.folder / "absent")

    assert rig.kernel.effects == []


def test_detaching_frees_the_device_and_again_does_nothing(rig: Rig) -> None:
    """Once detached there is nothing left to detach."""
    image = rig.image()
    device = rig.attach(image)

    freed = [rig.loops.detach(image, soon()) for _ in range(2)]

    assert freed == [True, False]
    assert not (block.sysfs(device.dev) / "loop").exists()


def test_detaching_waits_for_whoever_has_it_open(rig: Rig) -> None:
    """LOOP_CLR_FD answers 0 while the device is open elsewhere; detach returns only when it is gone."""
    image = rig.image()
    device = rig.attach(image)
    fd = os.open(device.path, os.O_RDONLY)
    closer = threading.Timer(0.2, os.close, [fd])
    closer.start()

    rig.loops.detach(image, soon())

    assert closer.finished.is_set()
    assert not (block.sysfs(device.dev) / "loop").exists()


def test_a_device_that_is_going_is_not_given_out(rig: Rig) -> None:
    """A device that frees itself at its last close is waited for, not returned as attached."""
    image = rig.image()
    device = rig.attach(image)
    fd, other = os.open(device.path, os.O_RDONLY), os.open(device.path, os.O_RDONLY)
    rig.kernel.ioctl(fd, LOOP_CLR_FD)
    os.close(fd)
    closer = threading.Timer(0.2, os.close, [other])
    closer.start()

    again = rig.attach(image)

    fd = os.open(again.path, os.O_RDONLY)
    try:
        flags = block.loop_status(fd)[3]
    finally:
        os.close(fd)
    assert closer.finished.is_set()
    assert not flags & LO_FLAGS_AUTOCLEAR


def test_a_device_of_another_file_is_not_detached(rig: Rig) -> None:
    """A number that was freed and taken by somebody else is left alone."""
    image = rig.image()
    device = rig.attach(image)
    attached = rig.loops.list(rig.folder)[0]
    rig.loops.detach(image, soon())
    other = rig.attach(rig.image("other"))

    assert other == device  # the number was reused, or this test shows nothing
    assert not rig.loops.detach(attached, soon())
    with pytest.raises(Foreign):
        LoopDevices(rig.kernel).detach(device, soon())
    assert rig.loops.find(rig.folder / "other") == other


def test_a_claimed_device_is_in_use_and_stays_whole(rig: Rig) -> None:
    """While somebody has it for himself, detach gives up at the deadline and leaves no mark on the device."""
    image = rig.image()
    device = rig.attach(image)
    fd = os.open(device.path, os.O_RDONLY | os.O_EXCL)
    try:
        assert block.claimed(device)
        with pytest.raises(InUse):
            rig.loops.detach(image, Deadline(0.1))
        flags = block.loop_status(fd)[3]
    finally:
        os.close(fd)

    assert not flags & LO_FLAGS_AUTOCLEAR
    assert not block.claimed(device)


def test_a_number_taken_by_others_is_tried_again(rig: Rig) -> None:
    """EBUSY from LOOP_CONFIGURE means that somebody was quicker."""
    rig.kernel.refuse = [("LOOP_CONFIGURE", errno.EBUSY)] * 3

    rig.attach(rig.image())

    assert rig.kernel.effects.count("LOOP_CONFIGURE") == 4


def test_another_refusal_is_told(rig: Rig) -> None:
    """What the kernel won't do is unready, with its reason."""
    rig.kernel.refuse = [("LOOP_CONFIGURE", errno.EINVAL)]

    with pytest.raises(Unready, match="injected"):
        rig.attach(rig.image())


def test_two_threads_never_attach_one_file_twice(rig: Rig) -> None:
    """A second caller that comes while the first is inside LOOP_CONFIGURE is told to come back."""
    image = rig.image()
    busy: list[Busy] = []

    def meanwhile(name: str) -> None:
        if name == "LOOP_CONFIGURE":
            rig.kernel.before = lambda _name: None
            with ThreadPoolExecutor(1) as pool, pytest.raises(Busy) as caught:
                pool.submit(rig.attach, image).result(10)
            busy.append(caught.value)

    rig.kernel.before = meanwhile
    rig.attach(image)

    assert len(busy) == 1
    assert len(rig.loops.list(rig.folder)) == 1


def test_a_deleted_image_is_still_listed_and_detached(rig: Rig) -> None:
    """A device whose file is gone shows its last name, and can be freed."""
    image = rig.image()
    device = rig.attach(image)
    image.unlink()

    (attached,) = rig.loops.list(rig.folder)

    assert (attached.device, attached.image, attached.deleted) == (device, image, True)
    assert rig.loops.detach(attached, soon())


def test_a_file_that_is_called_deleted_is_not_taken_for_one(rig: Rig) -> None:
    """The kernel's mark " (deleted)" is a mere suffix, which a file's name may have too."""
    image = rig.image("image (deleted)")
    rig.attach(image)

    (attached,) = rig.loops.list(rig.folder)

    assert (attached.image, attached.deleted) == (image, False)


def test_a_device_grows_with_its_image(rig: Rig) -> None:
    """LOOP_SET_CAPACITY takes over the file's length."""
    image = rig.image()
    device = rig.attach(image)
    os.truncate(image, 128 * MIB)

    assert rig.loops.grow(device) == 128 * MIB


def test_the_disk_under_an_image_and_its_device_is_the_same(rig: Rig) -> None:
    """The way down from a loop device leads through its file."""
    image = rig.image()
    device = rig.attach(image)

    assert block.disk_under(device.path) == block.disk_under(image)
    assert block.disk_under(Path("/proc")) == ()


def test_a_device_number_is_checked_against_its_node(rig: Rig) -> None:
    """A regular file, or another device, under the name of ours is told apart from it."""
    device = rig.attach(rig.image())
    block.check_identity(device)

    with pytest.raises(Foreign):
        block.check_identity(block.Device(device.path, DevNo(7, 999)))
    with pytest.raises(Invalid):
        block.device_at(rig.image("other"))
    with pytest.raises(NotFound):
        block.device_at(rig.folder / "absent")


def test_a_storm_of_callers_on_distinct_images_never_fails(rig: Rig) -> None:
    """Eight threads that attach, look and detach 30 times each all succeed, and nothing is left."""

    def worker(number: int) -> None:
        for turn in range(30):
            image = rig.image(f"{number}-{turn}", 8 * MIB)
            device = rig.attach(image)
            assert rig.loops.find(image) == device
            if turn % 10 == 0:
                rig.filesystems.make(device.path, "ext4", sector_size=4096, deadline=soon())
            assert rig.loops.detach(image, soon())
            assert rig.loops.find(image) is None
            image.unlink()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(worker, number) for number in range(8)]:
            done.result(120)

    assert rig.loops.list(rig.folder) == ()


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_a_file_system_is_made_and_recognised(rig: Rig, fs_type: str) -> None:
    """A new image holds nothing and was never written; after mkfs it holds what was made, and needs no check."""
    image = rig.image(size=512 * MIB)
    device = rig.attach(image)
    before = (rig.filesystems.kind(device.path), rig.filesystems.never_written(image))

    rig.filesystems.make(device.path, fs_type, sector_size=4096, deadline=soon())

    assert before == (None, True)
    assert rig.filesystems.kind(device.path) == fs_type
    assert rig.filesystems.kind(image) == fs_type
    assert not rig.filesystems.never_written(image)
    assert not rig.filesystems.check(device.path, fs_type, deadline=soon())
    assert "status 0" in rig.filesystems.diagnose(device.path, fs_type, deadline=soon())


def test_a_blank_image_stays_sparse(rig: Rig) -> None:
    """Where nothing was ever written, mkfs.ext4 writes no zeros, and what it makes is sound."""
    sizes = []
    for blank in (True, False):
        image = rig.image(f"blank-{blank}", 4096 * MIB)
        rig.filesystems.make(image, "ext4", sector_size=4096, blank=blank, deadline=soon())
        sizes.append(image.stat().st_blocks * 512)
        assert "status 0" in rig.filesystems.diagnose(image, "ext4", deadline=soon())

    assert sizes[0] < 4 * MIB < 32 * MIB < sizes[1]


def test_data_at_either_end_is_not_nothing(rig: Rig) -> None:
    """One byte in the first or the last MiB keeps an image from being formatted; a byte between is not looked for."""
    kinds = []
    for name, offset in (("first", MIB - 1), ("last", 63 * MIB), ("end", 64 * MIB - 1), ("between", 32 * MIB)):
        image = rig.image(name)
        with image.open("rb+") as file:
            file.seek(offset)
            file.write(b"x")
        kinds.append(rig.filesystems.kind(image))

    assert kinds == ["unknown data"] * 3 + [None]
    assert not rig.filesystems.never_written(rig.folder / "between")


def test_kind_sees_what_was_written_past_the_page_cache(rig: Rig) -> None:
    """A device read once, then changed underneath, is read anew."""
    image = rig.image()
    device = rig.attach(image)
    with device.path.open("rb") as keeps_the_cache:
        keeps_the_cache.read(MIB)
        with image.open("rb+") as file:
            file.write(b"XFSB")
            os.fsync(file.fileno())

        assert rig.filesystems.kind(device.path) == "xfs"


def test_a_damaged_ext4_is_left_to_a_person(rig: Rig) -> None:
    """What e2fsck -p can't repair without asking makes the volume unready, and is not touched further."""
    image = rig.image()
    rig.filesystems.make(image, "ext4", sector_size=4096, deadline=soon())
    with image.open("rb+") as file:
        file.seek(1024 + 0x3A)
        file.write(b"\x02\x00")  # s_state: EXT4_ERROR_FS
        file.seek(4096)
        file.write(b"\xff" * 64)  # the group descriptors
        file.seek(1024 + 0x68)
        file.write(b"\xff" * 16)  # s_uuid, part of every checksum

    with pytest.raises(Unready, match="repair by hand"):
        rig.filesystems.check(image, "ext4", deadline=soon())


def test_an_ext4_with_an_error_mark_is_checked_once(rig: Rig) -> None:
    """A file system that met errors is given to e2fsck, and not again afterwards."""
    image = rig.image()
    no_checksum = ["-O", "^metadata_csum"]  # or the mark can't be set by hand
    rig.filesystems.make(image, "ext4", options=no_checksum, sector_size=4096, deadline=soon())
    with image.open("rb+") as file:
        file.seek(1024 + 0x3A)
        file.write(b"\x03\x00")

    checked = [rig.filesystems.check(image, "ext4", deadline=soon()) for _ in range(2)]

    assert checked == [True, False]


def test_what_cant_be_made_is_refused_before_mkfs_runs(rig: Rig) -> None:
    """Too small and unknown are told by us, not by a program's usage text."""
    image = rig.image()

    with pytest.raises(OutOfRange):
        rig.filesystems.make(image, "xfs", sector_size=4096, deadline=soon())
    with pytest.raises(Unsupported):
        rig.filesystems.make(image, "vfat", sector_size=4096, deadline=soon())
    with pytest.raises(Unready, match="not touching it"):
        rig.filesystems.never_written(rig.folder / "absent")
    with pytest.raises(Invalid):
        rig.filesystems.never_written(Path("/dev/loop-control"))


def test_facts_are_found_by_trying(rig: Rig) -> None:
    """Each fact says whether it holds and why, and leaves nothing behind."""
    before = sorted(rig.folder.iterdir())

    tried = [
        facts.loop_devices(),
        facts.device_mapper(DeviceMapper(rig.kernel)),
        facts.cgroup_io(),
        facts.reflinks(rig.kernel, rig.folder),
        facts.extended_attributes(rig.kernel, rig.folder),
    ]

    assert tried[0].holds
    assert all(fact.detail for fact in tried)
    assert sorted(rig.folder.iterdir()) == before


def test_programs_show_their_versions(rig: Rig) -> None:
    """Every program that is here has a path and a version, every other the package to install."""
    found = {program.name: program for program in facts.programs(Runner(), soon())}

    assert "mke2fs" in found["mkfs.ext4"].version
    assert all(program.package for program in found.values())
    assert all(bool(shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")) <= bool(program.path)
               for name, program in found.items())  # fmt: skip


def test_the_door_names_the_call_and_the_path(rig: Rig) -> None:
    """An error says which ioctl failed on what."""
    with (
        (rig.folder / "file").open("wb") as file,
        pytest.raises(OSError, match=r"LOOP_CONFIGURE: .*'/dev/loop?'".replace("?", r"\?")) as caught,
    ):
        rig.kernel.ioctl(file.fileno(), LOOP_CONFIGURE, path="/dev/loop?")

    assert caught.value.errno == errno.ENOTTY
