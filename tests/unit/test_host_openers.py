"""Who has a file open, by the links in /proc."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from csi_driver.errors import Unready
from csi_driver.host.filesystem import Filesystems
from csi_driver.host.openers import openers
from csi_driver.host.run import Runner
from csi_driver.host.syscalls import Kernel

if TYPE_CHECKING:
    from pathlib import Path


def test_a_process_is_named_for_as_long_as_it_has_a_file_open(tmp_path: Path) -> None:
    """By its number and its name; by the whole path only."""
    file = tmp_path / "dm-1"
    programs = Filesystems(Runner(), Kernel())
    with file.open("w"):
        found = openers(str(file).__eq__)
        others = openers(str(tmp_path / "dm-11").__eq__)
        with pytest.raises(Unready, match=f"is open in process .*{os.getpid()}"):
            programs.check_alone(file)
    programs.check_alone(file)

    assert [line.split()[0] for line in found] == [str(os.getpid())]
    assert others == []
