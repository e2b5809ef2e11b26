"""Zeroing in steps: all of it, how fast, and durable at the end of each try."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline
from csi_driver.errors import Foreign
from csi_driver.host.syscalls import BLKZEROOUT, Kernel
from csi_driver.host.zeroing import RANGE, STEP, zero

if TYPE_CHECKING:
    from pathlib import Path


class Told(Kernel):
    """Remember the ranges that are zeroed, and the flushes; `clock` is what each takes."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.effects: list[tuple[int, int] | str] = []
        self.now = 0.0
        self._seconds = seconds

    def ioctl(self, fd: int, request: int, argument: int | bytearray = 0, *, path: object = "") -> int:  # noqa: ARG002
        assert (request, isinstance(argument, bytearray)) == (BLKZEROOUT, True)
        self.effects.append(RANGE.unpack(argument))  # type: ignore[arg-type]
        self.now += self._seconds
        return 0

    def fsync(self, fd: int, *, path: object = "") -> None:  # noqa: ARG002
        self.effects.append("flush")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a file that passes for a block device."""
    monkeypatch.setattr(stat, "S_ISBLK", lambda _: True)
    path = tmp_path / "device"
    path.touch()
    return path


def test_all_of_a_stretch_is_zeroed_and_then_flushed(device: Path) -> None:
    """No more and no less, the last step as short as it must be."""
    kernel = Told()
    reached = zero(kernel, device, 4096, 2 * STEP, Deadline(60.0))

    assert reached == 2 * STEP
    assert kernel.effects == [(4096, STEP), (4096 + STEP, STEP - 4096), "flush"]


def test_a_try_without_time_makes_one_step_and_says_where_it_ended(device: Path) -> None:
    """So that tries come to an end, however short each is; what it says is durable."""
    kernel = Told()
    reached = zero(kernel, device, 0, 3 * STEP, Deadline(0.0))

    assert (reached, kernel.effects) == (STEP, [(0, STEP), "flush"])


@pytest.mark.parametrize(("seconds", "pauses"), [(0.001, []), (0.12, [0.2]), (1.0, [0.0])])
def test_what_somebody_has_to_write_is_written_slowly(
    device: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, pauses: list[float]
) -> None:
    """A disk that zeroes by itself gets no pause; another has its neighbours' I/O to do too."""
    kernel = Told(seconds)
    made: list[float] = []
    monkeypatch.setattr("csi_driver.host.zeroing.time.monotonic", lambda: kernel.now)
    monkeypatch.setattr("csi_driver.host.zeroing.time.sleep", made.append)
    zero(kernel, device, 0, 2 * STEP, Deadline(60.0))

    assert made == pytest.approx(pauses)


def test_a_file_that_took_a_devices_name_is_not_zeroed(tmp_path: Path) -> None:
    """When a disk goes away, its name in /dev is free."""
    path, kernel = tmp_path / "device", Told()
    path.touch()

    with pytest.raises(Foreign):
        zero(kernel, path, 0, STEP, Deadline(60.0))
    assert kernel.effects == []
