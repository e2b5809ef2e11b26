"""Which pool takes a volume. Pure: pools in, an order out. The pool's own agent has the last word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_driver.disks import lacking
from csi_driver.errors import NoSpace, quoted
from csi_driver.guard import Level
from qos.iocost import NO_FLOOR, Floor
from qos.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csi_driver.records import Pool

ASKED_WHEN_FULL = 3


@dataclass(frozen=True, slots=True)
class Wish:
    """Say where a volume may go, and whether it is thick. Empty means anywhere; `preferred` nodes come first."""

    size: int = 0
    floor: Floor = NO_FLOOR
    pool_name: str = ""
    pool_id: str = ""
    nodes: frozenset[str] = frozenset()
    preferred: tuple[str, ...] = ()
    thick: bool = False


def suits(pool: Pool, wish: Wish) -> str:
    """Return why a pool can't take such a volume, "" when it can."""
    spec, status = pool.spec, pool.status
    if wish.pool_id and pool.id != wish.pool_id:
        return "it doesn't hold the source"
    if wish.pool_name and spec.name != wish.pool_name:
        return f"the class asks for pool {quoted(wish.pool_name)}"
    if wish.nodes and spec.node not in wish.nodes:
        return f"node {spec.node} is not in the topology asked for"
    return "" if status.guard == Level.WARNING.label else status.abnormal


def left(pool: Pool, wish: Wish) -> int:
    """Return the bytes that a pool still has for such a volume, none where its disks can't give the floor."""
    if lacking(pool.status.disks, wish.floor):
        return 0
    return pool.status.left_thick if wish.thick else pool.status.left


def order(pools: Sequence[Pool], wish: Wish) -> list[Pool]:
    """Return the pools to offer a volume to: preferred nodes first, then the emptiest.

    What is left is a hint and may be old: where no pool seems to have room, the emptiest few are asked all the same.
    Raises NoSpace with each pool's reason when none suits.
    """
    reasons = {pool.id: suits(pool, wish) for pool in pools}
    suiting = [pool for pool in pools if not reasons[pool.id]]
    if not suiting:
        said = "; ".join(f"{pool.spec.name} on {pool.spec.node}: {reasons[pool.id]}" for pool in pools)
        raise NoSpace(f"no pool for {format_bytes(wish.size)}: {said or 'there is none yet; start a node with --pool'}")
    rank = {node: place for place, node in enumerate(wish.preferred)}
    roomy = [pool for pool in suiting if left(pool, wish) >= wish.size]
    if roomy:
        return sorted(roomy, key=lambda pool: (rank.get(pool.spec.node, len(rank)), -left(pool, wish), pool.id))
    return sorted(suiting, key=lambda pool: -left(pool, wish))[:ASKED_WHEN_FULL]
