"""What `sluice pool` does: what was asked for and the disks are checked, then come the steps."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csi_driver.cli import show
from csi_driver.config import POOLS_FILE, Config, PoolConfig
from csi_driver.errors import Conflict, Invalid, NoSpace, NotFound
from csi_driver.host import block, thinsize
from csi_driver.host.signatures import UNKNOWN
from csi_driver.host.soundness import flaws
from csi_driver.host.standing import check_free
from csi_driver.host.statelock import pools_lock
from csi_driver.host.thinpool import ThinPools
from csi_driver.host.thinsize import Sizes
from qos.quantity import BadQuantity, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from csi_driver.assemble import Machine
    from csi_driver.host.thinpool import NewPool, ThinPool

QUIET_SECONDS = 2.0
LEAST_AREA = 1 << 20


@dataclass(frozen=True, slots=True)
class More:
    """Say by what a pool is to grow: disks, bytes of data, bytes of metadata. `area` is a new disk's metadata area."""

    devices: tuple[Path, ...]
    data: int
    metadata: int
    area: int


def pool_config(settings: Config, given: Mapping[str, Any]) -> PoolConfig:
    """Check a new pool's name and place against those that there are. Raises Invalid, Conflict."""
    if given["backend"] != "lvm":
        raise Invalid(f"backend: {given['backend']!r} is not made here: give the pool to `sluice serve` by --pool")
    pool = PoolConfig.of(given)
    for other in settings.pools:
        if pool.name == other.name or pool.path == other.path:
            raise Conflict(
                f"name: pool {other.name} is there already, at {other.path}; it is in the file that --config names, or "
                f"in {settings.state / POOLS_FILE}"
            )
    return pool


def named(settings: Config, name: str) -> PoolConfig:
    """Return a pool of this node by its name. Raises NotFound, Invalid for one that isn't LVM's."""
    pool = next((pool for pool in settings.pools if pool.name == name), None)
    if pool is None:
        known = ", ".join(pool.name for pool in settings.pools) or "none"
        raise NotFound(f"there is no pool {name!r}; there are: {known}. Give --state, --config or --pool as for serve")
    if pool.backend != "lvm":
        raise Invalid(f"pool {name} is a folder: make the file system larger that {pool.path} is on")
    return pool


def disks(paths: Sequence[Path] | None) -> tuple[Path, ...]:
    """Return devices by their own names, each once: two links may lead to one."""
    return tuple(dict.fromkeys(path.resolve() for path in paths or ()))


def size(option: str, text: str) -> int:
    """Return the bytes that an option says, 0 for "". Raises Invalid naming it."""
    try:
        return parse_bytes(text) if text else 0
    except BadQuantity as error:
        raise Invalid(f"{option}: {error}") from error


def more(option: str, text: str) -> int:
    """Return the bytes that an option adds, 0 for "". Raises Invalid."""
    if text and not text.startswith("+"):
        raise Invalid(f"{option}: {text!r} must say how much more: +{text}")
    return size(option, text.removeprefix("+"))


def chunk_size(text: str) -> int:
    """Return the bytes of a chunk. Raises Invalid for what the kernel doesn't take."""
    chunk = size("chunk", text)
    if not chunk or chunk % thinsize.CHUNK_STEP or chunk > thinsize.LARGEST_CHUNK:
        raise Invalid(f"chunk: {text!r} must be a multiple of 64Ki, at most 1Gi")
    return chunk


def part(option: str, percent: float) -> float:
    """Return percents as a part of one. Raises Invalid."""
    if not 0 <= percent <= 90:  # noqa: PLR2004 - a pool of less than a tenth is surely a slip
        raise Invalid(f"{option}: {percent:g} is not between 0 and 90 percent")
    return percent / 100


def check_devices(devices: Sequence[Path], machine: Machine, pools: ThinPools, *, wiped: bool) -> None:
    """Raise Conflict, InUse or Invalid unless all are empty, saying what is on the one that isn't."""
    for path in devices:
        device = block.device_at(path)
        check_free(device)
        kind = machine.filesystems.kind(path)
        if kind is None or (wiped and kind == UNKNOWN):
            continue
        if kind == UNKNOWN:
            raise Conflict(
                f"device {path} has no signature, but is not empty either: if nobody needs what is there, say --wiped"
            )
        group = next(iter(pools.groups([path]).values()), "") if kind == "LVM" else ""
        what = f"a physical volume of group {group}" if group else kind
        raise Conflict(f"device {path} holds {what}: if nobody needs it, wipefs --all {path}, and say --wiped then")


