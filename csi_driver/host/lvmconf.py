"""What lvm is set to, by lvmconfig, and which devices it lets its own commands see. It reads no disk.

The driver's commands name their disks by --devices, so neither a filter nor a devices file changes what they see.
Whoever types a command by hand, and the machine's boot, go by these.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from csi_driver.host.run import Runner

SECONDS = 10.0
VERSION = re.compile(r"LVM version:\s*(\d+)\.(\d+)\.(\d+)")
DEVICES_FOLDER = Path("/etc/lvm/devices")
LOCAL = Path("/etc/lvm/lvmlocal.conf")
"""What a host sets for itself: it wins over lvm.conf."""
ACCEPT_ALL, QUOTE = "a|.*|", '"'
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold lvm's settings by name, as lvmconfig prints their values."""

    values: Mapping[str, str]

    def number(self, name: str, default: int) -> int:
        """Return a setting that is a number, the default where lvm doesn't tell it."""
        value = self.values.get(name, "")
        return int(value) if value.isdecimal() else default

    def accepts(self, name: str, paths: Iterable[str]) -> bool:
        """Return whether a filter accepts a device with these names, by lvm.conf(5): each name's first match counts.

        A name that is accepted decides before one that is rejected; no match at all accepts.
        """
        patterns = [text.replace("\\\\", "\\") for text in _QUOTED.findall(self.values.get(name, ""))]
        verdicts = {verdict for path in paths if (verdict := _verdict(patterns, path))}
        return "a" in verdicts or "r" not in verdicts

    def rejecting(self, name: str, pattern: str) -> str:
        """Return a filter as lvm.conf has it that rejects what a pattern matches, and does the rest as it does now."""
        now = [text for text in _QUOTED.findall(self.values.get(name, "")) if text != ACCEPT_ALL]
        return f"[ {', '.join(f'{QUOTE}{text}{QUOTE}' for text in (f'r|{pattern}|', *now))} ]"

    def devices_file(self, folder: Path = DEVICES_FOLDER) -> str | None:
        """Return what the devices file says, None when lvm doesn't go by one."""
        names = _QUOTED.findall(self.values.get("devicesfile", ""))
        if not self.number("use_devicesfile", 0) or not names:
            return None
        try:
            return (folder / str(names[0])).read_text(errors="replace")
        except OSError:  # lvm goes by none then
            return None


def version(runner: Runner, prefix: Sequence[str] = ()) -> tuple[int, int, int] | None:
    """Return lvm's version, None when it tells none that can be read. Raises Unready, Unknown."""
    said = runner.run(["lvm", "version"], deadline=Deadline(SECONDS), prefix=prefix).stdout
    found = VERSION.search(said)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def settings(runner: Runner, prefix: Sequence[str] = ()) -> Settings:
    """Return lvm's settings. Raises Unready, Unknown."""
    said = runner.run(["lvm", "lvmconfig", "--typeconfig", "full"], deadline=Deadline(SECONDS), prefix=prefix).stdout
    pairs = (line.strip().partition("=") for line in said.splitlines())
    return Settings({name: value for name, equals, value in pairs if equals})


def setting(*settings: str) -> str:
    """Return the command by which a person sets some of lvm's settings on a host, each SECTION/NAME=VALUE."""
    return f"printf '%s\\n' {' '.join(map(shlex.quote, settings))} >> {LOCAL}"


def _verdict(patterns: Iterable[str], path: str) -> str:
    for pattern in patterns:
        kind, delimiter, rest = pattern[:1], pattern[1:2], pattern[2:]
        closing = {"[": "]", "(": ")", "{": "}"}.get(delimiter, delimiter)
        try:
            if closing and re.search(rest.removesuffix(closing), path):
                return kind
        except re.error:  # lvm's own grammar is smaller than Python's
            continue
    return ""
