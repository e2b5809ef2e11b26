"""What the host is asked for: programs, packages and rights, and one line to the person who waits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_MIRROR = "http://deb.debian.org/debian"


class VmError(Exception):
    """Say in one line why the test machine could not do its work."""


def note(text: str) -> None:
    """Tell the person who watches; standard output belongs to the command in the machine."""
    sys.stderr.write(f"hack/vm: {text}\n")
    sys.stderr.flush()


@contextmanager
def step(what: str, seconds: int) -> Iterator[None]:
    """Announce a long step with its usual length and say afterwards how long it took."""
    note(f"{what} (about {seconds} s)")
    began = time.monotonic()
    yield
    note(f"{what}: done in {time.monotonic() - began:.0f} s")


def find_program(name: str) -> str | None:
    """Return the path of a system program, looking where root's programs are even for other users."""
    return shutil.which(name, path=f"{SYSTEM_PATH}:{os.environ.get('PATH', '')}")


def run(argv: Sequence[object], *, env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return its output.

    Raises VmError with the end of what it printed when it fails.
    """
    try:
        done = subprocess.run(
            [str(arg) for arg in argv],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
        )
    except OSError as error:
        raise VmError(f"cannot run {argv[0]}: {error.strerror}") from error
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise VmError(f"{argv[0]} failed with status {done.returncode}:\n{last}")
    return done.stdout


def apt_update() -> None:
    """Refresh the package lists; a machine made from a small image has none."""
    if find_program("apt-get") is None:
        raise VmError("the test machine is made from Debian packages, and there is no apt-get: use Debian 12 or newer")
    if os.geteuid() != 0:
        raise VmError("making the test machine needs root: run hack/vm/build as root once")
    run(["apt-get", "update", "-q"])


def apt_install(*packages: str, options: Sequence[str] = ()) -> None:
    """Install Debian packages from up-to-date lists."""
    names = " ".join(packages)
    with step(f"installing {names}", 15):
        apt_update()
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *options, *packages], env=quiet)


def need_programs(programs: Mapping[str, str]) -> None:
    """Install what is missing of the programs, given as program: package."""
    missing = sorted({package for program, package in programs.items() if find_program(program) is None})
    if missing:
        apt_install(*missing)


def debian_mirror() -> str:
    """Return the address of the Debian mirror that this machine's apt is set up with."""
    shape = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    for line in run(["apt-get", "indextargets", "--format", shape, "Created-By: Packages"]).splitlines():
        origin, label, address = line.split("|", 2)
        if origin == label == "Debian":
            return address.rstrip("/")
    return DEFAULT_MIRROR


def apt_transport_options() -> list[str]:
    """Return this machine's apt settings on reaching a mirror (proxies, certificates, clocks)."""
    wanted = re.compile(r"Acquire::(https?|Retries|Check-Valid-Until|Check-Date)\b.*;$")
    return [line for line in run(["apt-config", "dump"]).splitlines() if wanted.match(line) and ' "";' not in line]
