"""Mounts and binds, in a mount namespace of their own. Needs root and loop devices."""

from __future__ import annotations

import os
import subprocess

import pytest

from csi_driver.deadline import Deadline
from csi_driver.errors import InUse, Invalid, NotFound, Unready
from csi_driver.host.mounts import is_read_only
from csi_driver.host.syscalls import MS_SHARED
from tests.kernel.mounting.rig import MIB, Rig, soon

pytestmark = pytest.mark.native


def test_a_volume_is_mounted_once_and_shown_with_its_options(rig: Rig) -> None:
    """Flags go to the kernel as flags, the rest to the file system; a second time nothing happens."""
    device, place = rig.image("volume"), rig.place("volume")

    changed = [rig.mounts.mount(device, place, "ext4", ["nosuid,nodev", "noatime", "discard"]) for _ in range(2)]

    mount = rig.mounts.at(place)
    assert mount is not None
    assert changed == [True, False]
    assert mount.options >= {"nosuid", "nodev", "noatime", "rw"}
    assert "discard" in mount.super_options
    assert (mount.fstype, mount.source, mount.root) == ("ext4", str(device), "/")
    assert [one.target for one in rig.mounts.of(mount.dev)] == [place]


def test_an_xfs_clone_mounts_beside_its_parent(rig: Rig) -> None:
    """Two xfs of one UUID can be mounted at once only with the option that `mount_options` gives for clones."""
    rig.mounted("parent", "xfs", 320 * MIB)
    clone = rig.folder / "clone.img"
    with rig.freezer.frozen(rig.folder / "parent"):
        subprocess.run(["cp", "--sparse=always", rig.folder / "parent.img", clone], check=True)
    device = rig.loops.attach(clone, sector_size=4096, deadline=soon()).path

    with pytest.raises((Unready, InUse)):
        rig.mounts.mount(device, rig.place("clone"), "xfs")

    assert rig.mounts.mount(device, rig.place("clone"), "xfs", rig.filesystems.mount_options("xfs"))


def test_xfs_grows_by_one_ioctl_and_again_does_nothing(rig: Rig) -> None:
    """A mounted xfs fills its device without a program."""
    place = rig.mounted("volume", "xfs", 320 * MIB)
    image = rig.folder / "volume.img"
    device = rig.loops.find(image)
    assert device is not None
    os.truncate(image, 640 * MIB)
    rig.loops.grow(device)

    grown = [rig.filesystems.grow(device, "xfs", mounted=place, deadline=soon()) for _ in range(2)]

    assert grown == [True, False]
    assert rig.filesystems.size(place, device, "xfs") == 640 * MIB
    assert rig.filesystems.usage(place).total_bytes > 500 * MIB


def test_growing_where_nothing_is_mounted_never_reaches_the_file_system_below(rig: Rig) -> None:
    """If the volume isn't mounted there, the ioctl would resize the machine's own file system."""
    device = (
        rig.loops.attach(rig.folder / "volume.img", sector_size=4096, deadline=soon()) if rig.image("volume") else None
    )
    assert device is not None
    os.truncate(rig.folder / "volume.img", 64 * MIB)
    rig.loops.grow(device)

    with pytest.raises(Unready, match="not mounted there"):
        rig.filesystems.grow(device, "ext4", mounted=rig.folder, deadline=soon())


def test_another_volume_at_the_same_place_is_refused(rig: Rig) -> None:
    """The kernel would stack it on top in silence."""
    rig.mounted("volume")

    with pytest.raises(InUse, match="is taken"):
        rig.mounts.mount(rig.image("other"), rig.place("volume"), "ext4")


def test_links_are_not_followed(rig: Rig) -> None:
    """Nothing is mounted, bound, looked at or unmounted through a symbolic link at the end of a path."""
    place = rig.mounted("volume")
    link = rig.folder / "link"
    link.symlink_to(place)

    for call in (
        lambda: rig.mounts.at(link),
        lambda: rig.mounts.mount("/dev/null", link, "ext4"),
        lambda: rig.mounts.bind(place, link),
        lambda: rig.mounts.unmount(link, soon()),
    ):
        with pytest.raises(Invalid, match="symbolic link"):
            call()


def test_what_the_kernel_refuses_is_told(rig: Rig) -> None:
    """A device without a file system is unready, a missing target not found, a dangerous option invalid."""
    device = rig.image("volume")

    with pytest.raises(Unready, match="superblock"):
        rig.mounts.mount(device, rig.place("at"), "xfs")
    with pytest.raises(Unready, match="doesn't know"):
        rig.mounts.mount(device, rig.place("at"), "nofs")
    with pytest.raises(NotFound):
        rig.mounts.mount(device, rig.folder / "absent", "ext4")
    with pytest.raises(Invalid):
        rig.mounts.mount(device, rig.place("at"), "ext4", ["remount"])


