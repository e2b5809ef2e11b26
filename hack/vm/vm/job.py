"""The job: one command with its files and surroundings, handed to the machine as a small disk."""

from __future__ import annotations

import os
import shlex
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from .bytecode import compile_tree
from .host import SYSTEM_PATH, VmError, run
from .image import make_ext4
from .recipe import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .cache import Cache

SPARE_BYTES = 1 << 30
OPTIONS = ("-q", "-F", "-L", "sluice-job", "-O", "^has_journal", "-m", "0", "-E", "nodiscard,root_owner=0:0")


@dataclass(frozen=True, slots=True)
class Take:
    """A path of the machine whose content is wanted on the host."""

    guest: PurePosixPath
    host: Path


@dataclass(frozen=True, slots=True)
class Job:
    """A command, the files that it gets and gives, and whether the machine shuts down in order after it."""

    nonce: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    puts: tuple[Path, ...] = ()
    takes: tuple[Take, ...] = ()
    orderly: bool = False

    def script(self) -> str:
        """Return the shell script that becomes the command."""
        surroundings = {
            "PATH": f"/opt/sluice/bin:{SYSTEM_PATH}",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            # The host shows output as it comes, and Python would hold back what goes to a pipe.
            "PYTHONUNBUFFERED": "1",
            **self.environment,
        }
        lines = [f"export {name}={shlex.quote(value)}" for name, value in surroundings.items()]
        return "\n".join([*lines, "cd /src", "exec " + shlex.join(self.argv), ""])


def make_job_disk(folder: Path, job: Job, cache: Cache | None = None) -> Path:
    """Make the job's disk in a folder: with the working tree if a cache is given, in which its Python is."""
    content = folder / "job"
    (content / "src").mkdir(parents=True)
    (content / "put").mkdir()
    if cache is not None:
        _copy_working_tree(content / "src")
        compile_tree(cache, content / "src")
    for path in job.puts:
        _put(path, content / "put" / path.name)
    (content / "command").write_text(job.script())
    (content / "nonce").write_text(job.nonce + "\n")
    (content / "results").write_text("".join(f"{take.guest}\n" for take in job.takes))
    if job.orderly:
        (content / "poweroff").touch()
    used = sum(path.lstat().st_size for path in content.rglob("*"))
    disk = folder / "job.raw"
    # mke2fs reads a bare number as blocks; K is 1024 bytes.
    make_ext4(disk, content, f"{(used + used // 4 + SPARE_BYTES) // 1024}K", OPTIONS)
    shutil.rmtree(content)
    return disk


def _copy_working_tree(target: Path) -> None:
    """Copy what git tracks, as it is on disk now, and what is new and not ignored."""
    git = ["git", "-c", f"safe.directory={CHECKOUT}", "-C", CHECKOUT]
    listed = run([*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    folders = {target}
    for name in filter(None, listed.split("\0")):
        source, copy = CHECKOUT / name, target / name
        # Tracked, but deleted since.
        if not os.path.lexists(source):
            continue
        if copy.parent not in folders:
            copy.parent.mkdir(parents=True, exist_ok=True)
            folders.add(copy.parent)
        shutil.copy2(source, copy, follow_symlinks=False)


def _put(source: Path, target: Path) -> None:
    if target.exists():
        raise VmError(f"two files to put are named {target.name}")
    try:
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy2(source, target)
    except OSError as error:
        raise VmError(f"cannot put {source}: {error.strerror or error}") from error


def unpack(archive: Path, takes: Sequence[Take]) -> None:
    """Write what came out of the machine where the host wants it: regular files and folders, nothing else.

    Raises VmError when the archive is not whole.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                for take in takes:
                    _unpack_member(tar, member, take)
    except (tarfile.TarError, OSError) as error:
        raise VmError(f"cannot write what came out of the VM: {error}") from error


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, take: Take) -> None:
    path = PurePosixPath(member.name)
    if not path.is_relative_to(take.guest) or ".." in path.parts:
        return
    target = take.host / path.relative_to(take.guest)
    content = tar.extractfile(member) if member.isreg() else None
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
    elif content is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(member.mode & 0o755)
