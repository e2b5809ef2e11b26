"""The door to the kernel: every call that changes something passes `Kernel._effect`; reads don't.

Constants are named as in the kernel headers (linux/mount.h, fs.h, loop.h, dm-ioctl.h, ext4.h, xfs_fs.h, btrfs.h).

A trap that shapes this file: CPython's fcntl.ioctl keeps the GIL while a *mutable* buffer of more than 1024 bytes is
passed (Modules/fcntlmodule.c), and takes no bytes that are longer. A suspend that flushes for seconds would then stop
every thread. So no caller passes more than `IOCTL_BUFFER` bytes, and `query` and `ioctl` insist on it; `ioctl_struct`
and `query_long` go by ctypes, which gives the GIL up.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

IOCTL_BUFFER = 1024

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_SYNCHRONOUS, MS_REMOUNT, MS_MANDLOCK, MS_DIRSYNC = 0x10, 0x20, 0x40, 0x80
MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME, MS_BIND = 0x100, 0x400, 0x800, 0x1000
MS_REC, MS_SILENT, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x4000, 0x8000, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME, MS_LAZYTIME = 1 << 21, 1 << 24, 1 << 25
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 0x1, 0x2, 0x8
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x1000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_RDONLY = 0x1, os.O_CLOEXEC, 0x4, 0x1
# One number on every architecture but alpha, as all calls since 5.x.
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442

FICLONE, FICLONERANGE, FS_IOC_FSGETXATTR = 0x40049409, 0x4020940D, 0x801C581F
FIFREEZE, FITHAW, FITRIM = 0xC0045877, 0xC0045878, 0xC0185879
BLKGETSIZE64, BLKFLSBUF, BLKROSET, BLKDISCARD, BLKZEROOUT = 0x80081272, 0x1261, 0x125D, 0x1277, 0x127F
EXT4_IOC_RESIZE_FS = 0x40086610
XFS_IOC_FSGEOMETRY_V1, XFS_IOC_FSGROWFSDATA = 0x80705864, 0x4010586E
BTRFS_IOC_RESIZE = 0x50009403

LOOP_CLR_FD, LOOP_GET_STATUS64, LOOP_SET_CAPACITY, LOOP_CONFIGURE = 0x4C01, 0x4C05, 0x4C07, 0x4C0A
LOOP_CTL_ADD, LOOP_CTL_REMOVE, LOOP_CTL_GET_FREE = 0x4C80, 0x4C81, 0x4C82
LO_FLAGS_READ_ONLY, LO_FLAGS_AUTOCLEAR, LO_FLAGS_PARTSCAN, LO_FLAGS_DIRECT_IO = 1, 4, 8, 16

DM_VERSION, DM_LIST_DEVICES, DM_DEV_CREATE, DM_DEV_REMOVE = 0xC138FD00, 0xC138FD02, 0xC138FD03, 0xC138FD04
DM_DEV_SUSPEND, DM_DEV_STATUS = 0xC138FD06, 0xC138FD07
DM_TABLE_LOAD, DM_TABLE_CLEAR, DM_TABLE_STATUS = 0xC138FD09, 0xC138FD0A, 0xC138FD0C
DM_TARGET_MSG = 0xC138FD0E

_REQUESTS = {
    value: name
    for name, value in globals().copy().items()
    if name.startswith(("FI", "BLK", "EXT4_IOC", "XFS_IOC", "BTRFS_IOC", "LOOP_", "DM_"))
}


def request_name(request: int) -> str:
    """Return an ioctl's name in the kernel headers, or its number in hex."""
    return _REQUESTS.get(request, hex(request))


def query(fd: int, request: int, buffer: bytearray) -> bytearray:
    """Ask the kernel by an ioctl that changes nothing. Fill and return the buffer. Raise OSError with its name."""
    if len(buffer) > IOCTL_BUFFER:
        raise ValueError(f"{request_name(request)}: {len(buffer)} bytes would keep the GIL, at most {IOCTL_BUFFER}")
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError as error:
        raise OSError(error.errno, f"{request_name(request)}: {error.strerror}") from error
    return buffer


