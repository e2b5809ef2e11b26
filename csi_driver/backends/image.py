"""A pool's own file system: an XFS image in a folder of any kind, so that copies by reference work on any machine."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline
from csi_driver.errors import Foreign, Lost, NoSpace, Unready

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.host.filesystem import Filesystems
    from csi_driver.host.loopdev import LoopDevices
    from csi_driver.host.mounts import Mounts
    from csi_driver.host.syscalls import Kernel

OPEN_SECONDS = 120.0
SECTOR_SIZE = 4096
PRIVATE_FOLDER = 0o700


class PoolImage:
    """Make and mount the image that one pool lives in."""

    def __init__(
        self, path: Path, size: int, kernel: Kernel, loops: LoopDevices, filesystems: Filesystems, mounts: Mounts
    ) -> None:
        """Take the image's path and its size in bytes.

        All of it is allocated at once: what volumes hold is never lost because the machine's own disk filled up.
        """
        self._path = path
        self._size = size
        self._kernel = kernel
        self._loops = loops
        self._filesystems = filesystems
        self._mounts = mounts

    def exists(self) -> bool:
        """Return whether the image was made."""
        return self._path.exists()

    def mount(self, folder: Path, *, create: bool) -> None:
        """Mount the image at a folder, making it first when it was never there and may be made.

        Raises Lost when it is gone, Foreign when something else is mounted there.
        """
        deadline = Deadline(OPEN_SECONDS)
        if not self._path.exists():
            if not create:
                raise Lost(f"the pool's image {self._path} is gone; it is not made anew: restore it")
            self._make(deadline)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        device = self._loops.attach(self._path, sector_size=SECTOR_SIZE, deadline=deadline)
        there = self._mounts.at(folder)
        if there is None:
            self._mounts.mount(device.path, folder, "xfs", ("noatime",))
        elif there.dev != device.dev:
            raise Foreign(f"{folder} shows {there.source}, not the pool's image {self._path}; unmount it first")
        if stat.S_IMODE(folder.stat().st_mode) != PRIVATE_FOLDER:  # mkfs makes a root for everybody
            self._kernel.chmod(folder, PRIVATE_FOLDER)

    def unmount(self, folder: Path) -> None:
        """Let the image go, for who takes a pool out of service."""
        deadline = Deadline(OPEN_SECONDS)
        self._mounts.unmount(folder, deadline)
        self._loops.detach(self._path, deadline)

    def _make(self, deadline: Deadline) -> None:
        """Format a file under another name: what has the image's name is whole."""
        temporary = self._path.with_name(self._path.name + ".new")
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            fd = self._kernel.open(temporary, os.O_CREAT | os.O_RDWR | os.O_TRUNC)
            try:
                os.posix_fallocate(fd, 0, self._size)
                self._filesystems.make(temporary, "xfs", options=(), sector_size=SECTOR_SIZE, deadline=deadline)
                self._kernel.fsync(fd, path=temporary)
            finally:
                os.close(fd)
            self._kernel.rename(temporary, self._path)
            self._kernel.fsync_dir(self._path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno == errno.ENOSPC:
                raise NoSpace(f"{self._path.parent} has no room for a pool of {self._size} bytes") from error
            raise Unready(f"the pool's image {self._path} can't be made: {error}") from error
