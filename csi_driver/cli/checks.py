"""What `sluice doctor` looks at. Every check only looks: nothing is made, changed or locked."""

from __future__ import annotations

import enum
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver import assemble
from csi_driver.backends.marker import same_pool
from csi_driver.cli.volumes import ancestor
from csi_driver.errors import StorageError
from csi_driver.host import facts
from csi_driver.host.statelock import LOCK
from csi_driver.ids import new_id
from csi_driver.kinds import KINDS
from csi_driver.records import Pool
from csi_driver.store.sqlite import SqliteStore
from qos.cgroup import MOUNTPOINT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.backends.base import Backend
    from csi_driver.config import Config, PoolConfig

LEAST_KERNEL = (5, 8)
"""LOOP_CONFIGURE came with Linux 5.8."""
CONTROLLERS = ("io", "memory")


class State(enum.StrEnum):
    """Say how a check ended. With one `missing`, the server can't serve what it is asked to."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Check:
    """Hold one thing that was looked at: what was found, and what to do if it isn't well."""

    name: str
    state: State
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Check:
    """Return that something is as it should be."""
    return Check(name, State.OK, found)


def warning(name: str, found: str, remedy: str) -> Check:
    """Return that something works less well than it could."""
    return Check(name, State.WARNING, found, remedy)


def missing(name: str, found: str, remedy: str) -> Check:
    """Return that something is needed and not there."""
    return Check(name, State.MISSING, found, remedy)


def machine_checks(machine: assemble.Machine) -> Iterator[Check]:
    """Look at what every server needs of a machine."""
    yield _kernel()
    user = os.geteuid()
    yield ok("user", "root") if user == 0 else missing("user", f"uid {user}", "run as root: devices and mounts need it")
    loops = facts.loop_devices()
    yield ok("loop devices", loops.detail) if loops.holds else missing("loop devices", loops.detail, "modprobe loop")
    mapper = facts.device_mapper(machine.mapper)
    yield (
        ok(mapper.name, mapper.detail)
        if mapper.holds
        else warning(
            mapper.name,
            f"{mapper.detail}; limits go on the loop devices themselves",
            "modprobe dm_mod, or a kernel with CONFIG_BLK_DEV_DM",
        )
    )


def _kernel() -> Check:
    release = facts.kernel_release()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers and (int(numbers[1]), int(numbers[2])) < LEAST_KERNEL:
        return missing("kernel", release, "run Linux 5.8 or newer; Debian 12 has 6.1, Debian 13 has 6.12")
    return ok("kernel", release)


def qos_checks(config: Config) -> Iterator[Check]:
    """Look at whether limits can be applied."""
    if config.qos == "off":
        yield warning("limits", "--qos off: no volume is limited", "run with --qos enforce on a kernel with io.max")
        return
    io = facts.cgroup_io(MOUNTPOINT)
    lacking = [name for name in CONTROLLERS if f" {name} " not in f" {io.detail.partition(': ')[2]} "]
    if not io.holds or lacking:
        found = io.detail if not io.holds else f"{io.detail}; {', '.join(lacking)} is missing"
        yield missing(
            "cgroup v2 io",
            found,
            "boot with systemd.unified_cgroup_hierarchy=1 a kernel with CONFIG_BLK_DEV_THROTTLING, or --qos off",
        )
        return
    yield ok("cgroup v2 io", io.detail)
    cgroup = ancestor(config.ancestor)
    if cgroup.has_io():
        yield ok("ancestor", f"{cgroup} has io.max")
    elif config.ancestor != "auto" and not cgroup.path.is_dir():
        yield missing("ancestor", f"{cgroup} is no cgroup", "create it, or --ancestor auto")
    else:
        yield ok("ancestor", f"{cgroup}: `sluice serve` makes it and enables io")


def state_checks(config: Config) -> Iterator[Check]:
    """Look at the state folder, its lock and its database."""
    folder = config.state
    if not folder.is_dir():
        parent = next(each for each in folder.parents if each.exists())
        fine = os.access(parent, os.W_OK)
        yield (
            ok("state folder", f"{folder} is made at the first start")
            if fine
            else missing("state folder", f"{parent} can't be written", "run as root, or give another --state")
        )
        return
    open_to = folder.stat().st_mode & 0o077
    if open_to:
        yield warning("state folder", f"{folder} is open to others than its owner", f"chmod 700 {folder}")
    else:
        yield ok("state folder", str(folder))
    yield _server(folder)
    yield _database(config)


def _server(folder: Path) -> Check:
    """Say whether a server holds the lock, by the kernel's own list: to try the lock could keep a server from it."""
    lock = folder / LOCK
    if not lock.exists():
        return ok("server", "none runs, and none did here")
    status = lock.stat()
    name = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if "FLOCK" in words and name in words:
            return ok("server", f"process {lock.read_text().strip() or '?'} serves this state folder")
    return ok("server", "none runs")


