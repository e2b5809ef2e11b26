"""The pools that a state folder keeps: written by `sluice pool`, read by every command (config.kept_pools)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from csi_driver.config import POOLS_FILE, RATIOS, PoolConfig, kept_pools
from csi_driver.host.refusals import as_unready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_driver.host.syscalls import Kernel

HEADER = "# Written by `sluice pool`. A running server reads it when it starts again.\n"


def words(pool: PoolConfig) -> str:
    """Return a pool as `--pool` takes it."""
    return ",".join(f"{key}={value}" for key, value in _pairs(pool))


def toml(pool: PoolConfig) -> str:
    """Return a pool as a configuration file takes it."""
    return "[[pools]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in _pairs(pool))


def keep(state: Path, pool: PoolConfig, kernel: Kernel) -> Path:
    """Add a pool to the file of a state folder, and return the file. The caller holds its lock. Raises Unready."""
    file = state / POOLS_FILE
    text = HEADER + "".join(f"\n{toml(each)}" for each in (*kept_pools(state), pool))
    draft = file.with_suffix(".new")
    with as_unready(f"pools file {file}"):
        fd = kernel.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        try:
            kernel.pwrite(fd, text.encode(), 0, path=draft)
            kernel.fsync(fd, path=draft)
        finally:
            os.close(fd)
        kernel.rename(draft, file)
        kernel.fsync_dir(state)
    return file


def _pairs(pool: PoolConfig) -> Iterator[tuple[str, str | int | float]]:
    yield from (("name", pool.name), ("backend", pool.backend))
    if pool.backend == "lvm":
        yield from zip(("vg", "thinpool"), pool.path.parts, strict=True)
    else:
        yield "path", str(pool.path)
    if pool.size:
        yield "size", pool.size
    if pool.ratio != RATIOS.get(pool.backend, 1.0):
        yield "ratio", pool.ratio
