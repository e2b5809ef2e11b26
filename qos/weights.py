"""Weights that give every pod its floor's share of a disk, at each level of the tree of cgroups. Pure.

A weight counts among siblings only, so each level from the root down to the pods needs one. Kernel interface: io.weight
in Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qos.iocost import WHOLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

LEAST: Final = 1
MOST: Final = 10_000
"""The kernel's bounds of a weight."""
BESIDE: Final = 0.1
"""What the pods leave to everything beside them on the machine, together, when all want all of the disk."""


@dataclass(frozen=True, slots=True)
class Group:
    """Hold a cgroup whose weight counts. A `branch` only holds others, such as a QoS slice; what doesn't is a pod."""

    path: Path
    branch: bool = False
    children: tuple[Group, ...] = ()

    def pods(self) -> Iterator[Group]:
        """Yield the pods in it, itself where it is one."""
        if self.branch:
            for child in self.children:
                yield from child.pods()
        else:
            yield self


@dataclass(frozen=True, slots=True)
class Level:
    """Hold a cgroup on the way from the root to the pods' ancestor, that one included, and those beside it."""

    path: Path
    beside: tuple[Path, ...] = ()


def weights(above: Sequence[Level], ancestor: Group, shares: Mapping[Path, int]) -> dict[Path, int]:
    """Return the weight of each cgroup on one disk, that of the ancestor's own level included.

    `shares` are millionths of the disk that pods were promised. Pods without one divide equally what is left. Where all
    of them add up to more than the pods have together, the shares shrink in proportion.
    """
    found: dict[Path, int] = {}
    pods_have = 1.0
    for level in above:
        # At the root all others have a tenth together; further down, where nothing else is to be, next to nothing.
        each = _others(len(level.beside)) if level is above[0] else LEAST
        found |= dict.fromkeys(level.beside, each)
        found[level.path] = MOST
        pods_have *= MOST / (MOST + each * len(level.beside))
    found |= _below(ancestor, _pods(ancestor, shares, pods_have))
    return found


def _others(count: int) -> int:
    """Return the weight of each of so many cgroups that stand beside the pods."""
    return max(LEAST, int(MOST * BESIDE / (1 - BESIDE)) // max(1, count))


def _pods(ancestor: Group, shares: Mapping[Path, int], pods_have: float) -> dict[Path, int]:
    """Return the pods' weights, which add up to no more than a branch above them can have, empty ones' least included.

    A share is a part of that most, so that it is attained whatever the sum comes to.
    """
    pods = [pod.path for pod in ancestor.pods()]
    wanted = {path: shares[path] / WHOLE / pods_have for path in pods if shares.get(path)}
    rest = len(pods) - len(wanted)
    most = MOST - LEAST * _empty(ancestor)
    # One for each pod: of its rounding up, or of the least that it must have.
    room = most - len(pods)
    shrunk = min(1.0, room / (MOST * sum(wanted.values()))) if wanted else 1.0
    given = {path: max(LEAST, int(MOST * part * shrunk) + 1) for path, part in wanted.items()}
    each = max(LEAST, (most - sum(given.values())) // rest) if rest else 0
    return {path: min(MOST, given.get(path, each)) for path in pods}


def _empty(branch: Group) -> int:
    """Return how many branches below hold no pod."""
    inner = [child for child in branch.children if child.branch]
    return sum(_empty(child) + (next(child.pods(), None) is None) for child in inner)


def _below(branch: Group, pods: Mapping[Path, int]) -> dict[Path, int]:
    """Return the weights of all cgroups below a branch: a pod's own, and of another branch the sum of its pods."""
    found: dict[Path, int] = {}
    for child in branch.children:
        found[child.path] = max(LEAST, min(MOST, sum(pods[pod.path] for pod in child.pods())))
        if child.branch:
            found |= _below(child, pods)
    return found