def _database(config: Config) -> Check:
    path = config.state / assemble.DATABASE
    if not path.exists() and not path.with_name(f"{path.name}-wal").exists():
        if any(backend.claimed() for backend in _backends(config)):
            return warning("database", f"{path} is not there, but pools are", "if records were lost: sluice adopt")
        return ok("database", f"{path} is made at the first start")
    try:
        store = SqliteStore(path)
        try:
            counts = [f"{name}s: {len(store.list(kind))}" for name, kind in KINDS.items()]
        finally:
            store.close()
    except StorageError as error:
        return missing("database", str(error), "move it away and run sluice adopt")
    return ok("database", ", ".join(counts))


def _backends(config: Config) -> list[Backend]:
    machine = assemble.Machine()
    return [machine.backend(pool) for pool in config.pools if pool.path.is_dir()]


def pool_checks(config: Config, machine: assemble.Machine) -> Iterator[Check]:
    """Look at each loop pool: its folder, what its file system can, and whether it is the one that its record names."""
    if not config.pools:
        yield warning(
            "pools",
            "none given: this looked at the machine only",
            "sluice pool create makes one; or give --pool or --config as for serve",
        )
    for pool in config.pools:
        if pool.backend != "loop":
            continue
        name = f"pool {pool.name}"
        backend = machine.backend(pool)
        try:
            identity, claimed = (backend.look(), backend.claimed()) if pool.path.is_dir() else ("", False)
        except StorageError as error:
            yield missing(name, str(error), "look at the folder and the disk below it")
            continue
        yield _identity(config, pool, identity, claimed=claimed)
        yield from _room(pool) if pool.size and not claimed else _abilities(pool, machine, identity)


def _identity(config: Config, pool: PoolConfig, identity: str, *, claimed: bool) -> Check:
    """Compare the pool that stands there with its record."""
    name = f"pool {pool.name}"
    recorded = recorded_identity(config, pool)
    if not claimed:
        if recorded:
            return missing(
                name, f"{pool.path} holds no pool, its record says {recorded}", "mount the pool's disk there"
            )
        return ok(name, f"{pool.path}: made at the first start")
    if not identity:
        return ok(name, f"{pool.path}: its image is there, `sluice serve` mounts it")
    if recorded and not same_pool(recorded, identity):
        return missing(name, f"{pool.path} is {identity}, its record says {recorded}", "mount the right disk there")
    if not recorded:
        return warning(name, f"{pool.path} is a pool without a record", "if records were lost: sluice adopt")
    return ok(name, f"{pool.path} is {identity}, as its record says")


def recorded_identity(config: Config, pool: PoolConfig) -> str:
    """Return the identity that a pool's record names, "" where there is no record that can be read."""
    path = config.state / assemble.DATABASE
    if not path.exists():
        return ""
    try:
        store = SqliteStore(path)
        try:
            record = store.get(Pool, new_id(config.scope, Pool.KIND, f"{config.node_id}/{pool.name}"))
        finally:
            store.close()
    except StorageError:
        return ""  # the check of the database says why
    return record.status.identity if record else ""


def _room(pool: PoolConfig) -> Iterator[Check]:
    """Look whether an image of the pool's size would fit."""
    folder = next(each for each in (pool.path, *pool.path.parents) if each.exists())
    free = shutil.disk_usage(folder).free
    name = f"pool {pool.name}: room"
    said = f"{pool.size >> 20} MiB wanted, {free >> 20} MiB free on {folder}"
    yield ok(name, said) if free >= pool.size else missing(name, said, "free space, or give a smaller size=")


def _abilities(pool: PoolConfig, machine: assemble.Machine, identity: str) -> Iterator[Check]:
    """Look at what the pool's file system can."""
    folder = pool.path / "pool" if pool.size and identity else pool.path
    name = f"pool {pool.name}"
    if pool.size and not identity:
        return  # an XFS of our own that isn't mounted now: it has both
    folder = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(folder, os.W_OK):
        yield missing(f"{name}: writable", f"{folder} can't be written", "run as root; is it mounted read-only?")
        return
    attributes = facts.extended_attributes(machine.kernel, folder)
    yield (
        ok(f"{name}: xattrs", attributes.detail)
        if attributes.holds
        else missing(f"{name}: xattrs", attributes.detail, "passports need them: use ext4, XFS or btrfs, or size=")
    )
    reflinks = facts.reflinks(machine.kernel, folder)
    yield (
        ok(f"{name}: reflinks", reflinks.detail)
        if reflinks.holds
        else warning(
            f"{name}: reflinks", f"{reflinks.detail}; no snapshots, no clones", "give the pool a size=, or XFS"
        )
    )
