"""QEMU itself, 9 or newer: Debian 12's 7.2 corrupts the guest when it emulates the processor."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .cache import Cache, digest
from .debian import make_tree
from .host import apt_install, apt_update, find_program, run, step

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "qemu-system-x86_64"
PACKAGE = "qemu-system-x86"
OLDEST_MAJOR = 9
TREE_SUITE = "trixie"


@dataclass(frozen=True, slots=True)
class Emulator:
    """How to start QEMU: the first words of its command line and what its environment needs."""

    version: str
    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def find_emulator(cache: Cache) -> Emulator:
    """Return a QEMU that is new enough.

    The machine's own if it has one; else its apt's, from a suite that it is set up with; else Debian 13's
    in a tree in the cache, which changes nothing on the machine.
    """
    if (own := _installed()) is not None:
        return own
    if (tree := cache.find("qemu", _tree_key())) is not None:
        return _from_tree(tree)
    if (options := _apt_offer()) is not None:
        apt_install(PACKAGE, options=options)
        if (own := _installed()) is not None:
            return own
    with cache.lock():
        if cache.find("qemu", _tree_key()) is None:
            with step("getting QEMU from Debian 13", 15), cache.create("qemu", _tree_key()) as scratch:
                make_tree(scratch / "tree", TREE_SUITE, (PACKAGE,), configure=False)
        return _from_tree(cache.root / f"qemu-{_tree_key()}")


def _tree_key() -> str:
    return digest([TREE_SUITE.encode(), PACKAGE.encode()])


def _installed() -> Emulator | None:
    program = find_program(PROGRAM)
    if program is None:
        return None
    version = _version(run([program, "--version"]))
    return Emulator(version, (program,)) if _is_new_enough(version) else None


def _version(text: str) -> str:
    match = re.search(r"\d+\.\d+(\.\d+)?", text)
    return match.group() if match else "0"


def _is_new_enough(version: str) -> bool:
    return int(version.split(".", maxsplit=1)[0]) >= OLDEST_MAJOR


def _apt_offer() -> tuple[str, ...] | None:
    """Return apt-get's options for a new enough package from the machine's own sources, or None."""
    apt_update()
    for line in run(["apt-cache", "madison", PACKAGE]).splitlines():
        _, version, source = (part.strip() for part in line.split("|"))
        if _is_new_enough(_version(version.split(":")[-1])):
            suite = source.split()[1].split("/")[0]
            return ("-t", suite)
    return None


def _from_tree(entry: Path) -> Emulator:
    """Start the tree's QEMU by the tree's own loader, with the tree's libraries, modules and firmware.

    Its modules fit no other build, so the search must begin in the tree.
    """
    usr = entry / "tree/usr"
    libraries = usr / "lib/x86_64-linux-gnu"
    loader = (str(usr / "lib64/ld-linux-x86-64.so.2"), "--library-path", str(libraries))
    firmware = ("-L", str(usr / "share/qemu"), "-L", str(usr / "share/seabios"))
    argv = (*loader, str(usr / "bin" / PROGRAM))
    version = _version(run([*argv, "--version"]))
    return Emulator(version, (*argv, *firmware), {"QEMU_MODULE_DIR": str(libraries / "qemu")})
