"""Kill points on a thin pool: a server killed by SIGKILL at its effects, also inside LVM's commands, and these too."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.backends.lvmgroup import dm_name
from tests.kernel.images import features
from tests.kernel.node import run
from tests.kernel.thin_node import ThinNode
from tests.kernel.volume import Volume
from tests.killpoints.below import Logical
from tests.killpoints.drill import THREE_WAYS, Drill, Way
from tests.killpoints.fuse import Point
from tests.killpoints.killable import Killable
from tests.killpoints.operations import OPERATIONS, put_away, written
from tests.killpoints.orphans import orphaned, restart_beside
from tests.killpoints.outcomes import CUT, VOLUME, VOLUMES, is_cut, is_gone, is_published_with_data
from tests.killpoints.served import Served
from tests.leftovers import Leftovers
from tests.thinpool import lvm
from tests.torture import TORTURE, pick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.killpoints.operations import Operation

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(pick(300, 7200))]

SEED = pick(4, random.SystemRandom().randrange(1 << 32))
CUTS = 40
BY_NAME = {operation.name: operation for operation in OPERATIONS}
GUESS = 15
"""How many effects a clone has, about."""
SAMPLED = pick(("clone from volume",), tuple(BY_NAME))
COMMANDS = {
    "create": "lvcreate",
    "delete": "lvremove",
    "snapshot": "lvcreate",
    "clone from snapshot": "lvcreate",
    "expand": "lvextend",
}
"""The operations that run a command of LVM's, and which."""


class KillableThinNode(Killable, ThinNode):
    """A server of a thin pool, with limits in force, that can be killed at any effect."""


@pytest.fixture(scope="module")
def stand() -> Iterator[Served]:
    """Give a stand on a node of its own, and see that nothing of it is left, and that its pool is sound."""
    before = Leftovers.now()
    with KillableThinNode() as node:
        on = Served(node, enforced=True, below=Logical(node.thin))
        ids = {name: on.volume_id(name) for name in VOLUMES}
        # So that the node takes them down when a test fails.
        node.volumes = [Volume(node, name, ids[name], block=False, fs_type="ext4") for name in ids]
        try:
            yield on
        finally:
            on.close()
        node.take_down()
        node.stop()
        node.thin.check()

    assert Leftovers.now().since(before) == []


@pytest.fixture(scope="module")
def drill(stand: Served) -> Drill:
    """Give a drill on the stand."""
    return Drill(stand, SEED, pick(THREE_WAYS, tuple(Way)))


@pytest.mark.parametrize("operation", [BY_NAME[name] for name in pick(("snapshot",), tuple(COMMANDS))], ids=str)
def test_a_server_killed_inside_a_command_of_lvm_loses_and_leaves_nothing(drill: Drill, operation: Operation) -> None:
    """The command goes on, and the next server waits for it: exactly one logical volume or none, and the right data."""
    ways = pick((random.Random(f"{SEED} {operation}").choice(THREE_WAYS),), THREE_WAYS)  # noqa: S311 - to be repeated
    point = Point(0, "inside", f"run lvm {COMMANDS[operation.name]}")
    died = [drill.once(operation, point, way) for way in ways]

    assert all(died)


def test_an_lvcreate_that_outlives_its_server_makes_nothing_that_was_deleted(stand: Served) -> None:
    """It has got nowhere when the next server starts; that waits, so a deletion finds what there is to delete."""
    lvcreate = orphaned(stand, lambda: stand.create(VOLUME), "lvm lvcreate")
    waited = restart_beside(stand, lvcreate, lambda: stand.patiently(lambda: stand.delete(VOLUME)))
    stand.settle()

    is_gone(stand)
    assert waited


@pytest.mark.parametrize("operation", [BY_NAME[name] for name in SAMPLED], ids=str)
def test_an_operation_killed_at_any_effect_loses_and_leaves_nothing(
    drill: Drill, operation: Operation, record_property: Callable[[str, object], None]
) -> None:
    """Devices, limits, mounts and data are as the records want them, however it goes on."""
    tally = drill.some(operation, CUTS) if TORTURE else drill.one(operation, GUESS)
    record_property("seed", SEED)
    record_property("cuts", tally.cuts)

    assert tally.cuts >= pick(1, min(CUTS, tally.effects) // 2)


@pytest.mark.torture
@pytest.mark.parametrize("operation", [BY_NAME[name] for name in COMMANDS], ids=str)
def test_what_ends_with_its_server_in_a_command_of_lvm_loses_and_leaves_nothing(
    stand: Served, drill: Drill, operation: Operation
) -> None:
    """As when a container is ended: what the command left half made is looked up, and nothing stays suspended."""
    point = Point(0, "inside", f"run lvm {COMMANDS[operation.name]}")
    with stand.orphans_dying(random.Random(f"{SEED} {operation}")):  # noqa: S311 - to be repeated
        died = [drill.once(operation, point, Way.RETRY) for _ in range(20)]

    assert all(died)


def test_what_a_killed_command_left_suspended_goes_on_with_the_next_server(stand: Served) -> None:
    """The pool and a volume hold back all I/O, as in the middle of a command; a pod's data are there again."""
    written(stand)
    stand.server.stop(signal.SIGKILL)
    for name in (dm_name("fast", f"sluice-{stand.volume_id(VOLUME)}"), "fast-thin-tpool"):
        run("dmsetup", "suspend", "--nolockfs", name)
    before = stand.frozen()
    stand.restart()
    after = stand.frozen()
    is_published_with_data(stand)
    put_away(stand)
    stand.delete(VOLUME)

    assert (len(before), after) == (2, set())


@pytest.mark.torture
def test_a_cut_that_was_made_when_its_volume_had_gone_on_is_made_again(stand: Served) -> None:
    """The command that makes it outlives its server, and so the freeze; the cut that is offered has a clean log."""
    written(stand)
    lvcreate = orphaned(stand, lambda: stand.snapshot(CUT, VOLUME), "lvm lvcreate")
    restart_beside(stand, lvcreate)
    stand.patiently(lambda: stand.snapshot(CUT, VOLUME))
    cut = f"fast/sluice-{stand.snapshot_id(CUT)}"
    lvm("lvchange", "-ay", "-K", cut)
    try:
        seen = features(Path(f"/dev/{cut}"))
    finally:
        lvm("lvchange", "-an", cut)
    is_cut(stand)
    put_away(stand)
    stand.delete(VOLUME)
    stand.delete_snapshot(CUT)

    assert "needs_recovery" not in seen