def test_a_bind_shows_a_folder_at_a_strange_path(rig: Rig) -> None:
    """Spaces, newlines, backslashes and bytes that aren't UTF-8 come back from mountinfo as they went in."""
    place = rig.mounted("volume")
    strange = rig.place("a b\tc\nd\\e#\udcff")

    changed = [rig.mounts.bind(place, strange) for _ in range(2)]

    mount = rig.mounts.at(strange)
    assert changed == [True, False]
    assert mount is not None
    assert mount.target == strange
    assert not is_read_only(mount)


def test_a_read_only_bind_refuses_writes_and_leaves_its_source_writable(rig: Rig) -> None:
    """Read-only is the bind's alone, and flags of the source stay."""
    place, target = rig.mounted("volume"), rig.place("target")

    rig.mounts.bind(place, target, read_only=True)

    mount = rig.mounts.at(target)
    assert mount is not None
    assert is_read_only(mount)
    assert "noatime" in mount.options
    with pytest.raises(OSError, match="Read-only"):
        (target / "file").write_bytes(b"x")
    (place / "file").write_bytes(b"x")


def test_a_writable_bind_does_not_pass_for_a_read_only_one(rig: Rig) -> None:
    """Asked for read-only, what is there writable is refused rather than left."""
    place, target = rig.mounted("volume"), rig.place("target")
    rig.mounts.bind(place, target)

    with pytest.raises(InUse, match="writable"):
        rig.mounts.bind(place, target, read_only=True)


def test_a_read_only_bind_is_read_only_in_the_copies_that_are_propagated(rig: Rig) -> None:
    """The host's copy of a pod's mount gets the flag too, which bind and remount would not give it."""
    place, shared = rig.mounted("volume"), rig.place("shared")
    rig.mounts.bind(shared, shared)
    rig.kernel.mount("none", shared, "", MS_SHARED)
    peer = rig.place("peer")
    rig.mounts.bind(shared, peer)
    (shared / "target").mkdir()

    rig.mounts.bind(place, shared / "target", read_only=True)

    copy = rig.mounts.at(peer / "target")
    assert copy is not None
    assert is_read_only(copy)


def test_a_device_node_is_bound_to_a_file(rig: Rig) -> None:
    """A raw volume is published as a node on a file, and the file comes back when it is unmounted."""
    device, target = rig.image("volume"), rig.folder / "node"
    target.touch()

    changed = [rig.mounts.bind(device, target) for _ in range(2)]
    is_device = target.is_block_device()
    rig.mounts.unmount(target, soon())

    assert changed == [True, False]
    assert is_device
    assert target.is_file()


def test_unmounting_takes_all_layers_and_again_does_nothing(rig: Rig) -> None:
    """However often something was mounted there, afterwards nothing is."""
    place, target = rig.mounted("volume"), rig.place("target")
    for _ in range(3):
        rig.kernel.mount(place, target, "", 0x1000)

    done = [rig.mounts.unmount(target, soon()) for _ in range(2)]

    assert done == [True, False]
    assert rig.mounts.at(target) is None


def test_the_topmost_of_several_mounts_is_seen(rig: Rig) -> None:
    """Of mounts at one path the one that a process would see counts, and one hidden by a parent's mount doesn't."""
    place = rig.mounted("volume")
    (place / "inner").mkdir()
    rig.kernel.mount("tmpfs", place / "inner", "tmpfs", 0)
    seen = rig.mounts.at(place / "inner")
    rig.kernel.mount("tmpfs", place, "tmpfs", 0)

    top = rig.mounts.at(place)
    hidden = rig.mounts.at(place / "inner")
    rig.kernel.umount(place)
    rig.kernel.umount(place / "inner")
    assert seen is not None
    assert top is not None
    assert (seen.fstype, top.fstype, hidden) == ("tmpfs", "tmpfs", None)


def test_a_busy_mount_names_who_uses_it(rig: Rig) -> None:
    """The message has the process id and name, so that a person knows whom to ask."""
    place = rig.mounted("volume")
    with (place / "file").open("wb"), pytest.raises(InUse, match=rf"process {os.getpid()} \("):
        rig.mounts.unmount(place, Deadline(0.1))

    assert rig.mounts.unmount(place, soon())


def test_a_mount_that_becomes_free_is_unmounted(rig: Rig) -> None:
    """EBUSY is tried again until the deadline."""
    place = rig.mounted("volume")
    with subprocess.Popen(["sleep", "0.3"], cwd=place):
        assert rig.mounts.unmount(place, soon())
