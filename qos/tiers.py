"""Tiers: named sets of limits and file system defaults, read from TOML.

A file has one table per tier. Keys, all but none of them needed:

    description                                a line for people
    readIOPS, writeIOPS, readBPS, writeBPS     ceilings, in the grammar of `qos/rates.py`; left out: no ceiling
    enforce                                    "required" (left out: this) or "best-effort"
    yields                                     true: written at its least rate while its pool is nearly full
    provision                                  "thin" (left out: this), or "thick": all bytes are its own from the start
    fsType                                     "ext4" (left out: this), "xfs" or "btrfs"
    mountOptions, mkfsOptions                  lists of strings
    readAheadKiB                               read-ahead of the device; left out: the kernel's

The keys of limits are those of StorageClass parameters. The user's file adds tiers, or replaces one as a whole:
nothing is merged key by key, so that a tier can be understood by reading it in one place.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from qos.rates import BURST, FLOORS, UNITS, Rate, parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["DEFAULT", "BadTier", "Enforce", "Provision", "Rate", "Tier", "load"]

DEFAULT: Final = "standard"
FILE_SYSTEMS: Final = ("ext4", "xfs", "btrfs")

# A tier's name is a parameter's value, a metric's label and a tag on an LV: the strictest of them is a DNS label.
_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_MOST_READ_AHEAD_KIB: Final = 1024 * 1024


class BadTier(ValueError):
    """Say that a file of tiers makes no sense. The message names the file, the tier and the key."""


class Enforce(StrEnum):
    """Say what to do when a limit can't be applied."""

    REQUIRED = "required"  # fail the stage: no volume runs unlimited in silence
    BEST_EFFORT = "best-effort"  # go on, and say so in the status


class Provision(StrEnum):
    """Say when a volume gets its bytes."""

    THIN = "thin"  # when they are written
    THICK = "thick"  # all when it is made: nothing is allocated under its writes, and it can't be cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Hold what a class of volumes gets. A rate that is None is no ceiling, or no floor."""

    name: str
    description: str = ""
    read_iops: Rate | None = None
    write_iops: Rate | None = None
    read_bps: Rate | None = None
    write_bps: Rate | None = None
    min_iops: Rate | None = None
    min_bps: Rate | None = None
    enforce: Enforce = Enforce.REQUIRED
    yields: bool = False
    provision: Provision = Provision.THIN
    fs_type: str = "ext4"
    mount_options: tuple[str, ...] = ()
    mkfs_options: tuple[str, ...] = ()
    read_ahead_kib: int | None = None

    def rates(self) -> dict[str, Rate | None]:
        """Return the four rules under the keys that people write."""
        return {
            "readIOPS": self.read_iops,
            "writeIOPS": self.write_iops,
            "readBPS": self.read_bps,
            "writeBPS": self.write_bps,
        }

    def floors(self) -> dict[str, Rate | None]:
        """Return the two rules of the floor, likewise."""
        return {"minIOPS": self.min_iops, "minBPS": self.min_bps}


def load(user_file: Path | None = None) -> Mapping[str, Tier]:
    """Return the tiers by name: the built-in ones, with those of the user's file added or put in their place.

    Raises BadTier, naming file, tier and key, for what makes no sense; OSError if the user's file can't be read.
    """
    built_in = resources.files("qos").joinpath("tiers.toml").read_bytes()
    tiers = _parse("tiers.toml", built_in)
    if user_file is not None:
        tiers.update(_parse(str(user_file), user_file.read_bytes()))
    return MappingProxyType(tiers)


def _parse(file: str, content: bytes) -> dict[str, Tier]:
    """Return the tiers that a file's content says."""
    try:
        tables = tomllib.loads(content.decode())
    except ValueError as error:  # not TOML, or not UTF-8
        raise BadTier(f"{file}: not a TOML file: {error}") from error
    return {name: _tier(file, name, table) for name, table in tables.items()}


