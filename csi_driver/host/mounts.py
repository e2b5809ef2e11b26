"""Make and remove mounts by system calls. Targets are never followed through a symbolic link at their end."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import wait_for
from csi_driver.errors import InUse, Invalid, NotFound, Unknown, Unready
from csi_driver.host import mountinfo
from csi_driver.host.block import dev_number, inode_of
from csi_driver.host.mountinfo import Mount, is_read_only, real_target
from csi_driver.host.openers import openers
from csi_driver.host.syscalls import (
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_DIRSYNC,
    MS_LAZYTIME,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_RDONLY,
    MS_RELATIME,
    MS_STRICTATIME,
    MS_SYNCHRONOUS,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from csi_driver.deadline import Deadline
    from csi_driver.host.syscalls import Kernel
    from qos.limits import DevNo

__all__ = ["Mount", "Mounts", "is_read_only", "split_options"]

SET = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "sync": MS_SYNCHRONOUS,
    "dirsync": MS_DIRSYNC,
    "nosymfollow": MS_NOSYMFOLLOW,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
    "strictatime": MS_STRICTATIME,
    "lazytime": MS_LAZYTIME,
}
CLEARED = {
    "rw": MS_RDONLY,
    "suid": MS_NOSUID,
    "dev": MS_NODEV,
    "exec": MS_NOEXEC,
    "async": MS_SYNCHRONOUS,
    "symfollow": MS_NOSYMFOLLOW,
    "atime": MS_NOATIME,
    "diratime": MS_NODIRATIME,
    "norelatime": MS_RELATIME,
    "nostrictatime": MS_STRICTATIME,
    "nolazytime": MS_LAZYTIME,
}
# What mount(8) and fstab know and no kernel does.
IGNORED = frozenset({"defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users"})
# These change what mount(2) does, not how the file system is mounted.
REFUSED = frozenset({"bind", "rbind", "move", "remount", "loop", "offset", "sizelimit", "shared", "private", "slave"})
# mount(2) copies one page, and cuts the rest off in silence.
LONGEST_DATA = 4095
MOST_HOLDERS = 5


class Mounts:
    """Mount, bind and unmount, each of them as often as one likes with the same outcome."""

    def __init__(self, kernel: Kernel) -> None:
        """Take the door to the kernel."""
        self._kernel = kernel

    def at(self, target: Path) -> Mount | None:
        """Return the topmost mount exactly at this path, None if there is none. Raises Invalid for a symbolic link."""
        return mountinfo.at(target)

    def of(self, *devs: DevNo) -> tuple[Mount, ...]:
        """Return the mounts of these devices' file systems, in the kernel's order."""
        return mountinfo.of(*devs)

    def mounted(self, place: Path) -> bool:
        """Return whether something is mounted at exactly this path, which real_target() gave. Reads no list."""
        return mountinfo.mounted(place)

    def topmost(self, place: Path, among: Iterable[Mount]) -> Mount | None:
        """Return the one of these mounts that is the topmost at a path, which real_target() gave. Reads no list."""
        number = mountinfo.own_mount(place)
        return next((mount for mount in among if mount.id == number), None)

    def mount(self, source: Path | str, target: Path, fstype: str, options: Sequence[str] = ()) -> bool:
        """Mount a file system unless it is mounted there already. Return whether it had to be.

        Raises Invalid (an option, a link), NotFound (the target), InUse (something else is mounted there or the device
        is taken), Unready (the kernel refuses).
        """
        flags, data = split_options(options)
        place = real_target(target)
        if there := mountinfo.topmost(place):
            same = there.dev == _number_of(source) or (there.source, there.fstype) == (str(source), fstype)
            return _unchanged(there, same, source)
        try:
            self._kernel.mount(source, place, fstype, flags, data)
        except OSError as error:
            raise _refused(f"can't mount {source} at {target} as {fstype}", error) from error
        return True

    def bind(self, source: Path, target: Path, *, read_only: bool = False) -> bool:
        """Show a folder or a single file, such as a device node, at another path. Return whether it had to be done.

        A read-only bind is made read-only while detached, then moved to its place. The usual way, bind and then
        remount,ro, lets writers in for a moment; worse, remounting isn't propagated: a pod's kubelet folder is shared
        with the host, and the host's copy would stay writable for ever. Flags such as nosuid come with the copy.
        Raises as `mount`.
        """
        place = real_target(target)
        if there := mountinfo.topmost(place):
            if read_only and not is_read_only(there):
                raise InUse(f"{target} has a writable mount already: unmount it first")
            return _unchanged(there, _same_file(source, place), source)
        try:
            if read_only:
                self._bind_read_only(source, place)
            else:
                self._kernel.mount(source, place, "", MS_BIND)
        except OSError as error:
            raise _refused(f"can't bind {source} to {target}", error) from error
        return True

    def unmount(self, target: Path, deadline: Deadline) -> bool:
        """Unmount whatever is mounted at this path, also several times. Return whether anything was.

        EBUSY is tried again until the deadline, then InUse says which processes have files open below.
        """
        place = real_target(target)
        if not mountinfo.mounted(place):
            return False
        try:
            wait_for(f"{place} is unmounted", lambda: self._unmounted(place), deadline)
        except Unknown as error:
            raise InUse(f"can't unmount {target}: {_holders(place)}") from error
        return True

    def _bind_read_only(self, source: Path, place: Path) -> None:
        fd = self._kernel.open_tree(source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
        try:
            self._kernel.mount_setattr(fd, MOUNT_ATTR_RDONLY)
            self._kernel.move_mount(fd, place)
        finally:
            os.close(fd)

    def _unmounted(self, place: Path) -> bool:
        try:
            self._kernel.umount(place)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # else somebody else was quicker
                raise Unready(f"can't unmount {place}: {error}") from error
        return not mountinfo.mounted(place)


def split_options(options: Sequence[str]) -> tuple[int, str]:
    """Split mount options into mount(2)'s flags and the file system's own data. Raises Invalid."""
    flags, data = 0, []
    for option in (part for given in options for part in given.split(",") if part):
        name = option.partition("=")[0]
        if name in REFUSED or "\0" in option:
            # Not the option itself: CSI's mount_flags may hold a secret.
            raise Invalid("mount options: one of them changes what mount does, and is not allowed")
        if option in SET:
            flags |= SET[option]
        elif option in CLEARED:
            flags &= ~CLEARED[option]
        elif option not in IGNORED and not name.startswith(("x-", "X-", "comment")):
            data.append(option)
    joined = ",".join(data)
    if len(joined.encode()) > LONGEST_DATA:
        raise Invalid(f"mount options of {len(joined)} bytes: the kernel takes {LONGEST_DATA}")
    return flags, joined


def _number_of(source: Path | str) -> DevNo | None:
    """Return the device number of a mount's source, None if it isn't a device."""
    try:
        return dev_number(Path(source).stat().st_rdev)
    except OSError:
        return None


def _same_file(one: Path, other: Path) -> bool:
    """Return whether two paths show one file or folder, which a bind mount makes true and nothing else does."""
    try:
        return inode_of(one) == inode_of(other)
    except OSError:
        return False


def _unchanged(there: Mount, same: bool, source: Path | str) -> bool:
    """Return False, for nothing had to be done; or raise InUse, for another mount has the place."""
    if not same:
        found = f"{there.source} ({there.fstype}, {there.dev})"
        raise InUse(f"{there.target} is taken: {found} is mounted there, not {source}")
    return False


def _refused(what: str, error: OSError) -> NotFound | InUse | Unready:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"{what}: the source or the target is not there")
    if error.errno == errno.EBUSY:
        return InUse(f"{what}: the source is in use by another mount or mapping")
    reasons = {
        errno.ENODEV: "the kernel doesn't know this file system; try modprobe",
        errno.EINVAL: "an option or the superblock makes no sense to the kernel; its log has the reason",
        errno.EACCES: "the device is read-only, or a folder on the way is closed",
        errno.EROFS: "the device is read-only",
        errno.EUCLEAN: "the file system is damaged and needs a check",
    }
    return Unready(f"{what}: {reasons.get(error.errno or 0, error.strerror)}")


def _holders(place: Path) -> str:
    """Say which processes have their folder or open files below a path."""
    found = openers(lambda link: link == str(place) or link.startswith(f"{place}/"))
    if not found:
        return "it is busy, but no process shows files there: a mount inside, a loop device or another mount namespace?"
    more = f" and {len(found) - MOST_HOLDERS} more" if len(found) > MOST_HOLDERS else ""
    return f"in use by process {', '.join(found[:MOST_HOLDERS])}{more}"
