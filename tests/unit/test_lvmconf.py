"""What lvm is set to, as lvmconfig prints it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from csi_driver.errors import Unready
from csi_driver.host import lvmconf
from csi_driver.host.lvmconf import Settings
from csi_driver.host.run import Output, Runner

if TYPE_CHECKING:
    from pathlib import Path

SAID = """
devices {
\tuse_devicesfile=1
\tdevicesfile="system.devices"
\tglobal_filter=["r|^/dev/mapper/sluice-|"]
}
activation {
\tthin_pool_autoextend_threshold=70
}
"""


class Says(Runner):
    """A runner that answers with one text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def run(self, *_: object, **__: object) -> Output:
        return Output(self._text, "", 0)


def test_settings_are_read_by_name() -> None:
    """One that isn't there is what lvm has by default."""
    settings = lvmconf.settings(Says(SAID))

    assert settings.number("thin_pool_autoextend_threshold", 100) == 70
    assert settings.number("scan_lvs", 0) == 0


@pytest.mark.parametrize(
    ("patterns", "names", "accepted"),
    [
        ('["a|.*|"]', ["/dev/vdb"], True),
        ("", ["/dev/vdb"], True),
        ('["r|^/dev/mapper/sluice-|"]', ["/dev/mapper/sluice-1"], False),
        ('["r|^/dev/mapper/sluice-|"]', ["/dev/vdb"], True),
        ('["a|vdb|", "r|.*|"]', ["/dev/vdb"], True),
        ('["a|vdb|", "r|.*|"]', ["/dev/vdc"], False),
        ('["r/vdb/"]', ["/dev/vdb"], False),
        ('["r|/dev/vdb|", "a|by-id|"]', ["/dev/vdb", "/dev/disk/by-id/x"], True),
        ('["a|[|"]', ["/dev/vdb"], True),
    ],
)
def test_a_filter_is_read_as_lvm_reads_it(patterns: str, names: list[str], *, accepted: bool) -> None:
    """The first pattern that matches a name counts; a name that is accepted decides."""
    assert Settings({"filter": patterns}).accepts("filter", names) is accepted


def test_a_devices_file_counts_when_lvm_goes_by_it(tmp_path: Path) -> None:
    """Not when the setting is off, nor when there is none."""
    (tmp_path / "system.devices").write_text("PVID=abc")
    on, off = lvmconf.settings(Says(SAID)), lvmconf.settings(Says(SAID.replace("use_devicesfile=1", "")))

    assert on.devices_file(tmp_path) == "PVID=abc"
    assert on.devices_file(tmp_path / "none") is None
    assert off.devices_file(tmp_path) is None


@pytest.mark.parametrize(
    ("said", "version"), [("  LVM version:     2.03.31(2) (2025-02-27)\n  Library", (2, 3, 31)), ("no idea", None)]
)
def test_the_version_is_three_numbers(said: str, version: tuple[int, int, int] | None) -> None:
    """So that 2.03.9 is older than 2.03.12."""
    assert lvmconf.version(Says(said)) == version


def test_without_lvm_it_is_said_what_to_install() -> None:
    """By the door to programs."""
    with pytest.raises(Unready, match="install"):
        lvmconf.version(Runner(), prefix=("no-such-program",))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '[ "r|^/dev/x|" ]'),
        ('["a|.*|"]', '[ "r|^/dev/x|" ]'),
        ('["a|vdb|", "r|\\\\.y|"]', '[ "r|^/dev/x|", "a|vdb|", "r|\\\\.y|" ]'),
    ],
)
def test_a_filter_that_rejects_more_keeps_what_it_has(before: str, after: str) -> None:
    """As lvm writes it, and ours first, since the first match counts."""
    assert Settings({"global_filter": before}).rejecting("global_filter", "^/dev/x") == after


def test_a_setting_is_told_as_one_command() -> None:
    """Whatever quotes it has, a shell hands them on."""
    command = lvmconf.setting("devices/scan_lvs=0", 'devices/global_filter=[ "r|x|" ]')
    words = shlex.split(command)

    assert words[2:4] == ["devices/scan_lvs=0", 'devices/global_filter=[ "r|x|" ]']
    assert words[4:] == [">>", str(lvmconf.LOCAL)]
