"""The door to the kernel: every change goes through one place."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, TypeVar

import pytest

from csi_driver.host.syscalls import FICLONE, Kernel, request_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")


class Counting(Kernel):
    """Remember each effect, and cut before the one that is named."""

    def __init__(self, cut_before: str = "") -> None:
        super().__init__()
        self.effects: list[str] = []
        self._cut_before = cut_before

    def _effect(self, name: str, path: object, call: Callable[[], T]) -> T:
        if name == self._cut_before:
            raise KeyboardInterrupt
        self.effects.append(name)
        return super()._effect(name, path, call)


def test_every_change_of_a_file_passes_the_choke_point(tmp_path: Path) -> None:
    """Each method is one effect under its call's name, and does what the call does."""
    kernel = Counting()
    folder, file = tmp_path / "folder", tmp_path / "folder/file"

    kernel.mkdir(folder)
    fd = kernel.open(file, os.O_RDWR | os.O_CREAT)
    kernel.ftruncate(fd, 8192)
    kernel.pwrite(fd, b"data", 4096)
    kernel.fsync(fd)
    kernel.setxattr(fd, "user.sluice", b"x")
    kernel.removexattr(fd, "user.sluice")
    os.close(fd)
    kernel.write_file(file, b"new")
    content = file.read_bytes()
    kernel.link(file, folder / "link")
    kernel.rename(file, folder / "renamed")
    kernel.symlink("renamed", file)
    kernel.fsync_dir(folder)
    kernel.syncfs(folder)
    for name in ("link", "renamed", "file"):
        kernel.unlink(folder / name)
    kernel.rmdir(folder)

    made = "mkdir open ftruncate pwrite fsync setxattr removexattr write link rename symlink fsync_dir syncfs"
    assert kernel.effects == [*made.split(), *["unlink"] * 3, "rmdir"]
    assert content == b"new" + bytes(4093) + b"data" + bytes(4092)
    assert not folder.exists()


def test_reading_is_no_effect(tmp_path: Path) -> None:
    """Opening what is there, without truncating, changes nothing."""
    (tmp_path / "file").touch()
    kernel = Counting()

    os.close(kernel.open(tmp_path / "file", os.O_RDWR))

    assert kernel.effects == []


def test_a_change_can_be_cut_before_it_happens(tmp_path: Path) -> None:
    """What a test cuts has not happened, as if the machine had died there."""
    (tmp_path / "file").touch()

    with pytest.raises(KeyboardInterrupt):
        Counting(cut_before="rename").rename(tmp_path / "file", tmp_path / "renamed")

    assert (tmp_path / "file").exists()


def test_an_error_has_the_call_and_the_path(tmp_path: Path) -> None:
    """And stays the subclass of OSError that its number stands for."""
    with pytest.raises(FileNotFoundError, match="rmdir: No such file or directory") as caught:
        Kernel().rmdir(tmp_path / "absent")

    assert caught.value.filename == str(tmp_path / "absent")


def test_a_file_is_never_made_by_writing_to_it(tmp_path: Path) -> None:
    """A sysfs or configfs file that isn't there stays so."""
    with pytest.raises(FileNotFoundError):
        Kernel().write_file(tmp_path / "absent", b"1")

    assert not (tmp_path / "absent").exists()


def test_an_interrupted_call_is_made_again() -> None:
    """EINTR means that nothing happened: a suspend was rolled back."""
    answers: list[int | None] = [errno.EINTR, errno.EINTR, None]

    def call() -> str:
        if number := answers.pop(0):
            raise OSError(number, os.strerror(number))
        return "done"

    assert Kernel()._effect("DM_DEV_SUSPEND", "name", call) == "done"


def test_an_ioctl_has_its_name_in_the_headers() -> None:
    """An unknown one shows its number."""
    assert request_name(FICLONE) == "FICLONE"
    assert request_name(0x1234) == "0x1234"
