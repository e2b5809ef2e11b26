"""Kill points with device-mapper and limits: a server killed by SIGKILL at its effects, below a mounted volume."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.kernel.node import Node
from tests.kernel.volume import Volume
from tests.killpoints.drill import THREE_WAYS, Drill, Way
from tests.killpoints.fuse import Point
from tests.killpoints.killable import Killable
from tests.killpoints.operations import OPERATIONS
from tests.killpoints.outcomes import VOLUMES
from tests.killpoints.served import Served
from tests.leftovers import Leftovers
from tests.torture import TORTURE, pick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.killpoints.fuse import When
    from tests.killpoints.operations import Operation

pytestmark = pytest.mark.kernel

SEED = pick(4, random.SystemRandom().randrange(1 << 32))
CUTS = 6
BY_NAME = {operation.name: operation for operation in OPERATIONS}
GUESS = 14
"""How many effects a stage has, about."""
SAMPLED = pick(("stage",), tuple(BY_NAME))


class KillableNode(Killable, Node):
    """A server with limits in force that can be killed at any effect."""


@pytest.fixture(scope="module")
def drill() -> Iterator[Drill]:
    """Give a drill on a node of its own, and see that nothing of it is left."""
    before = Leftovers.now()
    with KillableNode() as node:
        on = Served(node, enforced=True)
        ids = {name: on.volume_id(name) for name in VOLUMES}
        # So that the node takes them down when a test fails.
        node.volumes = [Volume(node, name, ids[name], block=False, fs_type="ext4") for name in ids]
        try:
            yield Drill(on, SEED, pick(THREE_WAYS, tuple(Way)))
        finally:
            on.close()

    assert Leftovers.now().since(before) == []


@pytest.mark.timeout(pick(300, 7200))
@pytest.mark.parametrize("operation", [BY_NAME[name] for name in SAMPLED], ids=str)
def test_an_operation_killed_at_any_effect_loses_and_leaves_nothing(
    drill: Drill, operation: Operation, record_property: Callable[[str, object], None]
) -> None:
    """Devices, limits, mounts and data are as the records want them, however it goes on."""
    tally = drill.some(operation, CUTS) if TORTURE else drill.one(operation, GUESS)
    record_property("seed", SEED)
    record_property("cuts", tally.cuts)

    assert tally.cuts >= pick(1, min(CUTS, tally.effects) // 2)


@pytest.mark.parametrize("when", pick(("after",), ("before", "after")))
def test_a_server_killed_inside_a_suspend_leaves_nothing_suspended(drill: Drill, when: When) -> None:
    """The dead man resumes the device before a server is there again; limits are in force, and the retry is whole."""
    assert drill.once(BY_NAME["snapshot"], Point(0, when, "FICLONE"), Way.RETRY)
    passed = [name.split(" ")[0] for _, moment, name in drill.passed if moment == "after"]

    assert passed.count("DM_DEV_SUSPEND") == 1
