"""Files that become longer: what is asked of the kernel, and what never is."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, TypeVar

import pytest

from csi_driver.host.lengthen import lengthen
from csi_driver.host.syscalls import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
MIB = 1 << 20


class Noting(Kernel):
    """Note each effect, and have it if it may be had: what is tried must not fill the disk that tests run on."""

    def __init__(self, *, harmless: bool = True) -> None:
        super().__init__()
        self.effects: list[str] = []
        self._harmless = harmless

    def _effect(self, name: str, path: object, call: Callable[[], T]) -> T:
        self.effects.append(name)
        if not self._harmless:
            raise AssertionError(f"{name} was tried")
        return super()._effect(name, path, call)


@pytest.mark.parametrize(("allocate", "effect"), [(False, "ftruncate"), (True, "fallocate")])
def test_a_file_keeps_what_it_holds_and_goes_on_with_zeros(tmp_path: Path, allocate: bool, effect: str) -> None:
    """By one call."""
    kernel = Noting()
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"x" * 4096)
        lengthen(kernel, file.fileno(), MIB, allocate=allocate)
        file.seek(0)
        content = file.read()

    assert content == b"x" * 4096 + bytes(MIB - 4096)
    assert kernel.effects == [effect]


def test_what_does_not_fit_is_not_even_begun(tmp_path: Path) -> None:
    """ext4 would allocate until nothing is left for anybody, and only then refuse."""
    kernel = Noting(harmless=False)
    with (tmp_path / "file").open("w+b") as file:
        room = os.fstatvfs(file.fileno())
        with pytest.raises(OSError, match="No space left") as refused:
            lengthen(kernel, file.fileno(), room.f_bavail * room.f_frsize + MIB, allocate=True)
        size = os.fstat(file.fileno()).st_size

    assert (refused.value.errno, size, kernel.effects) == (errno.ENOSPC, 0, [])
