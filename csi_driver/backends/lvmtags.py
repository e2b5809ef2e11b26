"""Passports as tags of logical volumes, so that `lvs -o+tags` tells a person what a volume is.

A tag is `sluice:KEY=VALUE`. LVM takes letters, digits and _+.-/=!:&# in tags: every other byte of a value, and `&`
itself, is `&` and two hexadecimal digits. What is longer than a tag may be goes on in `sluice:KEY#1=`, `sluice:KEY#2=`.
Overrides are `o-KEY`, the parameters of the call that made it `p-KEY`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from csi_driver.backends.base import Passport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PREFIX = "sluice:"
LONGEST = 900
"""Characters of a value in one tag; LVM takes tags of 1,024."""
KEYS = {
    "id": "id",
    "kind": "kind",
    "name": "name",
    "claim": "claim",
    "parent": "parent",
    "tier": "tier",
    "made": "made",
    "format_done": "format",
    "sector_size": "sector",
    "group": "group",
    "group_size": "groupsize",
    "thick": "thick",
}
"""The passport's fields, and what they are called in tags."""
MAPS = {"overrides": "o-", "parameters": "p-"}
_IN_KEYS = re.compile(rb"[A-Za-z0-9_+./!:-]")
_IN_VALUES = re.compile(rb"[A-Za-z0-9_+./!:=#-]")
_ESCAPE = re.compile(r"&([0-9A-F]{2})")
_TAG = re.compile(rf"{PREFIX}([^=#]*)(?:#([0-9]+))?=(.*)")


def write(passport: Passport) -> tuple[str, ...]:
    """Return the tags of a passport, sorted; a value that is its default has none."""
    default = Passport(id="", kind="", name="")
    pairs = {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for field, key in KEYS.items()
        if (value := getattr(passport, field)) != getattr(default, field)
    }
    for field, prefix in MAPS.items():
        pairs |= {prefix + _escaped(key, _IN_KEYS): value for key, value in getattr(passport, field).items()}
    return tuple(sorted(tag for key, value in pairs.items() for tag in _tags(key, _escaped(value))))


def read(tags: Iterable[str]) -> Passport | None:
    """Return the passport that tags make, None when they make none."""
    parts: dict[str, dict[int, str]] = {}
    for tag in tags:
        if match := _TAG.fullmatch(tag):
            parts.setdefault(match[1], {})[int(match[2] or 0)] = match[3]
    pairs = {key: "".join(pieces[place] for place in sorted(pieces)) for key, pieces in parts.items()}
    try:
        fields: dict[str, Any] = {field: _plain(pairs[key]) for field, key in KEYS.items() if key in pairs}
        for field, prefix in MAPS.items():
            fields[field] = dict(_map(pairs, prefix))
        return msgspec.convert(fields, Passport, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        return None


def _tags(key: str, value: str) -> Iterator[str]:
    yield f"{PREFIX}{key}={value[:LONGEST]}"
    for place, at in enumerate(range(LONGEST, len(value), LONGEST), 1):
        yield f"{PREFIX}{key}#{place}={value[at : at + LONGEST]}"


def _map(pairs: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in pairs.items():
        if key.startswith(prefix):
            yield _plain(key.removeprefix(prefix)), _plain(value)


def _escaped(text: str, plain: re.Pattern[bytes] = _IN_VALUES) -> str:
    return "".join(
        chr(byte) if plain.match(bytes([byte])) else f"&{byte:02X}" for byte in text.encode(errors="surrogateescape")
    )


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text).encode("latin-1").decode()
