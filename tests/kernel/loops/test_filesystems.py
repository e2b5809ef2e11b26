"""File systems on images and loop devices, and facts about the machine. Needs root and the module loop."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from csi_driver.errors import Invalid, OutOfRange, Unready, Unsupported
from csi_driver.host import facts
from csi_driver.host.dm import DeviceMapper
from csi_driver.host.run import Runner
from csi_driver.host.syscalls import LOOP_CONFIGURE
from tests.kernel.loops.rig import MIB, Rig, soon

pytestmark = pytest.mark.native


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