def _tier(file: str, name: str, table: object) -> Tier:
    """Return the tier that one table says."""
    if not isinstance(table, dict):
        raise BadTier(f"{file}: {name}: not a tier: write a table, [{name}]")
    if _NAME.fullmatch(name) is None:
        raise BadTier(f"{file}: {name!r}: not a name: use a-z, 0-9 and -, at most 63 characters")
    values: dict[str, object] = {}
    for key, value in table.items():
        try:
            field, read = _field(key)
            values[field] = read(value)
        except ValueError as error:
            raise BadTier(f"{file}: {name}: {key}: {error}") from error
    return Tier(name=name, **values)  # type: ignore[arg-type]  # each reader returns its field's type


def _field(key: str) -> tuple[str, Callable[[object], object]]:
    """Return the field of Tier that a key fills, and what reads its value."""
    if key in BURST:
        raise ValueError("not supported yet: leave it out")
    if key not in _FIELDS:
        raise ValueError(f"unknown key: the keys are {', '.join(_FIELDS)}")
    return _FIELDS[key]


def _rate(key: str) -> Callable[[object], Rate | None]:
    """Return what reads the limit under a key: a text in the grammar of rates, or a plain whole number."""

    def read(value: object) -> Rate | None:
        return parse_rate(str(value) if type(value) is int else _text(value), {**UNITS, **FLOORS}[key])

    return read


def _text(value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text in quotes")  # noqa: TRY004 - the user's mistake, not the program's
    return value


def _enforce(value: object) -> Enforce:
    """Return how strict a tier is."""
    if value not in list(Enforce):
        raise ValueError(f"{value!r} is neither of {', '.join(Enforce)}")
    return Enforce(_text(value))


def _truth(value: object) -> bool:
    """Return a yes or no."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")  # noqa: TRY004 - the user's mistake, not the program's
    return value


def _provision(value: object) -> Provision:
    """Return when a volume gets its bytes."""
    if value not in list(Provision):
        raise ValueError(f"{value!r} is neither of {', '.join(Provision)}")
    return Provision(_text(value))


def _fs_type(value: object) -> str:
    """Return a file system that Sluice makes."""
    if value not in FILE_SYSTEMS:
        raise ValueError(f"{value!r} is none of {', '.join(FILE_SYSTEMS)}")
    return _text(value)


def _options(value: object) -> tuple[str, ...]:
    """Return a list of options. Each is one word, for it becomes one argument of mkfs or one option of mount."""
    if not isinstance(value, list) or not all(isinstance(word, str) and word.split() == [word] for word in value):
        raise ValueError(f'{value!r} is not a list of words: write ["noatime"]')
    return tuple(value)


def _read_ahead(value: object) -> int:
    """Return a read-ahead in KiB: whole pages, for the kernel rounds others down in silence."""
    if type(value) is not int or not 0 <= value <= _MOST_READ_AHEAD_KIB or value % 4:
        raise ValueError(f"{value!r} is not a read-ahead: write a multiple of 4, 0 to {_MOST_READ_AHEAD_KIB}")
    return value


_FIELDS: Final[Mapping[str, tuple[str, Callable[[object], object]]]] = MappingProxyType(
    {
        "description": ("description", _text),
        "readIOPS": ("read_iops", _rate("readIOPS")),
        "writeIOPS": ("write_iops", _rate("writeIOPS")),
        "readBPS": ("read_bps", _rate("readBPS")),
        "writeBPS": ("write_bps", _rate("writeBPS")),
        "minIOPS": ("min_iops", _rate("minIOPS")),
        "minBPS": ("min_bps", _rate("minBPS")),
        "enforce": ("enforce", _enforce),
        "yields": ("yields", _truth),
        "provision": ("provision", _provision),
        "fsType": ("fs_type", _fs_type),
        "mountOptions": ("mount_options", _options),
        "mkfsOptions": ("mkfs_options", _options),
        "readAheadKiB": ("read_ahead_kib", _read_ahead),
    }
)
