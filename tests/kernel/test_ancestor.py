"""An ancestor that the operator named: what happens when it has no io controller, or loses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from qos.cgroup import MOUNTPOINT
from tests.kernel import gauge
from tests.kernel.node import Node, refusal
from tests.leftovers import Leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

REPAIR_SECONDS = 6.0
LINE = "rbps=max wbps=max riops=300 wiops=200"


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """Give a cgroup two levels down, so that io can be taken from it alone."""
    above = MOUNTPOINT / "sluice-test"
    ancestor = above / "pods"
    ancestor.mkdir(parents=True)
    yield ancestor
    ancestor.rmdir()
    above.rmdir()


def test_io_taken_away_above_the_ancestor_is_back_in_six_seconds_with_all_limits(elsewhere: Path) -> None:
    """`-io` in a parent's subtree_control removes every line without a word; its return is counted."""
    with Node(f"--ancestor={elsewhere}") as node:
        number = node.create("data", readIOPS="300", writeIOPS="200").up().number
        (elsewhere.parent / "cgroup.subtree_control").write_text("-io")
        gone = (elsewhere / "io.max").exists()
        gauge.until("the limit is back", REPAIR_SECONDS, number, LINE, elsewhere)
        repaired, log = node.metric("sluice_limits_repaired_total"), node.log.read_text()

    assert (gone, repaired) == (False, 1)
    assert f"io is missing from {elsewhere}" in log


def test_a_volume_that_must_be_limited_waits_for_an_ancestor_that_can_limit_it(elsewhere: Path) -> None:
    """A threaded cgroup has no io.max. As soon as the ancestor is one that has, the same server stages."""
    (elsewhere / "cgroup.type").write_text("threaded")
    with Node(f"--ancestor={elsewhere}") as node:
        volume = node.create("data", tier="inference")
        before = Leftovers.now()
        code, said = refusal(volume.stage)
        left = Leftovers.now().since(before)
        elsewhere.rmdir()
        elsewhere.mkdir()
        volume.up()
        line = gauge.limit_line(volume.number, elsewhere)

    assert (code, left) == (grpc.StatusCode.UNAVAILABLE, [])
    assert "must not run without its limits" in said
    assert "riops=" in line
