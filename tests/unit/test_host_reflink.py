"""Copies by reference: whole where nobody waits, else in pieces, and not for too long."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline
from csi_driver.errors import InUse
from csi_driver.host import reflink
from csi_driver.host.reflink import FEW, PIECE, Reflinks
from csi_driver.host.syscalls import FICLONE, FICLONERANGE, Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

NAME = "an-id"


class Cloning(Kernel):
    """Note what would be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = 0
        self.pieces: list[tuple[int, int, int]] = []

    def ioctl(self, _fd: int, request: int, argument: int | bytearray = 0, *, path: object = "") -> int:  # noqa: ARG002
        if request == FICLONE:
            self.whole += 1
        else:
            assert request == FICLONERANGE
            assert isinstance(argument, bytearray)
            self.pieces.append(struct.unpack("=qQQQ", argument)[1:])
        return 0


class Image:
    """An image of so many bytes, with as many extents as one says."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.kernel = Cloning()
        self.extents = FEW
        self._reflinks = Reflinks(self.kernel)

    def clone(self, size: int, seconds: float | None) -> None:
        self.file.truncate(size)
        by = None if seconds is None else Deadline(seconds)
        self._reflinks.clone(self.file.fileno(), 0, NAME, by)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Image]:
    with (tmp_path / "image").open("wb") as file:
        image = Image(file)
        monkeypatch.setattr(reflink, "extents_of", lambda _: image.extents)
        yield image


@pytest.mark.parametrize(("size", "seconds"), [(10 * PIECE, None), (PIECE, 60), (PIECE, 0)])
def test_what_nobody_waits_for_or_is_small_is_copied_at_once(image: Image, size: int, seconds: float | None) -> None:
    """One call, which can't be of two moments."""
    image.clone(size, seconds)

    assert (image.kernel.whole, image.kernel.pieces) == (1, [])


def test_what_somebody_waits_for_is_copied_in_pieces_that_make_the_whole(image: Image) -> None:
    """None left out, none twice, the last one shorter."""
    image.clone(2 * PIECE + 4096, 60)

    assert image.kernel.pieces == [(0, PIECE, 0), (PIECE, PIECE, PIECE), (2 * PIECE, 4096, 2 * PIECE)]
    assert image.kernel.whole == 0


def test_who_waits_too_long_goes_on(image: Image) -> None:
    """The error names the image, its extents and what to do."""
    with pytest.raises(InUse, match=rf"{NAME} .* {FEW} extents.* unstage the volume"):
        image.clone(2 * PIECE, 0)

    assert image.kernel.pieces == []


def test_what_took_too_long_once_is_not_tried_with_no_fewer_extents(image: Image) -> None:
    """Its writers would wait as long again, for nothing, at each retry."""
    with pytest.raises(InUse):
        image.clone(2 * PIECE, 0)
    with pytest.raises(InUse):
        image.clone(2 * PIECE, 60)

    assert image.kernel.pieces == []


@pytest.mark.parametrize(("extents", "seconds"), [(FEW - 1, 60.0), (FEW, None)])
def test_it_is_tried_again_with_fewer_extents_or_when_nobody_waits(
    image: Image, extents: int, seconds: float | None
) -> None:
    """Somebody defragmented it, or unstaged the volume."""
    with pytest.raises(InUse):
        image.clone(2 * PIECE, 0)
    image.extents = extents
    image.clone(2 * PIECE, seconds)

    assert image.kernel.whole or image.kernel.pieces


def test_it_is_tried_again_after_a_while(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been the machine that stood still."""
    monkeypatch.setattr(reflink, "REFUSED_SECONDS", 0.0)
    with pytest.raises(InUse):
        image.clone(2 * PIECE, 0)
    image.clone(2 * PIECE, 60)

    assert len(image.kernel.pieces) == 2


def test_few_extents_that_are_late_are_copied_for_the_dead_man_to_judge(image: Image) -> None:
    """It is not for their number: the machine stood still, and a next try may work."""
    image.extents = FEW - 1
    image.clone(2 * PIECE, 0)

    assert len(image.kernel.pieces) == 2


def test_a_file_system_that_counts_no_extents_is_always_tried(image: Image) -> None:
    """Btrfs: each try is bounded by itself."""
    image.extents = 0
    with pytest.raises(InUse):
        image.clone(2 * PIECE, 0)
    image.clone(2 * PIECE, 60)

    assert len(image.kernel.pieces) == 2
