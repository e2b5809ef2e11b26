"""The rule by which udev leaves volumes alone: written once, told once, and the same as what is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi_driver.errors import ToolFailed
from csi_driver.host import udev
from csi_driver.host.run import Runner
from csi_driver.host.syscalls import Kernel

SHIPPED = Path(__file__).resolve().parent.parent.parent / "deploy/udev"


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


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


RULES = dict.fromkeys(udev.NAMES, udev.RULE)


def test_the_shipped_rules_are_those_that_a_server_writes() -> None:
    """Where a server can't write them, a person installs the files."""
    assert texts(SHIPPED) == RULES


def test_rules_count_as_installed_when_both_are_as_they_are_now(tmp_path: Path) -> None:
    """One alone leaves a gap on Debian or on RHEL, an older one may know no logical volumes."""
    for name, text in RULES.items():
        (tmp_path / name).write_text(text)
    whole = udev.installed([tmp_path / "none", tmp_path])
    (tmp_path / udev.NAMES[0]).write_text("# older\n")

    assert whole == tmp_path
    assert udev.installed([tmp_path]) is None


def test_udev_is_told_once(tmp_path: Path) -> None:
    """The rule is there as a whole, and a second start has nothing to say."""
    told = Told()
    first, second = (udev.keep_away(Kernel(), told, tmp_path) for _ in range(2))

    assert (first, second) == (True, False)
    assert told.commands == [["udevadm", "control", "--reload"]]
    assert texts(tmp_path / "rules.d") == RULES


def test_an_older_rule_is_replaced(tmp_path: Path) -> None:
    """A server of another version may have written it."""
    udev.keep_away(Kernel(), Told(), tmp_path)
    (tmp_path / "rules.d" / udev.NAMES[1]).write_text("# older\n")

    assert udev.keep_away(Kernel(), Told(), tmp_path)
    assert texts(tmp_path / "rules.d") == RULES


def test_where_there_is_no_udev_nothing_is_done(tmp_path: Path) -> None:
    """No folder of its own is made for it."""
    told = Told()

    assert not udev.keep_away(Kernel(), told, tmp_path / "udev")
    assert (told.commands, list(tmp_path.iterdir())) == ([], [])


def test_a_udev_that_does_not_listen_is_said(tmp_path: Path) -> None:
    """The caller decides what that means."""
    with pytest.raises(ToolFailed, match="udevadm"):
        udev.keep_away(Kernel(), Told(status=1), tmp_path)
