"""fio, in cgroups under the limited ancestor that stand in for pods."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FIO = ("fio", "--ioengine=libaio", "--time_based", "--output-format=json", "--disable_clat=1", "--disable_slat=1")


def pod(ancestor: Path, name: str) -> Path:
    """Make the cgroup of a pod."""
    folder = ancestor / f"pod-{name}"
    folder.mkdir(exist_ok=True)
    return folder


def fill(file: Path, size: int) -> None:
    """Write a file whole, so that no measured I/O has to allocate: the first write to a sparse file costs more."""
    argv = ["dd", "if=/dev/zero", f"of={file}", "bs=1M", f"count={size >> 20}", "oflag=direct", "conv=fsync"]
    subprocess.run(argv, check=True, capture_output=True)


def inference(file: Path, size: int, iops: int) -> list[str]:
    """Return the words for small random reads that arrive by chance (Poisson), as requests of users do."""
    return [
        "--name=inference",
        f"--filename={file}",
        f"--size={size}",
        "--rw=randread",
        "--bs=4k",
        "--direct=1",
        "--iodepth=16",
        f"--rate_iops={iops}",
        "--rate_process=poisson",
        "--randseed=1",
    ]


def training(file: Path, size: int, *, buffered: bool) -> list[str]:
    """Return the words for a checkpoint: a file written from end to end, again and again."""
    words = ["--name=training", f"--filename={file}", f"--size={size}", "--rw=write", "--bs=1M", "--overwrite=1"]
    # Buffered, a checkpoint ends in an fsync, as training frameworks do it.
    return [*words, "--direct=0", "--end_fsync=1", "--fsync=64"] if buffered else [*words, "--direct=1", "--iodepth=16"]


def start(words: list[str], cgroup: Path, seconds: float, out: Path) -> subprocess.Popen[str]:
    """Start fio in a cgroup. Each I/O's latency goes to OUT_lat.1.log, its report to OUT.json."""
    argv = [*FIO, *words, f"--runtime={seconds:g}", f"--write_lat_log={out}", f"--output={out}.json"]
    # A shell moves itself and becomes fio: fio's first I/O is the pod's.
    inner = ["sh", "-c", 'echo 0 > "$0" && exec "$@"', str(cgroup / "cgroup.procs"), *argv]
    return subprocess.Popen(inner, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait for fio. Raises RuntimeError with its words if it failed."""
    said, _ = process.communicate(timeout=seconds)
    if process.returncode:
        raise RuntimeError(f"fio ended with status {process.returncode}: {' '.join(said.split())[-300:]}")
