"""A disk whose every write is logged in the order in which it became durable, and the disk at any moment of that log.

dm-log-writes keeps the log. It takes a write in when the next flush is done, or the write itself was FUA; so what the
log has up to any flush is what the disk surely has if the power is cut right then.
https://docs.kernel.org/admin-guide/device-mapper/log-writes.html
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from csi_driver.host.dmtable import request_buffer
from tests.kernel.node import MIB, run
from tests.serving import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

SECTOR = 512
SIZES = {"state": 64 * MIB, "pool": 320 * MIB}
"""The parts of the disk, in the order in which they lie on it: two file systems, so that neither orders the other."""

LOG_SIZE = 2 << 30
MEMORY = "/dev/shm"
"""Where all of it is: so a file system's log is replayed in tenths of seconds, not in seconds."""

DEVICE, BELOW = "sluice-test-logged", "sluice-test-below"
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
MAGIC = 0x6A736677736872
SUPER = struct.Struct("<QQQI")
ENTRY = struct.Struct("<QQQQ")
# linux/dm-ioctl.h: _IOWR(0xfd, 14, struct dm_ioctl), followed by struct dm_target_msg.
DM_TARGET_MSG = 3 << 30 | 312 << 16 | 0xFD << 8 | 14
PIECE = 64 << 10


class Entry(NamedTuple):
    """Hold what the log says of a write: where it went, and where in the log its bytes are, all in bytes."""

    start: int
    length: int
    flags: int
    data: int
    mark: str

    @property
    def durable(self) -> bool:
        """Return whether it and all before it are surely on the disk."""
        return bool(self.flags & (FLUSH | FUA))


class LoggedDisk:
    """Make and unmake the devices. What is left at the end is the log, and the file systems as they were made."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY))
        self.log = self.folder / "log"
        self._loops: list[str] = []

    def part(self, name: str) -> Path:
        """Return the device of a part."""
        return Path("/dev/mapper") / f"{DEVICE}-{name}"

    def original(self, name: str) -> Path:
        """Return a part as it was before anything was logged."""
        return self.folder / f"{name}.original"

    def mark(self, text: str) -> None:
        """Write a word into the log, behind all that is durable by now."""
        message = struct.pack("=Q", 0) + f"mark {text}".encode() + b"\0"
        with Path("/dev/mapper/control").open("rb") as control:
            fcntl.ioctl(control, DM_TARGET_MSG, request_buffer(DEVICE, "", 0, message, cookie=0))

    def stop(self) -> None:
        """Remove the devices; from now on the log can be read."""
        for name in (*(f"{DEVICE}-{part}" for part in SIZES), DEVICE, BELOW):
            if Path(f"/dev/mapper/{name}").exists():
                run("dmsetup", "remove", "--retry", name)
        while self._loops:
            run("losetup", "--detach", self._loops.pop())

    def _start(self) -> None:
        images = {name: self.folder / name for name in SIZES}
        for name, image in images.items():
            run("truncate", f"--size={SIZES[name]}", image)
        run("truncate", f"--size={LOG_SIZE}", self.log)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", images["state"])
        run("mkfs.xfs", "-q", images["pool"])
        below = 0
        table = ""
        for name, image in images.items():
            copy(image, self.original(name))
            table += f"{below} {SIZES[name] // SECTOR} linear {self._loop(image)} 0\n"
            below += SIZES[name] // SECTOR
        _create(BELOW, table)
        _create(DEVICE, f"0 {below} log-writes /dev/mapper/{BELOW} {self._loop(self.log)}")
        start = 0
        for name, size in SIZES.items():
            _create(f"{DEVICE}-{name}", f"0 {size // SECTOR} linear /dev/mapper/{DEVICE} {start}")
            start += size // SECTOR

    def _loop(self, image: Path) -> str:
        """Attach a file, as a disk without a cache of its own.

        Flushes then end in the order in which they came, which is more than dm-log-writes could tell otherwise.
        """
        device = run("losetup", "--find", "--show", image).strip()
        self._loops.append(device)
        (Path("/sys/block") / Path(device).name / "queue/write_cache").write_text("write through")
        return device

    def __enter__(self) -> Self:
        """Make it."""
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder)


@dataclass(frozen=True, slots=True)
class Log:
    """Read a log."""

    path: Path

    def entries(self) -> list[Entry]:
        """Return all that was logged, in order."""
        found = []
        with self.path.open("rb", buffering=0) as file:
            magic, version, count, sector = SUPER.unpack(os.pread(file.fileno(), SUPER.size, 0))
            assert (magic, version) == (MAGIC, 1)
            at = sector
            for _ in range(count):
                header = os.pread(file.fileno(), sector, at)
                start, sectors, flags, length = ENTRY.unpack_from(header)
                mark = header[ENTRY.size :][:length].decode() if flags & MARK else ""
                found.append(Entry(start * sector, sectors * sector, flags, at + sector, mark))
                at += sector + (0 if flags & DISCARD else sectors * sector)
        return found


class Copy:
    """The parts of the disk as files, into which the log is replayed."""

    def __init__(self, log: Path, files: Mapping[str, Path]) -> None:
        self.files = files
        self._log = log

    def apply(self, entry: Entry, at: int = 0, most: int = LOG_SIZE) -> None:
        """Do a logged write again, or at most so many bytes of it from an offset on."""
        length = min(entry.length - at, most)
        if length <= 0:
            return
        with self._log.open("rb", buffering=0) as log:
            data = bytes(length) if entry.flags & DISCARD else os.pread(log.fileno(), length, entry.data + at)
        path, start = self._place(entry.start + at)
        with path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), data, start)

    def copied(self, folder: Path) -> Copy:
        """Return a copy of it as it is now."""
        copies = {name: folder / f"{name}.copy" for name in self.files}
        for name, path in copies.items():
            copy(self.files[name], path)
        return Copy(self._log, copies)

    def _place(self, offset: int) -> tuple[Path, int]:
        for name, size in SIZES.items():
            if offset < size:
                return self.files[name], offset
            offset -= size
        raise ValueError(offset)


def copy(old: Path, new: Path) -> None:
    """Copy a file, and leave a hole wherever it has zeros."""
    with old.open("rb", buffering=0) as source, new.open("wb", buffering=0) as target:
        size, offset = old.stat().st_size, 0
        target.truncate(size)
        while (offset := _data(source.fileno(), offset)) < size:
            data = os.pread(source.fileno(), PIECE, offset)
            if data != bytes(len(data)):
                os.pwrite(target.fileno(), data, offset)
            offset += len(data)


def _data(fd: int, offset: int) -> int:
    """Return where the next data of a file is, or its end."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) // PIECE * PIECE if offset < os.fstat(fd).st_size else offset
    except OSError:  # ENXIO: nothing but a hole is left
        return os.fstat(fd).st_size


def pieces(entry: Entry, size: int = 4096) -> Iterator[int]:
    """Yield the offsets of what a disk writes at once, at least."""
    yield from range(0, entry.length, size)


def _create(name: str, table: str) -> None:
    run("sh", "-c", 'printf "%s" "$1" | dmsetup create "$0"', name, table)
