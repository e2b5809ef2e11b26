"""What the host package reads, written oddly: mountinfo, tables, superblocks."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.errors import Invalid
from csi_driver.host import block, dmtable, loopdev, mountinfo, signatures
from csi_driver.host.deadman import DM_HEADER, DM_UDEV_FLAGS
from csi_driver.host.mounts import split_options
from csi_driver.host.syscalls import MS_NOATIME, MS_NOSUID, MS_RDONLY, Kernel, query
from qos.limits import DevNo

MIB = 1 << 20


def escape(raw: bytes) -> bytes:
    """Escape as the kernel does: mangle_path in fs/seq_file.c."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in raw)


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_every_path_survives_the_kernels_escapes(raw: bytes) -> None:
    """Whatever bytes a mount point has, its path is the one that Python gives for it."""
    assert mountinfo.unescape(escape(raw)) == os.fsdecode(raw)


@given(st.binary(min_size=1, max_size=40).filter(lambda raw: not {0, 47} & set(raw)), st.lists(st.sampled_from(
    ["shared:3", "master:1", "propagate_from:2", "unbindable"]), max_size=3))  # fmt: skip
def test_a_line_is_read_whatever_tags_and_names_it_has(name: bytes, tags: list[str]) -> None:
    """Any number of tags may stand before the dash, and the target may have any name."""
    target = b"/mnt/" + escape(name)
    line = b" ".join([b"36 35 98:0 /root", target, b"rw,noatime", *(tag.encode() for tag in tags), b"- ext4 /dev/x rw"])

    mount = mountinfo.parse_line(line)

    assert mount.target == Path(os.fsdecode(b"/mnt/" + name))
    assert mount.propagation == tuple(tags)
    assert (mount.id, mount.parent, mount.dev) == (36, 35, DevNo(98, 0))
    assert mount.options == {"rw", "noatime"}


def test_a_mount_without_a_source_is_read() -> None:
    """An empty source shows as two spaces, which a split by any white space would swallow."""
    mount = mountinfo.parse_line(b"1 0 0:5 / /x rw - tmpfs  rw,size=4k")

    assert mount.source == ""
    assert mount.super_options == {"rw", "size=4k"}


def test_a_mount_point_called_dash_is_read() -> None:
    """The separator is the first dash after the fixed fields, not one in a name."""
    assert mountinfo.parse_line(b"1 0 0:5 - - rw shared:1 - ext4 - rw").source == "-"


@pytest.mark.parametrize("path", ["", ".", "/", "relative", "/a/.."])
def test_a_target_without_a_name_is_invalid(path: str) -> None:
    """A mount point has an absolute path with a name at its end."""
    with pytest.raises(Invalid):
        mountinfo.real_target(Path(path))


def test_what_is_not_there_is_not_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that doesn't exist, or is a plain folder, has no mount, however many others there are: none is read."""
    monkeypatch.setattr(mountinfo, "MOUNTINFO", tmp_path / "unreadable")

    assert mountinfo.at(tmp_path / "absent") is None
    assert mountinfo.at(tmp_path) is None


def test_the_machines_own_mounts_are_read() -> None:
    """Every line of the real file has a meaning, and /proc is found in it both ways."""
    proc = mountinfo.at(Path("/proc"))

    assert proc is not None
    assert proc.fstype == "proc"
    assert proc in mountinfo.of(proc.dev)
    assert proc in tuple(mountinfo.all_mounts())


def test_options_are_split_into_flags_and_data() -> None:
    """Later ones win, fstab's own words vanish, the rest goes to the file system in order."""
    assert split_options(["ro,nosuid", "noatime", "defaults", "x-systemd.automount", "rw"]) == (
        MS_NOSUID | MS_NOATIME,
        "",
    )
    assert split_options(["ro", "discard", "errors=remount-ro"]) == (MS_RDONLY, "discard,errors=remount-ro")
    assert split_options([]) == (0, "")


@pytest.mark.parametrize("option", ["bind", "remount", "loop=/dev/loop0", "a\0b", "x" * 5000])
def test_options_that_change_the_call_are_invalid(option: str) -> None:
    """Neither another kind of mount nor data that the kernel would cut gets through."""
    with pytest.raises(Invalid):
        split_options([option])


def test_structures_have_the_kernels_sizes() -> None:
    """Sizes from linux/loop.h and linux/dm-ioctl.h; the dead man's copies are the same as ours."""
    assert loopdev.LOOP_CONFIG.size == 304
    assert block.LOOP_INFO_SIZE == 232
    assert dmtable.HEADER.size == 312
    assert dmtable.TARGET.size == 40
    assert DM_HEADER.format == dmtable.HEADER.format
    assert DM_UDEV_FLAGS == dmtable.UDEV


def test_a_loop_config_has_its_fields_where_the_kernel_looks() -> None:
    """Offsets in struct loop_config: fd 0, block_size 4, lo_flags 60, lo_file_name 64."""
    config = loopdev.LOOP_CONFIG.pack(7, 4096, 0, 0, 0, 16, b"name")

    assert struct.unpack_from("=II", config, 0) == (7, 4096)
    assert struct.unpack_from("=I", config, 60) == (16,)
    assert config[64:69] == b"name\0"


