"""Mounts, binds and freezes by FIFREEZE, in a mount namespace of their own. Needs root and loop devices."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Busy, InUse, Invalid, NotFound, Unready
from csi_driver.host.dm import DeviceMapper
from csi_driver.host.filesystem import Filesystems
from csi_driver.host.freeze import DeadMan, Freezer
from csi_driver.host.loopdev import LoopDevices
from csi_driver.host.mounts import Mounts, is_read_only
from csi_driver.host.run import Runner
from csi_driver.host.syscalls import FIFREEZE, FITHAW, MS_PRIVATE, MS_REC, MS_SHARED, Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.native
REPO = Path(__file__).parents[2]
MIB = 1 << 20
CLONE_NEWNS = 0x20000


def soon() -> Deadline:
    return Deadline(30)


class Rig:
    """A folder, images in it, and mount points."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel = Kernel()
        self.loops = LoopDevices(self.kernel)
        self.mounts = Mounts(self.kernel)
        self.filesystems = Filesystems(Runner(), self.kernel)
        self.dead_men = [DeadMan()]
        self.freezer = Freezer(self.kernel, DeviceMapper(self.kernel), self.dead_men[0])

    def freezer_with(self, dead_man: DeadMan) -> Freezer:
        self.dead_men.append(dead_man)
        return Freezer(self.kernel, DeviceMapper(self.kernel), dead_man)

    def place(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    def image(self, name: str, fs_type: str = "ext4", size: int = 32 * MIB) -> Path:
        """Return the device of a new file system."""
        path = self.folder / f"{name}.img"
        path.touch()
        os.truncate(path, size)
        self.filesystems.make(path, fs_type, sector_size=4096, deadline=soon())
        return self.loops.attach(path, sector_size=4096, deadline=soon()).path

    def mounted(self, name: str = "volume", fs_type: str = "ext4", size: int = 32 * MIB) -> Path:
        place = self.place(name)
        self.mounts.mount(self.image(name, fs_type, size), place, fs_type, ["noatime"])
        return place


@pytest.fixture(scope="module", autouse=True)
def private_mounts() -> Iterator[None]:
    """Give this thread, and so the programs and threads that it starts, mounts of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, folder = os.open("/proc/self/ns/mnt", os.O_RDONLY), Path.cwd()
    if libc.unshare(CLONE_NEWNS) != 0:
        pytest.skip(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    Kernel().mount("none", Path("/"), "", MS_REC | MS_PRIVATE)
    yield
    libc.setns(here, CLONE_NEWNS)
    os.chdir(folder)
    os.close(here)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sluice-mounts-") as folder:
        made = Rig(Path(folder))
        yield made
        for dead_man in made.dead_men:
            dead_man.close()
        for path in sorted(made.folder.rglob("*"), key=lambda path: len(path.parts), reverse=True):
            if not path.is_symlink():
                made.mounts.unmount(path, soon())
        for attached in made.loops.list(made.folder):
            made.loops.detach(attached, soon())


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

    assert rig.mounts.mount(device, rig.place("clone"), "xfs", rig.filesystems.mount_options("xfs", clone=True))


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


def test_writers_wait_while_frozen(rig: Rig) -> None:
    """Without device-mapper FIFREEZE holds writers back, and FITHAW lets them go on."""
    place = rig.mounted("volume")
    with ThreadPoolExecutor(1) as pool:
        with rig.freezer.frozen(place):
            writing = pool.submit((place / "file").write_bytes, b"x")
            with pytest.raises(TimeoutError):
                writing.result(0.2)
        assert writing.result(10) == 1


def is_frozen(rig: Rig, place: Path) -> bool:
    """Try to freeze; what that froze is thawed again."""
    fd = os.open(place, os.O_RDONLY)
    try:
        rig.kernel.ioctl(fd, FIFREEZE)
    except OSError:
        return True
    else:
        rig.kernel.ioctl(fd, FITHAW)
        return False
    finally:
        os.close(fd)


def test_an_administrators_freeze_is_left_alone(rig: Rig) -> None:
    """What somebody else froze can be cut, and stays frozen."""
    place = rig.mounted("volume")
    fd = os.open(place, os.O_RDONLY)
    try:
        rig.kernel.ioctl(fd, FIFREEZE)
        with rig.freezer.frozen(place):
            pass
        still = is_frozen(rig, place)
        rig.kernel.ioctl(fd, FITHAW)
    finally:
        os.close(fd)

    assert still


def test_a_cut_that_an_administrator_thawed_is_thrown_away(rig: Rig) -> None:
    """If the other's freeze ends during the cut, the cut is not of one moment, and the volume is left thawed."""
    place = rig.mounted("volume")
    fd = os.open(place, os.O_RDONLY)
    try:
        rig.kernel.ioctl(fd, FIFREEZE)
        with pytest.raises(Busy, match="thawed"), rig.freezer.frozen(place):
            rig.kernel.ioctl(fd, FITHAW)
    finally:
        os.close(fd)

    assert not is_frozen(rig, place)


def test_a_freeze_that_lasts_too_long_is_ended_and_said(rig: Rig) -> None:
    """The dead man thaws at its limit, and `frozen` raises."""
    place = rig.mounted("volume")
    freezer = rig.freezer_with(DeadMan(limit=0.3))

    with pytest.raises(Unready, match="more than"), freezer.frozen(place):
        (place / "file").write_bytes(b"x")  # waits until the dead man comes

    assert not is_frozen(rig, place)


DIE_INSIDE = """
import signal, sys
from pathlib import Path
from csi_driver.host.dm import DeviceMapper
from csi_driver.host.freeze import DeadMan, Freezer
from csi_driver.host.syscalls import Kernel
kernel = Kernel()
with Freezer(kernel, DeviceMapper(kernel), DeadMan()).frozen(Path(sys.argv[1])):
    print("inside", flush=True)
    signal.pause()
"""


def test_a_dead_man_thaws_when_we_die_inside(rig: Rig) -> None:
    """After SIGKILL to the whole process group of the process that froze it, the volume is thawed."""
    place = rig.mounted("volume")
    command = [sys.executable, "-c", DIE_INSIDE, str(place)]
    environment = {"PYTHONPATH": str(REPO)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"inside\n"
        frozen_inside = is_frozen(rig, place)
        os.killpg(child.pid, signal.SIGKILL)

    wait_for("the volume is thawed", lambda: not is_frozen(rig, place), Deadline(10))

    assert frozen_inside


def test_a_dead_man_that_was_killed_is_started_again(rig: Rig) -> None:
    """Its death between two cuts is noticed before the next."""
    place = rig.mounted("volume")
    dead_man = DeadMan()
    freezer = rig.freezer_with(dead_man)
    with freezer.frozen(place):
        pass
    first = dead_man.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for("the dead man is gone", lambda: not Path(f"/proc/{first}/exe").exists(), Deadline(5))

    with freezer.frozen(place):
        second = dead_man.pid

    assert second not in (None, first)


def test_nothing_is_frozen_when_the_dead_man_cant_be_armed(rig: Rig) -> None:
    """Without an acknowledged dead man there is no freeze."""
    place = rig.mounted("volume")
    freezer = rig.freezer_with(DeadMan(prefix=("/bin/false",)))

    with pytest.raises(Unready), freezer.frozen(place):
        pytest.fail("frozen without a dead man")

    assert not is_frozen(rig, place)