def make(plan: NewPool, machine: Machine, *, wiped: bool) -> ThinPool:
    """Make a pool. Raises what `check_devices` and `ThinPools.make` raise, Invalid for more stripes than disks."""
    if not 1 <= plan.stripes <= len(plan.devices):
        raise Invalid(f"stripes: {plan.stripes} is not between 1 and the number of disks, {len(plan.devices)}")
    if plan.area < LEAST_AREA:
        raise Invalid(f"metadatasize: {plan.area} bytes are less than 1Mi")
    pools = ThinPools(machine.lvm)
    check_devices(plan.devices, machine, pools, wiped=wiped)
    return pools.make(plan, told)


def take_over(pool: PoolConfig, machine: Machine, *, fix: bool) -> ThinPool:
    """Return a pool that exists; with `fix` the flaws that a command mends at no risk are mended."""
    pools = ThinPools(machine.lvm)
    found = pools.look(*pool.path.parts)
    if fix:
        for flaw in flaws(found):
            if flaw.command:
                with told(" ".join(flaw.command)):
                    pools.mend(found, flaw.command)
        found = pools.look(*pool.path.parts)
    return found


def extend(wanted: PoolConfig, by: More, machine: Machine, *, wiped: bool) -> tuple[ThinPool, ThinPool]:
    """Make a pool larger; return what it was and what it is. Raises Invalid when nothing is asked for, NoSpace."""
    if not (by.devices or by.data or by.metadata):
        raise Invalid("pool extend: give --device DEVICE, --size +SIZE or --metadata +SIZE")
    pools = ThinPools(machine.lvm)
    before = now = pools.look(*wanted.path.parts)
    if by.devices:
        check_devices(by.devices, machine, pools, wiped=wiped)
        now = pools.add(before, by.devices, by.area, told)
    return before, pools.extend(now, larger(now, by, now.group_size - before.group_size), told)


def larger(pool: ThinPool, by: More, brought: int = 0) -> Sizes:
    """Return what sizes a pool is to have; new disks have brought its group so many bytes.

    What was free before stays free unless it is asked for: it may be meant for thick volumes. Raises NoSpace when the
    group has not so much free. Pure.
    """
    sizes = Sizes(pool.size, pool.metadata + _whole(by.metadata, pool.extent))
    free = pool.free - 2 * (sizes.metadata - pool.metadata)
    if by.data:
        grown = pool.size + _whole(by.data, pool.extent)
        metadata = max(sizes.metadata, thinsize.metadata_for(grown, pool.chunk, pool.extent))
        needed = grown - pool.size + 2 * (metadata - sizes.metadata)
        _check_room(pool, needed, free)
        return Sizes(grown, metadata)
    _check_room(pool, 0, free)
    if by.devices and not by.metadata:
        room = min(free, int(brought * (1 - thinsize.RESERVE)))
        return thinsize.grown(sizes, room, pool.chunk, pool.extent)
    return sizes


def _check_room(pool: ThinPool, needed: int, free: int) -> None:
    if needed > free:
        from_now = pool.free + needed - free
        raise NoSpace(
            f"volume group {pool.vg} has {show.human(pool.free)} free, this takes {show.human(from_now)} with the "
            "metadata and their spare: ask for less, or add a disk by --device"
        )


def _whole(bytes_more: int, extent: int) -> int:
    return -(-bytes_more // extent) * extent


@contextlib.contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Make one pool at a time: two at once would each write the pools that it knows, and take one name."""
    with contextlib.ExitStack() as at_end:
        with told("waiting for another sluice pool create"):
            at_end.enter_context(pools_lock(state))
        yield


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Say on standard error what is being done, when it takes longer than two seconds."""
    later = threading.Timer(QUIET_SECONDS, lambda: show.console(stderr=True).print(f"{what} ...", markup=False))
    later.daemon = True
    later.start()
    try:
        yield
    finally:
        later.cancel()
