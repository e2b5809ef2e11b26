"""Limits of volumes on a thin pool, measured: thin splits requests at its chunks, and yet each counts once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.kernel import gauge
from tests.kernel.holding import FILLED, LARGE_WRITES, MIB, OFF, SMALL, SMALL_WRITES, filled, hold, two_pods_share
from tests.kernel.pod import Pod
from tests.torture import pick

if TYPE_CHECKING:
    from tests.kernel.pod import Load
    from tests.kernel.thin_node import ThinNode
    from tests.kernel.volume import Volume

pytestmark = [pytest.mark.kernel, pytest.mark.quiet]


@pytest.fixture(scope="module")
def raw(thin_machine: ThinNode) -> Volume:
    """Give a published raw block volume whose chunks are allocated."""
    return filled(thin_machine.create("raw", FILLED, tier="training", block=True))


@pytest.mark.parametrize(
    ("key", "limit", "load"),
    pick(
        [("wiops", 20, LARGE_WRITES)],
        [("wiops", 20, LARGE_WRITES), ("wiops", 300, SMALL_WRITES), ("wbps", 8 * MIB, LARGE_WRITES)],
    ),
)
def test_a_limit_holds_on_a_thin_volume(raw: Volume, key: str, limit: int, load: Load) -> None:
    """Within 2 %: a write of 1 MiB is one, though it lies in 16 chunks."""
    hold(raw, key, limit, load, 0.02)


@pytest.mark.torture
def test_two_pods_on_one_thin_volume_share_one_limit(raw: Volume) -> None:
    """300 in sum, within 3 %, and none of the two goes without."""
    two_pods_share(raw, 300)


def test_a_limit_of_a_thin_volume_is_modified_under_load(raw: Volume) -> None:
    """Two seconds after the call the new one holds, and no I/O failed."""
    raw.modify(**OFF | {"readIOPS": "300"})
    with Pod("a") as pod:
        load = pod.fio(SMALL, raw.file)
        gauge.settle()
        gauge.rate_of(raw.number, "riops", 300, 0.02)
        raw.modify(readIOPS="600")
        time.sleep(2)
        gauge.rate_of(raw.number, "riops", 600, 0.02)
        load.end()
