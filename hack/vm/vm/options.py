"""The command line of ``hack/vm/run``."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .job import Take

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
DESCRIPTION = (
    "Boot a disposable Debian machine with the working tree at /src, run COMMAND in it as root and pass on its output"
    " and exit status. Status 124: COMMAND took too long; 125: the machine failed, which says nothing about COMMAND."
)


@dataclass(frozen=True, slots=True)
class Options:
    """What one run was asked for; sizes and speeds in bytes."""

    command: tuple[str, ...]
    disk: int | None
    keep: Path | None
    iops: int | None
    bps: int | None
    memory: int
    processors: int
    puts: tuple[Path, ...]
    takes: tuple[Take, ...]
    environment: dict[str, str]
    timeout: float | None
    expect_cut: bool
    accelerator: str | None
    console: Path | None
    append: str | None


def size(text: str) -> int:
    """Read a size such as 52428800, 50M or 4G in binary units."""
    match = re.fullmatch(r"(\d+)([KMGT]?)(i?B)?", text, re.IGNORECASE)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write for example 512M or 4G")
    return int(match[1]) * UNITS[match[2].upper()]


def take(text: str) -> Take:
    """Read GUESTPATH=HOSTPATH."""
    guest, separator, host = text.partition("=")
    if not (separator and host and guest.startswith("/") and "\n" not in guest):
        raise argparse.ArgumentTypeError(f"{text!r} is not GUESTPATH=HOSTPATH with an absolute GUESTPATH")
    return Take(PurePosixPath(guest), Path(host).absolute())


def assignment(text: str) -> tuple[str, str]:
    """Read NAME=VALUE."""
    name, separator, value = text.partition("=")
    if not (separator and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def existing(text: str) -> Path:
    """Read the path of something that is there."""
    path = Path(text).absolute()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"there is no {text}")
    return path


def parse(argv: list[str]) -> Options:
    """Read the command line; argparse ends the program with status 2 where it makes no sense."""
    parser = _parser()
    split = argv.index("--") if "--" in argv else len(argv)
    given = parser.parse_args(argv[:split])
    command = tuple(argv[split + 1 :])
    if not command:
        parser.error("no COMMAND: write it after --")
    return Options(
        command=command,
        disk=given.disk,
        keep=given.keep,
        iops=given.iops,
        bps=given.bps,
        memory=given.memory,
        processors=given.processors,
        puts=tuple(given.put),
        takes=tuple(given.get),
        environment=dict(given.env),
        timeout=given.timeout,
        expect_cut=given.expect_cut,
        accelerator=given.accel,
        console=given.console,
        append=given.append,
    )


def _parser() -> argparse.ArgumentParser:
    usage = "hack/vm/run [OPTION]... -- COMMAND [ARGUMENT]..."
    parser = argparse.ArgumentParser(prog="hack/vm/run", usage=usage, description=DESCRIPTION, allow_abbrev=False)
    add = parser.add_argument
    add("--disk", type=size, metavar="SIZE", help="size of the data disk, $SLUICE_DISK in the machine (4G)")
    add("--iops", type=int, metavar="N", help="hold the data disk to N I/Os a second")
    add("--bps", type=size, metavar="N", help="hold the data disk to N bytes a second")
    add("--keep", type=_absolute, metavar="DISK", help="keep the data disk in this file; reuse it if it is there")
    add("--memory", type=size, default=UNITS["G"] * 2, metavar="SIZE", help="memory of the machine (2G)")
    add("--processors", type=int, choices=(1, 2), default=2, help="how many the machine has (2)")
    add("--put", type=existing, action="append", default=[], metavar="FILE", help="put a file or folder in /put")
    add("--get", type=take, action="append", default=[], metavar="GUESTPATH=HOSTPATH", help="take a file or folder out")
    add("--env", type=assignment, action="append", default=[], metavar="NAME=VALUE", help="set a variable of COMMAND")
    add("--timeout", type=float, metavar="S", help="end COMMAND after so many seconds, with status 124")
    add("--expect-cut", action="store_true", help="COMMAND is to end in a reset (echo b >/proc/sysrq-trigger)")
    add("--accel", choices=("kvm", "tcg"), help="do not choose between KVM and TCG by trying")
    add("--append", metavar="WORDS", help="more arguments for the kernel, such as cgroup_disable=io")
    add("--console", type=_absolute, metavar="FILE", help="write the kernel's console to a file")
    return parser


def _absolute(text: str) -> Path:
    return Path(text).absolute()
