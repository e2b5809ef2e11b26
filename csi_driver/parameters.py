"""Class parameters -> what a record wants. Pure; every error names the key and its value."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_driver.errors import Invalid, quoted
from csi_driver.records import FileSystem, Qos
from qos.policy import BURST, OVERRIDES, BadLimit, floor, least, limits
from qos.tiers import DEFAULT, Enforce, Provision, Tier

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_SYSTEMS = ("ext4", "xfs", "btrfs")
SECTOR_SIZES = (512, 4096)
MOST_READ_AHEAD_KIB = 1 << 20
SMALLEST = {"ext4": 8 << 20, "xfs": 300 << 20, "btrfs": 256 << 20}
"""Bytes. mkfs.xfs refuses anything below 300 MiB; an ext4 below 8 MiB has no journal; no btrfs grows to below 256."""

FOREIGN_PREFIX = "csi.storage.k8s.io/"
"""Keys that a sidecar adds; all but the claim's name are none of our business."""

QOS_KEYS = frozenset({"tier"}) | OVERRIDES | BURST
CREATE_KEYS = QOS_KEYS | {"pool", "fsType", "mountOptions", "mkfsOptions", "readAheadKiB", "sectorSize"}

MOUNT_OPTIONS = {
    "": {"ro", "noatime", "nodiratime", "relatime", "lazytime", "nosuid", "nodev", "noexec", "sync", "dirsync"},
    "ext4": {
        "discard",
        "nodiscard",
        "barrier=1",
        "data=ordered",
        "data=journal",
        "commit=",
        "stripe=",
        "journal_checksum",
    },
    "xfs": {"discard", "nodiscard", "largeio", "swalloc", "inode64", "allocsize=", "logbufs=", "logbsize=", "nouuid"},
    "btrfs": {
        "discard",
        "discard=async",
        "discard=sync",
        "nodiscard",
        "compress=zstd",
        "compress=lzo",
        "compress-force=zstd",
        "autodefrag",
        "nodatacow",
        "nodatasum",
        "flushoncommit",
        "commit=",
        "max_inline=",
    },
}
"""Mount options that a class or a claim may name, by file system. `key=` takes a number, or a size such as 64k."""
MOUNT_VALUE = re.compile(r"[0-9]{1,10}[kKmMgG]?")

MKFS_OPTIONS = {
    "ext4": ("-m", "-i", "-I", "-N", "-T", "-O", "-E"),
    "xfs": ("-m", "-i", "-d", "-l", "-n"),
    "btrfs": ("-m", "-d", "-n", "-O", "--csum"),
}
"""mkfs options that a class may name; each takes one value. Sizes of blocks and sectors are the driver's."""
MKFS_VALUE = re.compile(r"[A-Za-z0-9^_,.:=%-]{1,256}")
MKFS_ELSEWHERE = frozenset({"file", "name", "logdev", "offset"})
"""Sub-options by which an mkfs writes to another file than the volume, or not at its start."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Hold what class parameters ask for. `sector_size` 0 leaves the choice to the pool; `thick` is the tier's."""

    qos: Qos
    file_system: FileSystem
    pool: str
    sector_size: int
    claim: str
    thick: bool


def qos_of(tiers: Mapping[str, Tier], size: int, asked: Mapping[str, str]) -> Qos:
    """Return the I/O budget of a volume of `size` bytes. Raises Invalid naming the key and its value."""
    name = asked.get("tier", DEFAULT)
    tier = tiers.get(name)
    if tier is None:
        raise Invalid(f"tier: there is no tier {quoted(name)}; there are {', '.join(sorted(tiers))}")
    overrides = {key: value for key, value in asked.items() if key in OVERRIDES | BURST}
    try:
        resolved, yielded = limits(tier, size, overrides), least(tier, size, overrides)
        promised = floor(tier, size, overrides)
    except BadLimit as error:
        raise Invalid(str(error)) from error
    return Qos(name, overrides, resolved, tier.enforce is Enforce.REQUIRED, yielded, promised)


