"""What workers do to a driver, one call after another, and what must be there after each: known from a seed alone."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from csi_driver.config import Config
from csi_driver.ids import new_id
from csi_driver.records import Snapshot, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MIB = 1 << 20
SIZE, STEP, LARGEST = 8 * MIB, 4 * MIB, 16 * MIB
MOST_VOLUMES, MOST_SNAPSHOTS = 3, 2
SCOPE = Config(node_id="any").scope


class Op(NamedTuple):
    """Hold one call: its verb, the thing that it makes, changes or deletes, what that is made from, and its size."""

    verb: str
    name: str
    source: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Thing:
    """Say what a volume or snapshot must be. `content` names what was written to it, "" for nothing."""

    kind: str
    size: int
    content: str = ""


def id_of(kind: str, name: str) -> str:
    """Return the id that a name has."""
    return new_id(SCOPE, kind, name)


def applied(things: Mapping[str, Thing], op: Op) -> dict[str, Thing]:
    """Return what is there after a call."""
    after = dict(things)
    match op.verb:
        case "create":
            after[op.name] = Thing(Volume.KIND, op.size)
        case "fill":
            after[op.name] = replace(things[op.name], content=op.name)
        case "expand":
            after[op.name] = replace(things[op.name], size=op.size)
        case "cut":
            after[op.name] = replace(things[op.source], kind=Snapshot.KIND)
        case "restore":
            after[op.name] = replace(things[op.source], kind=Volume.KIND)
        case "delete":
            del after[op.name]
        case verb:
            raise ValueError(verb)
    return after


def plan(seed: str) -> Iterator[Op]:
    """Yield the calls of one worker, without end. Its things have names that begin with its seed."""
    choice = random.Random(seed)  # noqa: S311 - to be repeated, not secret
    things: dict[str, Thing] = {}
    for number in itertools.count():
        op = choice.choice(_possible(things, f"{seed}-{number}"))
        things = applied(things, op)
        yield op


def around(seed: str, done: int) -> tuple[dict[str, Thing], dict[str, Thing], Op]:
    """Return what is there after so many calls and after one more, and that call."""
    ops = list(itertools.islice(plan(seed), done + 1))
    before: dict[str, Thing] = {}
    for op in ops[:-1]:
        before = applied(before, op)
    return before, applied(before, ops[-1]), ops[-1]


def _possible(things: Mapping[str, Thing], new: str) -> list[Op]:
    volumes = {name: thing for name, thing in things.items() if thing.kind == Volume.KIND}
    snapshots = things.keys() - volumes.keys()
    ops = [Op("create", new, size=SIZE)] * (len(volumes) < MOST_VOLUMES)
    for name, volume in sorted(volumes.items()):
        ops += [Op("delete", name)]
        ops += [Op("fill", name)] * (not volume.content)
        ops += [Op("expand", name, size=volume.size + STEP)] * (volume.size < LARGEST)
        ops += [Op("cut", new, name)] * (len(snapshots) < MOST_SNAPSHOTS)
    for name in sorted(snapshots):
        ops += [Op("delete", name)]
        ops += [Op("restore", new, name)] * (len(volumes) < MOST_VOLUMES)
    return ops
