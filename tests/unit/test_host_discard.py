"""Discards: what of, and what is said where it can't be done."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from csi_driver.errors import Busy, Foreign, Unready, Unsupported
from csi_driver.host import mountinfo
from csi_driver.host.discard import DISCARD_RANGE, TRIM_RANGE, discard, held_alone, trim
from csi_driver.host.mountinfo import Mount
from csi_driver.host.syscalls import BLKDISCARD, FITRIM, Kernel
from qos.limits import DevNo

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
DEV = DevNo(7, 3)


class Told(Kernel):
    """Remember the ranges that are discarded, or refuse them."""

    def __init__(self, refusal: int = 0) -> None:
        self.ranges: list[tuple[int, int]] = []
        self._refusal = refusal

    def ioctl(self, fd: int, request: int, argument: int | bytearray = 0, *, path: object = "") -> int:  # noqa: ARG002
        assert isinstance(argument, bytearray)
        if self._refusal:
            raise OSError(self._refusal, os.strerror(self._refusal), str(path))
        start, length, *_ = (TRIM_RANGE if request == FITRIM else DISCARD_RANGE).unpack(argument)
        assert request in {FITRIM, BLKDISCARD}
        self.ranges.append((start, length))
        if request == FITRIM:
            argument[:] = TRIM_RANGE.pack(start, length // 2, 0)
        return 0


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a file that passes for a block device."""
    monkeypatch.setattr(stat, "S_ISBLK", lambda _: True)
    path = tmp_path / "device"
    path.touch()
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that passes for the mount of a device."""
    mount = Mount(1, 0, DEV, "/", tmp_path, "ext4", "/dev/loop3", frozenset(), frozenset(), ())
    monkeypatch.setattr(mountinfo, "of_descriptor", lambda _: mount)
    return tmp_path


def test_a_range_of_a_device_is_discarded(device: Path) -> None:
    """That and no more."""
    kernel = Told()
    with held_alone(kernel, device) as fd:
        discard(kernel, fd, device, 4 * MIB, 2 * MIB)

    assert kernel.ranges == [(4 * MIB, 2 * MIB)]


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (errno.EOPNOTSUPP, Unsupported),
        (errno.ENOTTY, Unsupported),
        (errno.EPERM, Unsupported),
        (errno.EIO, Unready),
    ],
)
def test_a_refusal_is_told_apart(device: Path, place: Path, refusal: int, error: type[Exception]) -> None:
    """A device that can't, or may not, is another thing than one that fails."""
    kernel = Told(refusal)
    with held_alone(kernel, device) as fd, pytest.raises(error):
        discard(kernel, fd, device, 0, MIB)
    with pytest.raises(error):
        trim(kernel, place, DEV, 0, MIB)


def test_a_device_that_somebody_has_mounted_is_not_opened(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says so when it is to be had alone."""

    def refuse(_: Kernel, path: Path, flags: int) -> int:
        assert flags & os.O_EXCL
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))

    monkeypatch.setattr(Kernel, "open", refuse)

    with pytest.raises(Busy, match="mounted or mapped by somebody"), held_alone(Told(), device):
        pass


def test_what_is_no_block_device_is_left_alone(tmp_path: Path) -> None:
    """A path that a file took over loses nothing."""
    path = tmp_path / "file"
    path.write_bytes(b"precious")

    with pytest.raises(Foreign, match="no block device"), held_alone(Told(), path):
        pass


def test_a_trim_tells_what_the_kernel_gave_back(place: Path) -> None:
    """The kernel writes the bytes into the range it was given; beyond a file system's end there are none."""
    kernel = Told()

    assert trim(kernel, place, DEV, MIB, 6 * MIB) == 3 * MIB
    assert kernel.ranges == [(MIB, 6 * MIB)]
    assert trim(Told(errno.EINVAL), place, DEV, 1 << 40, MIB) == 0


def test_another_file_system_at_the_place_is_not_trimmed(place: Path) -> None:
    """When the volume was unmounted in between, the folder below is somebody else's."""
    kernel = Told()
    with pytest.raises(Foreign, match="doesn't show 7:4"):
        trim(kernel, place, DevNo(7, 4), 0, MIB)

    assert kernel.ranges == []