@given(st.integers(1, 1 << 40), st.integers(0, 4095), st.integers(0, (1 << 20) - 1))
def test_a_table_comes_back_as_it_was_loaded(sectors: int, major: int, minor: int) -> None:
    """What linear_table packs, info_of reads: the device below, from its first byte, in bytes."""
    table = dmtable.linear_table(DevNo(major, minor), sectors * 512)

    info = dmtable.info_of(dmtable.request_buffer("name", "SLUICE-1", 0, table, cookie=0))

    assert (info.name, info.uuid) == ("name", "SLUICE-1")
    assert info.below == DevNo(major, minor)
    assert info.size_bytes == sectors * 512
    assert len(table) % 8 == 0


def test_a_strange_table_has_no_device_below() -> None:
    """An offset, another target or several lines are not our mapping."""
    header = dmtable.request_buffer("name", "", 0, dmtable.linear_table(DevNo(7, 0), 4096), cookie=0)
    at = dmtable.HEADER.size + dmtable.TARGET.size
    offset = bytearray(header)
    offset[at : at + 5] = b"7:0 8"
    striped = bytearray(header)
    striped[at - 16 : at] = b"striped".ljust(16, b"\0")

    assert dmtable.info_of(header).below == DevNo(7, 0)
    assert dmtable.info_of(offset).below is None
    assert dmtable.info_of(striped).below is None


@pytest.mark.parametrize(("name", "uuid"), [("x" * 128, ""), ("a/b", ""), ("a\0b", ""), ("a", "u" * 129)])
def test_a_name_that_the_kernel_would_cut_is_invalid(name: str, uuid: str) -> None:
    """Two volumes must never share a cut name."""
    with pytest.raises(Invalid):
        dmtable.request_buffer(name, uuid, 0, b"", cookie=0)


def test_no_ioctl_holds_the_other_threads_up() -> None:
    """CPython keeps the GIL during an ioctl with a buffer of more than 1024 bytes; such a call is a bug."""
    with pytest.raises(ValueError, match="GIL"):
        query(0, 0, bytearray(1025))
    with pytest.raises(ValueError, match="GIL"):
        Kernel().ioctl(0, 0, bytearray(1025))


def area(offset: int, magic: bytes) -> bytes:
    return bytes(offset) + magic + bytes(MIB - offset - len(magic))


@pytest.mark.parametrize(
    ("kind", "offset", "magic"),
    [
        ("xfs", 0, b"XFSB"),
        ("btrfs", 0x10040, b"_BHRfS_M"),
        ("LVM", 512, b"LABELONE"),
        ("LUKS", 0, b"LUKS\xba\xbe"),
        ("LUKS", 16384, b"SKUL\xba\xbe"),
        ("md", 4096, b"\xfc\x4e\x2b\xa9"),
        ("swap", 4086, b"SWAPSPACE2"),
        ("partition table", 510, b"\x55\xaa"),
        ("partition table", 4096, b"EFI PART"),
        ("zfs", 128 << 10, b"\x0c\xb1\xba\x00\x00\x00\x00\x00"),
        ("unknown data", MIB - 1, b"\x01"),
    ],
)
def test_what_others_keep_at_the_start_is_recognised(kind: str, offset: int, magic: bytes) -> None:
    """Each superblock has a name; what has none is still something."""
    assert signatures.kind_of(area(offset, magic), bytes(MIB), 64 * MIB) == kind


@pytest.mark.parametrize(
    ("kind", "back", "magic"),
    [
        ("partition table", 512, b"EFI PART"),
        ("md", 8192, b"\xfc\x4e\x2b\xa9"),
        ("md", 65536, b"\xfc\x4e\x2b\xa9"),
        ("zfs", 1024, b"\x0c\xb1\xba\x00\x00\x00\x00\x00"),
        ("unknown data", 1, b"\x01"),
    ],
)
def test_what_others_keep_at_the_end_is_recognised(kind: str, back: int, magic: bytes) -> None:
    """Old md, the second partition table and ZFS's last labels are found from the end."""
    assert signatures.kind_of(bytes(MIB), area(MIB - back, magic), 64 * MIB) == kind


def ext(compat: int, incompat: int, ro_compat: int) -> bytes:
    superblock = bytearray(1024)
    struct.pack_into("<H", superblock, 0x38, 0xEF53)
    struct.pack_into("<III", superblock, 0x5C, compat, incompat, ro_compat)
    return area(1024, bytes(superblock))


@pytest.mark.parametrize(
    ("kind", "features"),
    [("ext2", (0x38, 0x2, 0x3)), ("ext3", (0x3C, 0x6, 0x3)), ("ext4", (0x3C, 0x2C2, 0x46B)), ("ext4", (0, 0x40, 0))],
)
def test_the_three_ext_are_told_apart(kind: str, features: tuple[int, int, int]) -> None:
    """By the features that the older kernels' drivers would refuse."""
    assert signatures.kind_of(ext(*features), bytes(MIB), 64 * MIB) == kind


@given(st.integers(0, 4 * MIB))
def test_zeros_are_nothing_whatever_the_size(size: int) -> None:
    """Devices shorter than what is looked at, too."""
    end = bytes(min(size, MIB))

    assert signatures.kind_of(end, end, size) is None


@given(st.integers(0, MIB - 1), st.integers(1, 255), st.booleans())
def test_one_byte_is_never_nothing(offset: int, byte: int, at_start: bool) -> None:
    """No place in either end is overlooked."""
    marked = area(offset, bytes([byte]))
    ends = (marked, bytes(MIB)) if at_start else (bytes(MIB), marked)

    assert signatures.kind_of(*ends, 64 * MIB) is not None