class Kernel:
    """Change the machine. Each method is one system call, and raises OSError with the call and the path in it.

    Tests subclass it and override `_effect` to count changes, to cut before or after one, or to make one fail.
    """

    def __init__(self) -> None:
        """Load libc for the calls that Python lacks. ctypes gives up the GIL during them."""
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _effect(self, name: str, path: object, call: Callable[[], T]) -> T:
        """Make one changing call. `name` is the call's or the ioctl's name, `path` what it works on."""
        while True:
            try:
                return call()
            except InterruptedError:  # a suspend gives EINTR after rolling back; Python retries its own calls like this
                continue
            except OSError as error:
                raise OSError(error.errno, f"{name}: {error.strerror}", str(path)) from error

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    # mounts

    def mount(self, source: Path | str, target: Path, fstype: str, flags: int, data: str = "") -> None:
        """Put a file system at a path."""
        arguments = (os.fsencode(source), os.fsencode(target), fstype.encode() or None, ctypes.c_ulong(flags))
        options = data.encode() or None
        self._effect("mount", target, lambda: self._checked(self._libc.mount(*arguments, options)))

    def umount(self, target: Path, flags: int = UMOUNT_NOFOLLOW) -> None:
        """Unmount, by umount2(2)."""
        self._effect("umount", target, lambda: self._checked(self._libc.umount2(os.fsencode(target), flags)))

    def open_tree(self, path: Path, flags: int) -> int:
        """Return a descriptor of the mount at a path; with OPEN_TREE_CLONE, of a detached bind mount of it."""
        arguments = (ctypes.c_long(SYS_OPEN_TREE), AT_FDCWD, os.fsencode(path), ctypes.c_uint(flags))
        return self._effect("open_tree", path, lambda: self._checked(self._libc.syscall(*arguments)))

    def mount_setattr(self, fd: int, attr_set: int, attr_clr: int = 0) -> None:
        """Change the flags of a descriptor's mount. ENOSYS before Linux 5.12."""
        attributes = struct.pack("QQQQ", attr_set, attr_clr, 0, 0)
        arguments = (ctypes.c_long(SYS_MOUNT_SETATTR), fd, b"", ctypes.c_uint(AT_EMPTY_PATH), attributes)
        size = ctypes.c_size_t(len(attributes))
        self._effect("mount_setattr", fd, lambda: self._checked(self._libc.syscall(*arguments, size)))

    def move_mount(self, fd: int, target: Path) -> None:
        """Put a detached mount at a path."""
        arguments = (ctypes.c_long(SYS_MOVE_MOUNT), fd, b"", AT_FDCWD, os.fsencode(target))
        flags = ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH)
        self._effect("move_mount", target, lambda: self._checked(self._libc.syscall(*arguments, flags)))

    def syncfs(self, path: Path) -> None:
        """Write out the whole file system that `path` is on, and wait for it."""
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            self._effect("syncfs", path, lambda: self._checked(self._libc.syncfs(fd)))
        finally:
            os.close(fd)

    # ioctl

    def ioctl(self, fd: int, request: int, argument: int | bytearray = 0, *, path: object = "") -> int:
        """Make a changing ioctl. A bytearray is filled by the kernel. `path` is for the error only."""
        if isinstance(argument, bytearray) and len(argument) > IOCTL_BUFFER:
            raise ValueError(f"{request_name(request)}: {len(argument)} bytes would keep the GIL")
        return self._effect(request_name(request), path, lambda: fcntl.ioctl(fd, request, argument))

    def ioctl_struct(self, fd: int, request: int, argument: bytes, *, path: object = "") -> int:
        """Make a changing ioctl with a structure of any length, which the kernel only reads."""
        arguments = (fd, ctypes.c_ulong(request), argument)
        return self._effect(request_name(request), path, lambda: self._checked(self._libc.ioctl(*arguments)))

    def query_long(self, fd: int, request: int, buffer: bytearray) -> bytearray:
        """Ask by an ioctl that changes nothing and has a long answer. Fill and return the buffer."""
        there = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        try:
            self._checked(self._libc.ioctl(fd, ctypes.c_ulong(request), there))
        except OSError as error:
            raise OSError(error.errno, f"{request_name(request)}: {error.strerror}") from error
        return buffer

    # files

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        """Open a file, never inherited. It is an effect if it may create or truncate."""
        if flags & (os.O_CREAT | os.O_TRUNC):
            return self._effect("open", path, lambda: os.open(path, flags, mode))
        return os.open(path, flags)

    def ftruncate(self, fd: int, length: int, *, path: object = "") -> None:
        """Set a file's length in bytes."""
        self._effect("ftruncate", path, lambda: os.ftruncate(fd, length))

    def fallocate(self, fd: int, offset: int, length: int, *, path: object = "") -> None:
        """Let a file have blocks of its own, which read as zeros; longer if need be. What it holds stays."""
        self._effect("fallocate", path, lambda: os.posix_fallocate(fd, offset, length))

    def fsync(self, fd: int, *, path: object = "") -> None:
        """Make a file durable."""
        self._effect("fsync", path, lambda: os.fsync(fd))

    def fsync_dir(self, path: Path) -> None:
        """Make a folder's names durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._effect("fsync_dir", path, lambda: os.fsync(fd))
        finally:
            os.close(fd)

    def pwrite(self, fd: int, data: bytes, offset: int, *, path: object = "") -> int:
        """Write at an offset in bytes. Return the bytes written, which may be fewer."""
        return self._effect("pwrite", path, lambda: os.pwrite(fd, data, offset))

    def write_file(self, path: Path, data: bytes) -> None:
        """Write to an existing file (sysfs, procfs, cgroup) by one write(2). Never creates it."""
        fd = os.open(path, os.O_WRONLY)
        try:
            written = self._effect("write", path, lambda: os.write(fd, data))
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)
        if written != len(data):
            raise OSError(errno.EIO, f"write: {written} of {len(data)} bytes", str(path))

    def rename(self, old: Path, new: Path) -> None:
        """Rename, replacing what is there."""
        self._effect("rename", new, lambda: old.rename(new))

    def link(self, old: Path, new: Path) -> None:
        """Give a file one more name; EEXIST if it is taken, unlike rename."""
        self._effect("link", new, lambda: new.hardlink_to(old))

    def symlink(self, pointing_to: str, path: Path) -> None:
        """Make a symbolic link, as configfs wants for nvmet."""
        self._effect("symlink", path, lambda: path.symlink_to(pointing_to))

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        self._effect("unlink", path, path.unlink)

    def mkdir(self, path: Path, mode: int = 0o750) -> None:
        """Make a folder."""
        self._effect("mkdir", path, lambda: path.mkdir(mode))

    def chmod(self, path: Path, mode: int) -> None:
        """Set who may use a file or folder."""
        self._effect("chmod", path, lambda: path.chmod(mode))

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        self._effect("rmdir", path, path.rmdir)

    def setxattr(self, path: Path | int, name: str, value: bytes) -> None:
        """Set an extended attribute of a path or of an open file."""
        self._effect("setxattr", path, lambda: os.setxattr(path, name, value))

    def removexattr(self, path: Path | int, name: str) -> None:
        """Remove an extended attribute of a path or of an open file."""
        self._effect("removexattr", path, lambda: os.removexattr(path, name))
