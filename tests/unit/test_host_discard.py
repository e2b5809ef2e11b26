"""Discards in steps: how far, how fast, and what is said where it can't be done."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline
from csi_driver.errors import Foreign, Unready, Unsupported
from csi_driver.host import mountinfo
from csi_driver.host.discard import DISCARD_RANGE, TRIM_RANGE, discard_in_steps, trim
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
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the pauses that are made, without making them."""
    made: list[float] = []
    monkeypatch.setattr("csi_driver.host.discard.time.sleep", made.append)
    return made


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that passes for the mount of a device."""
    mount = Mount(1, 0, DEV, "/", tmp_path, "ext4", "/dev/loop3", frozenset(), frozenset(), ())
    monkeypatch.setattr(mountinfo, "of_descriptor", lambda _: mount)
    return tmp_path


def test_a_device_is_discarded_to_its_end_in_steps_with_pauses(device: Path, pauses: list[float]) -> None:
    """Every byte once, the last step shorter, and a pause after each but the last, as long as the rate asks for."""
    kernel = Told()
    got = discard_in_steps(kernel, device, 10 * MIB, step=4 * MIB, bytes_per_second=8 * MIB, deadline=Deadline(60))

    assert got == 10 * MIB
    assert kernel.ranges == [(0, 4 * MIB), (4 * MIB, 4 * MIB), (8 * MIB, 2 * MIB)]
    assert pauses == [0.5, 0.5]


def test_what_the_deadline_cuts_is_continued(device: Path, pauses: list[float]) -> None:
    """What is returned is where the next call begins; with no time nothing is done."""
    kernel = Told()
    none = discard_in_steps(kernel, device, 8 * MIB, step=MIB, bytes_per_second=MIB, deadline=Deadline(0), start=MIB)
    done = discard_in_steps(kernel, device, 8 * MIB, step=4 * MIB, bytes_per_second=MIB, deadline=Deadline(60), start=3)

    assert (none, done) == (MIB, 8 * MIB)
    assert kernel.ranges[0] == (3, 4 * MIB)


@pytest.mark.parametrize(
    ("refusal", "error"), [(errno.EOPNOTSUPP, Unsupported), (errno.ENOTTY, Unsupported), (errno.EIO, Unready)]
)
def test_a_refusal_is_told_apart(device: Path, place: Path, refusal: int, error: type[Exception]) -> None:
    """A device that can't is another thing than one that fails."""
    with pytest.raises(error):
        discard_in_steps(Told(refusal), device, MIB, step=MIB, bytes_per_second=MIB, deadline=Deadline(60))
    with pytest.raises(error):
        trim(Told(refusal), place, DEV, 0, MIB)


def test_what_is_no_block_device_is_left_alone(tmp_path: Path) -> None:
    """A path that a file took over loses nothing."""
    kernel, path = Told(), tmp_path / "file"
    path.write_bytes(b"precious")
    with pytest.raises(Foreign, match="no block device"):
        discard_in_steps(kernel, path, MIB, step=MIB, bytes_per_second=MIB, deadline=Deadline(60))

    assert kernel.ranges == []


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
