"""Limits, measured: fio in a pod's cgroup against the kernel's own count."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.kernel import gauge
from tests.kernel.holding import (
    FILLED,
    LARGE,
    LARGE_WRITES,
    MIB,
    OFF,
    SMALL,
    SMALL_WRITES,
    filled,
    hold,
    two_pods_share,
)
from tests.kernel.pod import SLICE, Load, Pod
from tests.leftovers import Leftovers
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.node import Node
    from tests.kernel.volume import Volume

pytestmark = [pytest.mark.kernel, pytest.mark.quiet]


@pytest.fixture(scope="module")
def mounted(machine: Node) -> Volume:
    """Give a published ext4 with a file to overwrite."""
    return filled(machine.create("mounted", 2 * FILLED, tier="training"))


@pytest.fixture(scope="module")
def raw(machine: Node) -> Volume:
    """Give a published raw block volume that is allocated."""
    return filled(machine.create("raw", FILLED, tier="training", block=True))


@pytest.fixture(autouse=True)
def _no_pod_is_left() -> Iterator[None]:
    before = Leftovers.now("cgroup ")
    yield

    assert Leftovers.now("cgroup ").since(before) == []


@pytest.mark.parametrize(
    ("key", "limit", "load"),
    pick(
        [("riops", 500, SMALL), ("wbps", 8 * MIB, SMALL_WRITES)],
        [
            ("riops", 500, SMALL),
            ("wiops", 300, SMALL_WRITES),
            ("rbps", 8 * MIB, SMALL),
            ("wbps", 8 * MIB, SMALL_WRITES),
        ],
    ),
)
def test_a_limit_holds_for_small_requests_to_a_file(mounted: Volume, key: str, limit: int, load: Load) -> None:
    """4 KiB, direct, deep enough to keep the throttle busy: within 2 %."""
    hold(mounted, key, limit, load, 0.02)


@pytest.mark.parametrize(
    ("key", "limit", "load"),
    pick(
        [("wiops", 20, LARGE_WRITES)],
        [
            ("rbps", 8 * MIB, LARGE),
            ("wbps", 8 * MIB, LARGE_WRITES),
            ("riops", 20, LARGE),
            ("wiops", 20, LARGE_WRITES),
        ],
    ),
)
def test_a_limit_holds_for_large_requests_to_a_device(raw: Volume, key: str, limit: int, load: Load) -> None:
    """1 MiB within 2 %, and one request counts once: a device that splits them would let through a part of 20."""
    hold(raw, key, limit, load, 0.02)


def test_two_pods_on_one_volume_share_one_limit(mounted: Volume) -> None:
    """300 in sum, within 3 %, and none of the two goes without."""
    two_pods_share(mounted, 300)


@pytest.mark.parametrize(("old", "new"), pick([(600, 150)], [(300, 600), (600, 150)]))
def test_a_limit_that_is_modified_under_load_is_in_force_within_two_seconds(
    mounted: Volume, old: int, new: int
) -> None:
    """The call's own time is in the two seconds, and no I/O fails."""
    mounted.modify(**OFF | {"readIOPS": str(old)})
    with Pod("a") as pod:
        load = pod.fio(SMALL, mounted.file)
        gauge.settle()
        gauge.rate_of(mounted.number, "riops", old, 0.02)
        began = time.monotonic()
        mounted.modify(readIOPS=str(new))
        took = time.monotonic() - began
        time.sleep(max(0.0, began + 2 - time.monotonic()))
        gauge.rate_of(mounted.number, "riops", new, 0.02)
        load.end()

    assert took < 2


def test_a_modification_changes_only_the_keys_that_it_names(mounted: Volume) -> None:
    """All four stand in one line, which is rewritten as a whole."""
    mounted.modify(readIOPS="500", writeIOPS="300", readBPS="8Mi", writeBPS="16Mi")
    mounted.modify(writeIOPS="max")

    line = gauge.limit_line(mounted.number, SLICE)
    assert line == f"rbps={8 * MIB} wbps={16 * MIB} riops=500 wiops=max"
