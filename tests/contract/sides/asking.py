"""What tests ask of a controller, and how long they wait for it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from csi_driver.backends.sim import SimBackend
from csi_driver.controller.requests import SizeRange, VolumeRequest
from csi_driver.deadline import Deadline
from csi_driver.records import GIB
from tests.fakes.world import World, agent_side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.controller.groups import Found
    from csi_driver.store.base import Store

OfPool = TypeVar("OfPool", bound=SimBackend)


def soon() -> Deadline:
    return Deadline(10.0)


def ask(name: str, size: int = GIB, **more: object) -> VolumeRequest:
    return VolumeRequest(name=name, size=SizeRange(size), **more)  # type: ignore[arg-type]


def images(world: World) -> int:
    return sum(len(disk.images) for disk in world.disks.values())


def volumes(world: World, *names: str, node: str = "n1") -> list[str]:
    """Make volumes on a node, and return their ids."""
    return [world.controller.volumes.create(ask(name, nodes=frozenset({node})), soon()).id for name in names]


def cut(world: World, volume_ids: list[str], name: str = "g") -> Found:
    """Make a group."""
    return world.controller.groups.create(name, volume_ids, {}, soon())


def opened(world: World) -> SimBackend:
    """Return a door to what stands in the first node's pool."""
    backend = SimBackend(world.disks["n1"])
    backend.open("")
    return backend


def left(world: World) -> int:
    """Return what the first node's pool can still promise, in GiB."""
    return world.agents["n1"].pool().ledger.left() // GIB


@contextlib.contextmanager
def with_pool(store: Store, kind: type[SimBackend]) -> Iterator[World]:
    """Give a world of one node whose pool is of a test's own kind."""
    made = World(store, ("n1",), total=100 * GIB)
    made.stop_agent("n1")
    made.agents["n1"] = agent_side(store, "n1", kind(made.disks["n1"]))
    yield made
    made.close()


def pool_of(world: World, kind: type[OfPool]) -> OfPool:
    """Return the first node's pool, which is of that kind."""
    backend = world.agents["n1"].pool().backend
    assert isinstance(backend, kind)
    return backend
