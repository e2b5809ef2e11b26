"""Build the objects of a server from its configuration: the one place that knows them all."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from csi_driver.agent.agent import Agent
from csi_driver.agent.grouping import Grouper
from csi_driver.agent.making import Maker
from csi_driver.agent.trimming import Trimming
from csi_driver.backends.image import PoolImage
from csi_driver.backends.loop import LoopBackend
from csi_driver.backends.lvm import LvmBackend
from csi_driver.controller.groups import Groups
from csi_driver.controller.snapshots import Snapshots
from csi_driver.controller.volumes import Volumes
from csi_driver.controller.waiting import Liveness, Waiting
from csi_driver.errors import Invalid, StorageError
from csi_driver.formatting import Formatting
from csi_driver.host import udev
from csi_driver.host.dm import DeviceMapper
from csi_driver.host.dmstats import Statistics
from csi_driver.host.filesystem import Filesystems
from csi_driver.host.freeze import DeadMan, Freezer
from csi_driver.host.loopdev import LoopDevices
from csi_driver.host.lvm import Lvm, host_prefix
from csi_driver.host.mounts import Mounts
from csi_driver.host.run import Runner
from csi_driver.host.syscalls import Kernel
from csi_driver.ids import new_id
from csi_driver.ledger import DiskLedger
from csi_driver.limiting import Limiting
from csi_driver.locks import Locks
from csi_driver.measuring import Measuring
from csi_driver.node.growing import Growing
from csi_driver.node.publishing import Publishing
from csi_driver.node.staged import Staged
from csi_driver.node.staging import Staging
from csi_driver.pools import ServedPool, ServedPools
from csi_driver.records import Pool, PoolSpec
from csi_driver.stack import Stack
from csi_driver.store.sqlite import SqliteStore
from qos.ancestor import find_ancestor
from qos.cgroup import HelperCgroup
from qos.enforce import Enforcer, Off
from qos.errors import Unenforceable
from qos.late import Late
from qos.limits import UNLIMITED, Limits
from qos.tiers import load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from csi_driver.backends.base import Backend
    from csi_driver.config import Config, PoolConfig
    from csi_driver.store.base import Store
    from qos.enforce import Enforcement
    from qos.tiers import Tier

log = structlog.get_logger(__name__)

DATABASE = "sluice.db"
HELPER_LIMITS = Limits(rbps=200 << 20, wbps=200 << 20, riops=2000, wiops=2000)
"""What mkfs, fsck and growfs may take of a pool's disk, together: enough to make any file system in seconds."""


class Machine:
    """Hold the doors to the machine and what stands right behind them."""

    def __init__(self, observe: Callable[[str, float], None] | None = None) -> None:
        self.kernel = Kernel()
        self.runner = Runner(observe)
        self.mapper = DeviceMapper(self.kernel)
        self.statistics = Statistics(self.kernel)
        self.loops = LoopDevices(self.kernel)
        self.mounts = Mounts(self.kernel)
        self.filesystems = Filesystems(self.runner, self.kernel)
        self.lvm = Lvm(self.runner, host_prefix())
        self.dead_man = DeadMan()
        self.helper = HelperCgroup()
        self.freezer = Freezer(self.kernel, self.mapper, self.dead_man)

    def backend(self, pool: PoolConfig) -> Backend:
        """Return the backend of a pool. A loop pool with a size lives in an image of its own, mounted in its folder."""
        if pool.backend == "lvm":
            vg, thinpool = pool.path.parts
            return LvmBackend(vg, thinpool, self.lvm, self.mapper, self.kernel)
        return self.loop_backend(pool)

    def loop_backend(self, pool: PoolConfig) -> LoopBackend:
        """Return the backend of a pool of image files."""
        if not pool.size:
            return LoopBackend(pool.path, self.kernel, self.loops, self.filesystems)
        image = PoolImage(pool.path / "pool.xfs", pool.size, self.kernel, self.loops, self.filesystems, self.mounts)
        return LoopBackend(pool.path / "pool", self.kernel, self.loops, self.filesystems, image)


def tiers_of(config: Config) -> Mapping[str, Tier]:
    """Return the tiers: the built-in ones and the user's. Raises Invalid."""
    try:
        return load(config.tiers)
    except ValueError as error:
        raise Invalid(f"tiers: {error}") from error


