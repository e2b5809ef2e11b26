"""The rule by which udev leaves volumes alone: written once, told once, and the same as the one that is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi_driver.errors import ToolFailed
from csi_driver.host import udev
from csi_driver.host.run import Runner
from csi_driver.host.syscalls import Kernel

SHIPPED = Path(__file__).resolve().parent.parent.parent / "deploy/udev" / udev.NAME


class Told(Runner):
    """A runner that only remembers what it was to run, and fails if it is to."""

    def __init__(self, status: int = 0) -> None:
        super().__init__()
        self.commands: list[list[str]] = []
        self._status = status

    def run(self, argv: list[str], **_: object) -> None:  # type: ignore[override]
        self.commands.append(argv)
        if self._status:
            raise ToolFailed(argv[0], self._status, "no")


def test_the_shipped_rule_is_the_one_that_a_server_writes() -> None:
    """Where a server can't write it, a person installs the file."""
    assert SHIPPED.read_text() == udev.RULE


def test_udev_is_told_once(tmp_path: Path) -> None:
    """The rule is there as a whole, and a second start has nothing to say."""
    told = Told()
    first, second = (udev.keep_away(Kernel(), told, tmp_path) for _ in range(2))

    assert (first, second) == (True, False)
    assert told.commands == [["udevadm", "control", "--reload"]]
    assert [path.name for path in (tmp_path / "rules.d").iterdir()] == [udev.NAME]
    assert (tmp_path / "rules.d" / udev.NAME).read_text() == udev.RULE


def test_an_older_rule_is_replaced(tmp_path: Path) -> None:
    """A server of another version may have written it."""
    (tmp_path / "rules.d").mkdir()
    (tmp_path / "rules.d" / udev.NAME).write_text("# older\n")

    assert udev.keep_away(Kernel(), Told(), tmp_path)
    assert (tmp_path / "rules.d" / udev.NAME).read_text() == udev.RULE


def test_where_there_is_no_udev_nothing_is_done(tmp_path: Path) -> None:
    """No folder of its own is made for it."""
    told = Told()

    assert not udev.keep_away(Kernel(), told, tmp_path / "udev")
    assert (told.commands, list(tmp_path.iterdir())) == ([], [])


def test_a_udev_that_does_not_listen_is_said(tmp_path: Path) -> None:
    """The caller decides what that means."""
    with pytest.raises(ToolFailed, match="udevadm"):
        udev.keep_away(Kernel(), Told(status=1), tmp_path)
