"""The cache: entries named by kind and by a hash of all that went into them.

An entry appears whole, by a rename, or not at all. Builders wait for each other at one lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .host import VmError, note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KEPT_PER_KIND = 2


def default_root() -> Path:
    """Return the folder that the XDG base directory specification gives to this cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).absolute() / "sluice" / "vm"


def digest(parts: Iterable[bytes]) -> str:
    """Hash byte strings so that moving a byte from one to the next changes the result."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of finished entries."""

    root: Path

    def find(self, kind: str, key: str) -> Path | None:
        """Return a finished entry and note that it was used, or None."""
        entry = self.root / f"{kind}-{key}"
        try:
            os.utime(entry)
        except FileNotFoundError:
            return None
        return entry

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the builders' lock, having cleared what killed builders left."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise VmError(f"cannot use the cache {self.root}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note("another build is running; waiting for it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            for leftover in self.root.glob("tmp-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def create(self, kind: str, key: str) -> Iterator[Path]:
        """Give a folder to fill; it becomes the entry if the block ends well. Hold the lock."""
        scratch = Path(tempfile.mkdtemp(prefix="tmp-", dir=self.root))
        scratch.chmod(0o755)
        try:
            yield scratch
            scratch.rename(self.root / f"{kind}-{key}")
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        self._prune(kind)

    def _prune(self, kind: str) -> None:
        entries = sorted(self.root.glob(f"{kind}-*"), key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in entries[KEPT_PER_KIND:]:
            shutil.rmtree(entry, ignore_errors=True)

    @contextmanager
    def run_folder(self) -> Iterator[Path]:
        """Give a folder for one run, removed afterwards; clear those of runs that were killed."""
        runs = self.root / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        for leftover in runs.iterdir():
            _remove_if_unused(leftover)
        folder = Path(tempfile.mkdtemp(dir=runs))
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def _remove_if_unused(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