def wanted(tiers: Mapping[str, Tier], size: int, parameters: Mapping[str, str], mutable: Mapping[str, str]) -> Wanted:
    """Return what CreateVolume's parameters ask for; `mutable` (a VolumeAttributesClass) wins over `parameters`."""
    ours = {key: value for key, value in parameters.items() if not key.startswith(FOREIGN_PREFIX)}
    _known(ours, CREATE_KEYS)
    _known(mutable, QOS_KEYS)
    qos = qos_of(tiers, size, {**ours, **mutable})
    claim = "/".join(
        filter(None, (parameters.get(f"{FOREIGN_PREFIX}pvc/{part}", "") for part in ("namespace", "name")))
    )
    tier = tiers[qos.tier]
    thick = tier.provision is Provision.THICK
    return Wanted(qos, _file_system(tier, ours), ours.get("pool", ""), _sector_size(ours), claim, thick)


def modified(tiers: Mapping[str, Tier], size: int, qos: Qos, mutable: Mapping[str, str]) -> Qos:
    """Return the budget after ControllerModifyVolume: the keys given change, all others stay. Raises Invalid."""
    _known(mutable, QOS_KEYS)
    return qos_of(tiers, size, {"tier": qos.tier, **qos.overrides, **mutable})


def check_mount_options(fs_type: str, options: tuple[str, ...], field: str) -> None:
    """Raise Invalid for a mount option that isn't on the list for this file system.

    It is named by its place: CSI's mount_flags may hold a secret.
    """
    allowed = MOUNT_OPTIONS[""] | MOUNT_OPTIONS.get(fs_type, set())
    for place, option in enumerate(options, 1):
        key, equals, value = option.partition("=")
        if option not in allowed and not (equals and key + equals in allowed and MOUNT_VALUE.fullmatch(value)):
            known = ", ".join(sorted(allowed))
            raise Invalid(
                f"{field}: option {place} of {len(options)} is not allowed for {fs_type}; allowed are {known}"
            )


def check_file_system(fs_type: str, field: str) -> None:
    """Raise Invalid for a file system that this driver doesn't make."""
    if fs_type not in FILE_SYSTEMS:
        raise Invalid(
            f"{field}: {quoted(fs_type)} is not a file system of this driver; there are {', '.join(FILE_SYSTEMS)}"
        )


def _known(given: Mapping[str, str], known: frozenset[str]) -> None:
    for key in given:
        if key not in known:
            raise Invalid(f"parameter {quoted(key)} is not known; there are {', '.join(sorted(known))}")


def _file_system(tier: Tier, asked: Mapping[str, str]) -> FileSystem:
    fs_type = asked.get("fsType", tier.fs_type)
    check_file_system(fs_type, "fsType")
    same = fs_type == tier.fs_type
    mount = tuple(filter(None, asked["mountOptions"].split(","))) if "mountOptions" in asked else ()
    if "mountOptions" not in asked and same:
        mount = tier.mount_options
    check_mount_options(fs_type, mount, "mountOptions")
    mkfs = _mkfs_options(fs_type, asked["mkfsOptions"]) if "mkfsOptions" in asked else tier.mkfs_options if same else ()
    return FileSystem(fs_type, mount, mkfs, _read_ahead(tier, asked))


def _mkfs_options(fs_type: str, text: str) -> tuple[str, ...]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Invalid(f"mkfsOptions: {quoted(text)}: {error}") from error
    allowed = MKFS_OPTIONS[fs_type]
    if len(words) % 2 or any(word not in allowed for word in words[::2]) or not all(map(_is_mkfs_value, words[1::2])):
        raise Invalid(
            f"mkfsOptions: {quoted(text)} must be pairs of an option and its value; allowed are {' '.join(allowed)}"
        )
    return tuple(words)


def _is_mkfs_value(word: str) -> bool:
    parts = (part.partition("=")[0] for part in word.split(","))
    return not word.startswith("-") and MKFS_VALUE.fullmatch(word) is not None and MKFS_ELSEWHERE.isdisjoint(parts)


def _read_ahead(tier: Tier, asked: Mapping[str, str]) -> int | None:
    if "readAheadKiB" not in asked:
        return tier.read_ahead_kib
    text = asked["readAheadKiB"]
    if not re.fullmatch("[0-9]{1,7}", text) or int(text) > MOST_READ_AHEAD_KIB:
        raise Invalid(f"readAheadKiB: {quoted(text)} is not a number of KiB from 0 to 1048576")
    return int(text)


def _sector_size(asked: Mapping[str, str]) -> int:
    text = asked.get("sectorSize", "0")
    if text not in {"0", *map(str, SECTOR_SIZES)}:
        raise Invalid(f"sectorSize: {quoted(text)} is neither 512 nor 4096 bytes")
    return int(text)
