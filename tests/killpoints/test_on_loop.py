"""Kill points on this machine's kernel: a real server, killed by SIGKILL at its effects, on loop devices and SQLite."""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.host import loopinfo
from tests.killpoints.calls import GOES_ON
from tests.killpoints.drill import THREE_WAYS, Drill, Tally, Way
from tests.killpoints.fuse import Point
from tests.killpoints.killable import Killable
from tests.killpoints.operations import OPERATIONS
from tests.killpoints.orphans import orphaned, restart_beside
from tests.killpoints.outcomes import MORE, RAW, VOLUME, is_staged, usable
from tests.killpoints.served import Served
from tests.torture import TORTURE, pick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.killpoints.operations import Operation

pytestmark = pytest.mark.native

SEED = pick(4, random.SystemRandom().randrange(1 << 32))
ANYWHEN = 30
NOT_HERE = {("expand", "ext4"), ("expand", RAW), ("group snapshot", RAW), ("delete group snapshot", RAW)}
"""Only who has CAP_SYS_RESOURCE may grow an ext4, which root in a container may not have. A bare device has nothing
that the node could grow, and without device-mapper nothing holds it still together with others."""
CHOSEN = [
    (operation, fs_type)
    for operation in OPERATIONS
    for fs_type in pick(("ext4",), ("ext4", "xfs", RAW))
    if (operation.name == "snapshot" or TORTURE) and (operation.name, fs_type) not in NOT_HERE
]


@pytest.fixture
def server() -> Iterator[Killable]:
    """Give a server with limits off: this machine's kernel may not have them."""
    with Killable() as running:
        yield running


@pytest.mark.timeout(pick(120, 3600))
@pytest.mark.parametrize(("operation", "fs_type"), CHOSEN, ids=str)
def test_an_operation_killed_at_any_effect_loses_and_leaves_nothing(
    server: Killable, operation: Operation, fs_type: str, record_property: Callable[[str, object], None]
) -> None:
    """Whether it is asked again, not at all, or for the opposite: exactly one object or none, and the right data."""
    with contextlib.closing(Served(server, enforced=False, fs_type=fs_type)) as on:
        drill = Drill(on, SEED, pick(THREE_WAYS, tuple(Way)))
        tally = drill.all(operation) if TORTURE else drill.some(operation)
        anywhen = drill.anywhen(operation, ANYWHEN) if TORTURE else Tally()
    record_property("seed", SEED)
    record_property("effects", tally.effects)
    record_property("cuts", tally.cuts)
    record_property("cuts at any time", anywhen.cuts)

    assert tally.effects >= 2
    assert tally.cuts >= 2 * tally.effects


@pytest.mark.parametrize("name", ["create", "delete"])
def test_what_a_killed_life_did_to_names_is_durable_before_records_follow(server: Killable, name: str) -> None:
    """Else a power cut right after would bring the old name back, behind a record that knows nothing of it."""
    operation = next(operation for operation in OPERATIONS if operation.name == name)
    with contextlib.closing(Served(server, enforced=False)) as on:
        flush = f"fsync_dir {server.pool / 'pool/images'}"
        at = Drill(on, SEED).count(operation).index(flush) + 1
        operation.before(on)
        died = on.cut(lambda: operation.call(on), Point(at, "before")).died
        server.arm(None)
        on.restart()
        on.patiently(lambda: operation.call(on))
        effects = [effect for _, when, effect in server.effects() if when == "after"]
        server.disarm()
        operation.done(on)
        on.patiently(lambda: on.delete(VOLUME))
    follows = next(number for number, effect in enumerate(effects) if effect.startswith(("put status", "remove")))

    assert died
    assert flush in effects[:follows]


def test_a_mkfs_that_outlives_its_server_is_waited_for(server: Killable) -> None:
    """It was started and got no further; before it has ended nothing is served, so it can destroy nothing."""
    with contextlib.closing(Served(server, enforced=False)) as on:
        on.create(VOLUME)
        mkfs = orphaned(on, lambda: on.stage(VOLUME), "mkfs.ext4")
        waited = restart_beside(on, mkfs)
        on.stage(VOLUME)
        is_staged(on)
        on.unstage(VOLUME)
        usable(on, VOLUME, MORE)
        on.delete(VOLUME)

    assert waited


def test_no_mkfs_joins_another(server: Killable) -> None:
    """While one of a life that was killed holds the device, as mkfs does, the stage is refused for now."""
    with contextlib.closing(Served(server, enforced=False)) as on:
        on.create(VOLUME)
        died = on.cut(lambda: on.stage(VOLUME), Point(0, "before", "run mkfs.ext4")).died
        image = server.pool / f"pool/images/{on.volume_id(VOLUME)}.img"
        device = next(name for name, behind in loopinfo.bound() if behind == image)
        fd = os.open(f"/dev/{device}", os.O_RDWR | os.O_EXCL)
        on.restart()
        try:
            with pytest.raises(grpc.RpcError) as refusal:
                on.stage(VOLUME)
        finally:
            os.close(fd)
        on.patiently(lambda: on.stage(VOLUME))
        is_staged(on)
        on.unstage(VOLUME)
        on.delete(VOLUME)

    assert died
    assert refusal.value.code() in GOES_ON


def first_start(point: Point | None) -> tuple[bool, list[str]]:
    """Start a server where none was, kill it at a point, start it again and use it. Return what it had passed."""
    server = Killable()
    server.arm(point)
    server.begin()
    died = server.ended()
    passed = [name for _, when, name in server.effects() if when == "before"]
    if not died:
        server.stop()
    server.disarm()
    with server, contextlib.closing(Served(server, enforced=False)) as on:
        on.create(VOLUME)
        usable(on, VOLUME, b"")
        on.delete(VOLUME)
        assert len(list(server.pool.iterdir())) == 2, "the pool's image and where it is mounted"
    return died, passed


@pytest.mark.timeout(pick(60, 600))
def test_a_first_start_that_is_killed_at_any_effect_is_finished_by_the_next(
    record_property: Callable[[str, object], None],
) -> None:
    """The pool is made once, is the one of its record, and nothing half made is left beside it."""
    _, effects = first_start(None)
    numbers = list(range(1, len(effects) + 1))
    chosen = random.Random(SEED).sample(numbers, pick(3, len(numbers)))  # noqa: S311 - to be repeatable
    died = [number for number in chosen if first_start(Point(number, "after"))[0]]
    record_property("cuts", len(died))

    assert died == chosen
