"""Loop devices. Needs root and the module loop, of any kernel."""

from __future__ import annotations

import errno
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csi_driver.deadline import Deadline
from csi_driver.errors import Busy, Foreign, InUse, Invalid, NotFound, Unready
from csi_driver.host import block
from csi_driver.host.loopdev import LoopDevices
from csi_driver.host.syscalls import BLKROSET, LO_FLAGS_AUTOCLEAR, LOOP_CLR_FD
from qos.limits import DevNo
from tests.kernel.loops.rig import MIB, Rig, soon

pytestmark = pytest.mark.native


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


def test_a_number_that_was_set_read_only_is_writable_for_the_next_image(rig: Rig) -> None:
    """`blockdev --setro` stays on the number when its device is gone: the next volume there could not be mounted."""
    image = rig.image()
    device = rig.attach(image)
    fd = os.open(device.path, os.O_RDONLY)
    rig.kernel.ioctl(fd, BLKROSET, bytearray(struct.pack("=i", 1)))
    os.close(fd)
    rig.loops.detach(image, soon())
    again = rig.attach(image)

    assert again == device, "another program took the number: run it again"
    assert not block.read_only(again.dev)


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