def open_store(config: Config) -> SqliteStore:
    """Open the records of the state folder, which is made 0700."""
    config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SqliteStore(config.state / DATABASE)


def enforcement(config: Config, machine: Machine) -> Enforcement:
    """Return what holds limits in force, or, loudly, what doesn't."""
    if config.qos == "off":
        log.warning("QoS IS OFF: no volume is limited, whatever its class says", remedy="run with --qos enforce")
        return Off()

    def find() -> Enforcer:
        machine.helper.ensure((), UNLIMITED)
        return Enforcer(find_ancestor(config.ancestor), log=log.warning, helper=machine.helper)

    late = Late(find)
    if late.reason:
        log.error("limits can't be applied; tiers that require them will not be staged", reason=late.reason)
    return late


def keep_udev_away(machine: Machine) -> None:
    """Let nothing on the host act on what pods write into their volumes, as far as udev can be told from here."""
    try:
        udev.keep_away(machine.kernel, machine.runner)
    except StorageError as error:
        log.warning(
            "udev is not told to leave volumes alone",
            reason=str(error),
            remedy=f"install {', '.join(udev.NAMES)} on the host",
        )


class AgentSide:
    """Hold all that acts on this node: the pools, the agent and the node's verbs, under one set of locks."""

    def __init__(self, config: Config, store: Store, machine: Machine, enforce: Enforcement) -> None:
        mapper = machine.mapper if machine.mapper.available() else None
        stack = Stack(mapper, machine.mounts, machine.freezer)
        locks = Locks()
        self.pools = served_pools(config, machine)
        statistics = machine.statistics if mapper else None
        limiting = Limiting(enforce, statistics)
        self.measuring = Measuring(statistics, enforce)
        maker = Maker(store, stack, limiting, locks)
        grouper = Grouper(store, stack, locks, maker)
        self.agent = Agent(config.node_id, config.scope, store, self.pools, maker, grouper, locks)
        self.trimming = Trimming(store, self.pools, stack, machine.kernel, locks, every=config.trim_every)
        formatting = Formatting(store, machine.filesystems, limiting)
        staged = Staged(store, self.pools, stack)
        self.staging = Staging(
            staged,
            self.pools,
            stack,
            formatting,
            machine.filesystems,
            machine.mounts,
            machine.kernel,
            limiting,
            locks,
        )
        self.publishing = Publishing(staged, stack, machine.mounts, machine.kernel, limiting, locks)
        self.growing = Growing(staged, machine.filesystems, limiting, locks)


class ControllerSide:
    """Hold the controller's verbs. They share nothing with the agent's side but the Store."""

    def __init__(self, config: Config, store: Store, tiers: Mapping[str, Tier]) -> None:
        self.waiting = Waiting(store)
        liveness = Liveness(store, config.scope)
        self.volumes = Volumes(store, self.waiting, liveness, tiers, config.scope)
        self.snapshots = Snapshots(store, self.waiting, liveness, config.scope)
        self.groups = Groups(store, self.waiting, liveness, config.scope)


def served_pools(config: Config, machine: Machine) -> ServedPools:
    """Return this node's pools, not opened yet."""
    floors = DiskLedger(config.disks)
    return ServedPools({pool.id: pool for pool in (_served(config, pool, machine, floors) for pool in config.pools)})


def _limit_helpers(helper: HelperCgroup, backend: Backend) -> None:
    """Keep our own mkfs, fsck and growfs from taking a pool's disks away from the pods."""
    try:
        helper.ensure((disk.dev for disk in backend.disks()), HELPER_LIMITS)
    except (Unenforceable, StorageError) as error:
        log.warning("programs that the driver runs are not limited", reason=str(error))


def _served(config: Config, pool: PoolConfig, machine: Machine, floors: DiskLedger) -> ServedPool:
    spec = PoolSpec(pool.name, config.node_id, pool.backend, str(pool.path), pool.size, pool.ratio)
    record_id = new_id(config.scope, Pool.KIND, f"{config.node_id}/{pool.name}")
    if config.qos == "off":
        return ServedPool(record_id, spec, machine.backend(pool), floors=floors)
    return ServedPool(record_id, spec, machine.backend(pool), partial(_limit_helpers, machine.helper), floors)
