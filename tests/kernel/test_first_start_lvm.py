"""The first start of a server on a thin pool that exists and isn't active, killed in the middle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.thin_node import ThinNode
from tests.killpoints.fuse import Point
from tests.killpoints.killable import Killable
from tests.leftovers import Leftovers
from tests.thinpool import lvm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernel, pytest.mark.torture]

ACTIVATES = Point(0, "inside", "run lvm lvchange")
POINTS = (ACTIVATES, *(Point(number, "after") for number in range(1, 13)))


class KillableThinNode(Killable, ThinNode):
    """A server of a thin pool that can be killed at any effect."""


@pytest.fixture
def node() -> Iterator[KillableThinNode]:
    """Give a node with a pool as after a boot, on which no server has run yet."""
    before = Leftovers.now()
    made = KillableThinNode()
    made.format()
    made.mount()
    lvm("vgchange", "-an", made.thin.vg)
    try:
        yield made
        made.take_down()
    finally:
        made.stop()
        made.clear()

    assert Leftovers.now().since(before) == []


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_first_start_that_is_killed_is_finished_by_the_next(node: KillableThinNode, point: Point) -> None:
    """The pool is taken for what it is, activated, and serves; nothing in it but the pool's own."""
    node.arm(point)
    node.begin()
    died = node.ended()
    node.disarm()
    if not died:
        node.stop()
    node.start()
    volume = node.up("a")
    (volume.target / "file").write_text("a pod was here")
    volume.down()
    volume.up()

    assert died
    assert (volume.target / "file").read_text() == "a pod was here"
    assert node.images() == [f"sluice-{volume.id}"]
