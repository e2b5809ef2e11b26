"""Device-mapper by ioctl on /dev/mapper/control: one dm-linear above each staged volume. No dmsetup, no udev.

Nothing depends on udev or on the links in /dev/mapper: the node is /dev/dm-N, which the kernel makes itself. The high
half of event_nr tells udev's rules to leave the device alone; the low half, the number of a semaphore to wait at, is 0.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Conflict, InUse, Invalid, NotFound, Unknown, Unready
from csi_driver.host import block
from csi_driver.host.block import SECTOR, Device
from csi_driver.host.dmtable import (
    DM_NOFLUSH_FLAG,
    DM_READONLY_FLAG,
    DM_SKIP_LOCKFS_FLAG,
    DM_STATUS_TABLE_FLAG,
    DM_SUSPEND_FLAG,
    UDEV,
    Info,
    Target,
    info_of,
    linear_table,
    request_buffer,
)
from csi_driver.host.syscalls import (
    DM_DEV_CREATE,
    DM_DEV_REMOVE,
    DM_DEV_SUSPEND,
    DM_TABLE_CLEAR,
    DM_TABLE_LOAD,
    DM_TABLE_STATUS,
    DM_VERSION,
    query,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.host.syscalls import Kernel

__all__ = ["DeviceMapper", "Info", "Target", "control"]

CONTROL = Path("/dev/mapper/control")
# How long a changed table may take to show in sysfs: it is there when the ioctl returns, in every kernel seen.
SETTLE_S = 5.0


class DeviceMapper:
    """Create, grow, suspend and remove linear mappings."""

    def __init__(self, kernel: Kernel) -> None:
        """Touch nothing yet: a kernel without device-mapper is told by `available`."""
        self._kernel = kernel

    def available(self) -> bool:
        """Return whether this kernel has device-mapper. `why_not` has the reason."""
        return self.why_not() is None

    def why_not(self) -> str | None:
        """Return why there is no device-mapper, None if there is."""
        try:
            self._ask(DM_VERSION, "")
        except OSError as error:
            return f"{CONTROL}: {error.strerror}; try modprobe dm_mod"
        return None

    def info(self, name: str) -> Info | None:
        """Return what the kernel says of a mapped device, None if there is no such device. Raises Unready."""
        try:
            return info_of(self._ask(DM_TABLE_STATUS, name, flags=DM_STATUS_TABLE_FLAG))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise Unready(f"can't look at device {name}: {error}") from error

    def status(self, name: str) -> str | None:
        """Return what the one target of a mapped device says of itself, None if there is no such device or table.

        Without the flush that a thin pool would make of its metadata first. Raises Unready.
        """
        try:
            found = info_of(self._ask(DM_TABLE_STATUS, name, flags=DM_NOFLUSH_FLAG))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise Unready(f"can't look at device {name}: {error}") from error
        return found.targets[0].parameters if len(found.targets) == 1 else None

    def list(self, prefix: str = "sluice-") -> tuple[str, ...]:
        """Return the names of the mapped devices that begin with a prefix."""
        names = []
        for entry in (block.SYS / "block").iterdir():
            with contextlib.suppress(OSError):  # not a mapped device, or gone meanwhile
                names.append((entry / "dm/name").read_text().rstrip("\n"))
        return tuple(sorted(name for name in names if name.startswith(prefix)))

    def create_linear(self, name: str, uuid: str, below: Device, size_bytes: int, *, read_only: bool = False) -> Device:
        """Map a device one to one, or finish what a crash left half made. Return the mapped device.

        Raises Conflict if the name or uuid maps something else, Invalid, Unready.
        """
        flags = DM_READONLY_FLAG if read_only else 0
        found = self.info(name)
        if found is None:
            self._change(DM_DEV_CREATE, name, uuid=uuid, flags=flags)
        elif found.uuid != uuid or (found.targets and (found.below, found.size_bytes) != (below.dev, size_bytes)):
            raise Conflict(f"device {name} ({found.uuid}) already maps {found.below}, {found.size_bytes} bytes")
        elif found.targets:
            return found.device
        try:
            self._load(name, below, size_bytes, flags)
            self.resume(name)
        except BaseException:
            with contextlib.suppress(OSError, Unready):
                self._change(DM_DEV_REMOVE, name)
            raise
        return self._must(name).device

    def reload_linear(self, name: str, below: Device, size_bytes: int) -> Device:
        """Swap the table, so that the device grows or stands on another device, under a mounted file system.

        One resume swaps: the kernel suspends by itself inside it, for some microseconds. It would also flush and freeze
        the file system above; that serves cuts, so it is left out here. Raises NotFound, Unready, Unknown.
        """
        before = self._must(name)
        flags = DM_READONLY_FLAG if before.read_only else 0
        self._load(name, below, size_bytes, flags)
        self._change(DM_DEV_SUSPEND, name, flags=flags | DM_SKIP_LOCKFS_FLAG)
        dev = before.device.dev
        wait_for(f"{name} shows {size_bytes} bytes", lambda: block.size_bytes(dev) == size_bytes, Deadline(SETTLE_S))
        return before.device

    def suspend(self, name: str, *, lock_fs: bool = True) -> bool:
        """Hold back all I/O; with `lock_fs` freeze the file system first. Return whether it was not suspended before.

        Blocks while dirty data are written. Raises NotFound, Unready.
        """
        if self._must(name).suspended:
            return False
        self._change(DM_DEV_SUSPEND, name, flags=DM_SUSPEND_FLAG | (0 if lock_fs else DM_SKIP_LOCKFS_FLAG))
        return True

    def resume(self, name: str) -> None:
        """Let I/O go on, with the newest table. Nothing happens if it does already. Raises NotFound, Unready."""
        self._change(DM_DEV_SUSPEND, name)

    def forget_table(self, name: str) -> None:
        """Drop a table that was loaded for the next resume, if there is one. Raises NotFound, Unready."""
        self._change(DM_TABLE_CLEAR, name)

    def remove(self, name: str, deadline: Deadline) -> bool:
        """Remove a device and wait until the kernel shows it gone. Return whether there was one.

        udev may have it open for a moment, so EBUSY is tried again. Raises InUse at the deadline if it is still open.
        """
        found = self.info(name)
        if found is None:
            return False
        try:
            wait_for(f"{name} is closed by all", lambda: self._removed(name), deadline)
        except Unknown as error:
            raise InUse(f"can't remove {name}: {self._user_of(name)}") from error
        wait_for(f"{name} is gone from sysfs", lambda: not self._still(found), deadline)
        return True

    def _removed(self, name: str) -> bool:
        try:
            self._change(DM_DEV_REMOVE, name)
        except NotFound:
            return True
        except InUse:
            return False
        return True

    @staticmethod
    def _still(found: Info) -> bool:
        try:
            return (block.sysfs(found.device.dev) / "dm/name").read_text().rstrip("\n") == found.name
        except (OSError, NotFound):  # gone; the number may even be another device's by now
            return False

    def _user_of(self, name: str) -> str:
        found = self.info(name)
        if found is None:
            return "it has gone just now; ask again"
        if names := block.holders(found.device.dev):
            return f"it carries {', '.join(names)}"
        if block.claimed(found.device):
            return f"{found.device.path} is mounted"
        return f"{found.device.path} is open {found.open_count} times"

    def _must(self, name: str) -> Info:
        found = self.info(name)
        if found is None:
            raise NotFound(f"there is no mapped device {name}")
        return found

    def _load(self, name: str, below: Device, size_bytes: int, flags: int) -> None:
        if size_bytes <= 0 or size_bytes % SECTOR:
            raise Invalid(f"can't map {name}: {size_bytes} bytes is not a positive multiple of {SECTOR}")
        self._change(DM_TABLE_LOAD, name, flags=flags, table=linear_table(below.dev, size_bytes))

    def _change(self, request: int, name: str, *, uuid: str = "", flags: int = 0, table: bytes = b"") -> None:
        buffer = request_buffer(name, uuid, flags, table, cookie=0 if request == DM_TABLE_LOAD else UDEV)
        try:
            with control() as fd:
                self._kernel.ioctl(fd, request, buffer, path=name)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise NotFound(f"there is no mapped device {name}") from error
            if error.errno == errno.EBUSY:
                raise InUse(f"device {name} is in use, or its name or uuid is taken: {error}") from error
            raise Unready(f"device-mapper refuses: {error}; the kernel log has the reason") from error

    @staticmethod
    def _ask(request: int, name: str, flags: int = 0) -> bytearray:
        with control() as fd:
            return query(fd, request, request_buffer(name, "", flags, b"", cookie=0))


@contextlib.contextmanager
def control() -> Iterator[int]:
    """Open what takes all of device-mapper's ioctls. Raises OSError where the kernel has none."""
    fd = os.open(CONTROL, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)
