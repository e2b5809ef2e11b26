"""The door to programs: look up, start, bound by a deadline, and read what they said."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_driver.errors import ToolFailed, Unknown, Unready

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from csi_driver.deadline import Deadline

# Where a program comes from, so that an error names what to install.
PACKAGES = {
    "blkid": "util-linux",
    "btrfs": "btrfs-progs",
    "cryptsetup": "cryptsetup-bin",
    "dmsetup": "dmsetup",
    "e2fsck": "e2fsprogs",
    "fio": "fio",
    "fstrim": "util-linux",
    "lvm": "lvm2",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "modprobe": "kmod",
    "nsenter": "util-linux",
    "nvme": "nvme-cli",
    "resize2fs": "e2fsprogs",
    "thin_check": "thin-provisioning-tools",
    "xfs_repair": "xfsprogs",
}
# Daemons are often started without the sbin folders, where most of these programs are.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How long a killed child may take to go before it is left behind: one in D state ignores SIGKILL.
GRACE_S = 0.3
# The statuses by which nsenter, env and the like say that they could not execute their command.
NOT_EXECUTABLE, NOT_FOUND = 126, 127


@dataclass(frozen=True, slots=True)
class Output:
    """Hold what a program said and the status that it ended with."""

    stdout: str
    stderr: str
    returncode: int


class Runner:
    """Run programs: LC_ALL=C, a session of their own, no inherited descriptors, never past the deadline.

    `sign` is a descriptor that each program has as long as it lives, so that who comes after us sees what goes on.
    """

    def __init__(self, observe: Callable[[str, float], None] | None = None) -> None:
        """Take a function that is told each program's name and seconds, for metrics."""
        self.sign: int | None = None
        self._observe = observe
        self._found: dict[str, str] = {}
        self._left_behind: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        prefix: Sequence[str] = (),
        stdin: str | None = None,
        accept: Collection[int] = (0,),
        env: Mapping[str, str] | None = None,
    ) -> Output:
        """Run a program to its end and return what it said.

        `prefix` is a command that runs the program elsewhere, such as nsenter: the program is then found there.
        `env` is added to PATH and LC_ALL, which are all that a program gets. A secret goes by `stdin` only.
        Raises Unready if the program is missing, ToolFailed if its status is not in `accept`, Unknown at the deadline.
        """
        program = argv[0]
        if deadline.passed():
            raise Unknown(f"{program} was not started: no time is left")
        first = self.find(prefix[0] if prefix else program)
        command = [first, *prefix[1:], *argv] if prefix else [first, *argv[1:]]
        started = time.monotonic()
        try:
            # Files in memory, not pipes: nobody has to read along, nor waits for a grandchild that keeps one open.
            with _memory(f"{program} says") as out, _memory(f"{program} complains") as err:
                child = self._start(program, command, stdin is not None, env or {}, (out, err))
                self._finish(program, child, stdin, deadline, started)
                output = Output(_said(out), _said(err), child.returncode)
        finally:
            if self._observe:
                self._observe(program, time.monotonic() - started)
        if prefix and output.returncode in (NOT_EXECUTABLE, NOT_FOUND) and output.returncode not in accept:
            raise Unready(f"{_missing(program)} Asked by {prefix[0]}: {' '.join(output.stderr.split())[-200:]}")
        if output.returncode not in accept:
            raise ToolFailed(program, output.returncode, output.stderr or output.stdout)
        return output

    def find(self, program: str) -> str:
        """Return a program's full path, looked up once. Raises Unready naming its Debian package."""
        path = self._found.get(program) or shutil.which(program, path=SEARCH_PATH)
        if path is None:
            raise Unready(_missing(program))
        self._found[program] = path
        return path

    def _start(
        self, program: str, command: Sequence[str], has_stdin: bool, env: Mapping[str, str], outputs: tuple[int, int]
    ) -> subprocess.Popen[str]:
        self._reap()
        # As stdin: lvm closes all others but stdout and stderr, which are files of ours.
        stdin = subprocess.DEVNULL if self.sign is None else self.sign
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE if has_stdin else stdin,
                stdout=outputs[0],
                stderr=outputs[1],
                env={"PATH": SEARCH_PATH, "LC_ALL": "C", **env},
                encoding="utf-8",
                close_fds=True,
                pass_fds=(self.sign,) if has_stdin and self.sign is not None else (),
                start_new_session=True,
            )
        except FileNotFoundError as error:  # removed since it was looked up
            self._found.pop(program, None)
            raise Unready(_missing(program)) from error
        except OSError as error:  # not executable, no memory, no process ids
            raise Unready(f"{program} can't be started: {error.strerror}") from error

    def _finish(
        self, program: str, child: subprocess.Popen[str], stdin: str | None, deadline: Deadline, started: float
    ) -> None:
        try:
            if stdin is None:
                _await_end(child, deadline)
            child.communicate(stdin, timeout=deadline.left())
        except subprocess.TimeoutExpired as error:
            self._abandon(child)
            seconds = time.monotonic() - started
            raise Unknown(f"{program} did not end in {seconds:.1f} s and was killed; what it did is unknown") from error
        except BaseException:
            self._abandon(child)
            raise

    def _abandon(self, child: subprocess.Popen[str]) -> None:
        """Kill the child's process group. A child in D state is remembered and reaped whenever it goes."""
        # The child is not reaped yet, so its number can't be another's; the group may be gone all the same.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # close writes out what its stdin has not got yet
                child.stdin.close()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            with self._lock:
                self._left_behind.append(child)

    def _reap(self) -> None:
        if self._left_behind:
            with self._lock:
                self._left_behind = [child for child in self._left_behind if child.poll() is None]


@contextlib.contextmanager
def _memory(name: str) -> Iterator[int]:
    fd = os.memfd_create(name)
    try:
        yield fd
    finally:
        os.close(fd)


def _said(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


def _await_end(child: subprocess.Popen[str], deadline: Deadline) -> None:
    """Wait until a child ends, to the moment: Popen.wait looks from time to time. Raises TimeoutExpired."""
    fd = os.pidfd_open(child.pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        left = deadline.left()
        if not poll.poll(left * 1000):
            raise subprocess.TimeoutExpired(str(child.args), left)
    finally:
        os.close(fd)


def _missing(program: str) -> str:
    name = os.path.basename(program)  # noqa: PTH119 -- a name, maybe with folders before it
    package = PACKAGES.get(name)
    advice = f"install the Debian package {package}" if package else "install it"
    return f"the program {name} is missing: {advice}."
