"""Freeze a mounted volume for a cut, behind a dead man.

A freeze (FIFREEZE) and a suspend have no time-out: whoever dies inside leaves them so, and every write to the volume
hangs. So a small process outside ours, in a session of its own, is told before the freeze, and undoes it when our end
of its pipe closes or the time is over. It must have acknowledged before anything is frozen.

It survives our death by a signal, but not the end of a container: whoever kills the whole cgroup or pid namespace kills
it too. `cgroup` moves it to another cgroup; `resume_all` at the next start is the last resort.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline
from csi_driver.errors import Busy, Unready
from csi_driver.host import mountinfo
from csi_driver.host.syscalls import FIFREEZE, FITHAW

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from csi_driver.host.dm import DeviceMapper
    from csi_driver.host.syscalls import Kernel
    from qos.limits import DevNo

SCRIPT = Path(__file__).with_name("deadman.py")
# The longest that a volume stays frozen. Pods see it as one slow write.
LIMIT_S = 10.0
# What of it a cut may take; the rest is for freezing and for the last step of the cut.
BODY_SHARE = 0.9
# How long an answer of the dead man may take: it opens one file. Python's start at its first use is in it.
ANSWER_S = 5.0


class DeadMan:
    """Talk to the process that undoes freezes. It is started at the first use, and again if it is gone."""

    def __init__(self, *, limit: float = LIMIT_S, prefix: Sequence[str] = (), cgroup: Path | None = None) -> None:
        """Take the seconds after which it undoes, a command to start it by, and a cgroup folder to move it to."""
        self.limit = limit
        self._prefix = tuple(prefix)
        self._cgroup = cgroup
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def armed(self, kind: str, what: str) -> Iterator[None]:
        """Be armed for "dm" and a device name or "fs" and a path while the body runs. The body undoes by itself.

        Raises Unready before the body if it can't be armed; after it, if the dead man undid the freeze meanwhile: what
        was cut then isn't of one moment and has to be thrown away.
        """
        token = uuid.uuid4().hex
        told = what.encode(errors="surrogateescape").hex() if kind == "fs" else what
        answer = self._ask(f"arm {token} {self.limit} {kind} {told}")
        if answer != "ok":
            raise Unready(f"can't freeze {what}: the dead man says {answer!r}")
        try:
            yield
        except BaseException:
            # The body's own undoing may be what failed. Undoing twice does no harm.
            self._ask(f"undo {token}")
            raise
        answer = self._ask(f"disarm {token}")
        if answer != "ok":
            raise Unready(f"{what} was frozen for more than {self.limit} s and let go; nothing cut meanwhile is good")

    def close(self) -> None:
        """End the dead man; what is armed is undone."""
        with self._lock:
            self._stop()

    @property
    def pid(self) -> int | None:
        """Return its process id, None before the first use."""
        return self._process.pid if self._process else None

    def _ask(self, line: str) -> str:
        with self._lock:
            process = self._running()
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the dead man was started without pipes")
            try:
                process.stdin.write(line.encode() + b"\n")
                process.stdin.flush()
                if select.select([process.stdout], [], [], ANSWER_S)[0] and (answer := process.stdout.readline()):
                    return answer.decode(errors="replace").rstrip("\n")
            except OSError as error:
                self._stop()
                raise Unready(f"the dead man is gone: {error.strerror}") from error
            # An answer that comes later would be taken for the next one's. Stopped, it undoes all that is armed.
            self._stop()
            raise Unready(f"the dead man did not answer in {ANSWER_S} s")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        try:
            # No buffer: select must not be deceived by a line that was read ahead.
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-I", "-S", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={"LC_ALL": "C"},
                start_new_session=True,
            )
            if self._cgroup:
                (self._cgroup / "cgroup.procs").write_text(str(self._process.pid))
        except OSError as error:
            raise Unready(f"can't start the dead man: {error}") from error
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ANSWER_S)


@dataclass(frozen=True, slots=True)
class Still:
    """Say by what a volume in use is held still: where its file system is mounted, and its mapped device.

    `by_itself`: suspending the device doesn't freeze the file system (btrfs), so it is frozen where it is mounted. The
    device is suspended too: should the dead man die with us, the next start knows by that whose freeze it was.
    """

    mounted: Path | None
    dm_name: str | None = None
    by_itself: bool = False


class Freezer:
    """Freeze mounted volumes for the moment of a cut."""

    def __init__(self, kernel: Kernel, mapper: DeviceMapper, dead_man: DeadMan) -> None:
        """Take the door to the kernel, device-mapper and a dead man."""
        self._kernel = kernel
        self._mapper = mapper
        self._dead_man = dead_man

    @contextlib.contextmanager
    def frozen(self, mounted: Path | None, dm_name: str | None = None) -> Iterator[Deadline]:
        """Keep the file system at a path still, its log clean and its data on the device, while the body runs.

        Gives the time by which the body should be done: the dead man lets go a little later.

        By suspending the mapped device below it, whose holder it must be; without one by FIFREEZE. Without a path the
        device has no file system: suspending it lets what is under way land and holds back the rest. Raises Unready,
        also after the body if the freeze did not last; Busy if somebody else's freeze or suspend is in the way.
        """
        with self.together(Still(mounted, dm_name)) as by:
            yield by

    @contextlib.contextmanager
    def together(self, *volumes: Still) -> Iterator[Deadline]:
        """Keep several still as `frozen` does one, all of them for as long as the body runs, which is thus one instant.

        One that fails lets all go.
        """
        for volume in volumes:
            if volume.dm_name:
                self._refuse_suspended(volume.dm_name)
        # What is written now need not be written during the freeze. While the others were, the first were written to.
        for volume in volumes * min(len(volumes), 2):
            if volume.mounted is not None:
                self._kernel.syncfs(volume.mounted)
        by = Deadline(self._dead_man.limit * BODY_SHARE)
        with contextlib.ExitStack() as stack:
            for volume in volumes:
                if volume.mounted is not None and (volume.by_itself or not volume.dm_name):
                    stack.enter_context(self._frozen(volume.mounted))
                if volume.dm_name:
                    stack.enter_context(self._suspended(volume.dm_name, lock_fs=not volume.by_itself))
            yield by

    def _refuse_suspended(self, name: str) -> None:
        """Raise Busy for a device that is suspended: a syncfs of what is on it would hang until it is resumed."""
        info = self._mapper.info(name)
        if info is None or info.suspended:
            raise Busy(f"can't freeze {name}: it is {'suspended by somebody else' if info else 'not there'}")

    @contextlib.contextmanager
    def _suspended(self, name: str, *, lock_fs: bool) -> Iterator[None]:
        with self._dead_man.armed("dm", name):
            try:
                self._mapper.suspend(name, lock_fs=lock_fs)
                yield
            finally:
                self._mapper.resume(name)

    @contextlib.contextmanager
    def _frozen(self, mounted: Path) -> Iterator[None]:
        fd = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)
        try:
            by_us = False
            with self._dead_man.armed("fs", str(mounted)):
                by_us = self._freeze(fd, mounted)
                if by_us:
                    try:
                        yield
                    finally:
                        self._thaw(fd, mounted)
            if not by_us:
                # An administrator's own freeze. The dead man is disarmed again: it isn't ours to undo.
                yield
                self._still_frozen(fd, mounted)
        finally:
            os.close(fd)

    def _still_frozen(self, fd: int, mounted: Path) -> None:
        """Raise Busy if an administrator's freeze ended during the cut: freezing succeeds then."""
        with self._dead_man.armed("fs", str(mounted)):
            if not self._freeze(fd, mounted):
                return
            self._thaw(fd, mounted)
        raise Busy(f"{mounted} was frozen by somebody else, and thawed in the middle of the cut; ask again")

    def _freeze(self, fd: int, mounted: Path) -> bool:
        try:
            self._kernel.ioctl(fd, FIFREEZE, path=mounted)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise Unready(f"can't freeze {mounted}: {error}") from error
        return True

    def _thaw(self, fd: int, mounted: Path) -> None:
        try:
            self._kernel.ioctl(fd, FITHAW, path=mounted)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the dead man was quicker, and `armed` tells so
                raise Unready(f"can't thaw {mounted}: {error}") from error

    def resume_all(self, prefix: str = "sluice-") -> tuple[str, ...]:
        """Resume every suspended mapped device of ours, and thaw what is frozen by itself. Return their names."""
        names = []
        for name in self._mapper.list(prefix):
            info = self._mapper.info(name)
            if info is not None and info.suspended:
                self._mapper.resume(name)
                self._thaw_on(info.device.dev)
                names.append(name)
        return tuple(names)

    def _thaw_on(self, dev: DevNo) -> None:
        """Thaw a btrfs, which a resumed device has left frozen."""
        for mount in mountinfo.of(dev)[:1]:
            if mount.fstype == mountinfo.BTRFS:
                fd = os.open(mount.target, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    self._thaw(fd, mount.target)
                finally:
                    os.close(fd)
