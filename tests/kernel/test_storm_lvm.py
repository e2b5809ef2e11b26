"""A storm on a thin pool: the same rules as on images, with fewer callers, since the test machine is emulated."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.storm import serial
from tests.storm.programs import Taken
from tests.storm.state import State, records, settle
from tests.storm.storming import Force, check_bounds, record, storm

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.kernel, pytest.mark.torture, pytest.mark.timeout(900)]

FORCE = Force(
    programs=2,
    threads=6,
    seconds=120.0,
    seed=random.SystemRandom().randrange(1 << 32),
)
ANSWER_SECONDS = 15.0
"""Within which Probe and NodeUnpublishVolume answer. Under emulation all else takes ten times as long, too."""

USUAL = {"CreateVolume OK", "DeleteVolume OK", "CreateSnapshot OK", "NodeStageVolume OK", "NodePublishVolume OK"}


def test_a_storm_on_a_thin_pool_leaves_what_callers_in_a_row_would_have(
    record_property: Callable[[str, object], None],
) -> None:
    """Every code is one of the call's, and what is there afterwards is as if nobody had been in a hurry."""
    print(f"seed {FORCE.seed}")  # noqa: T201 - shown when it fails
    before = Leftovers.now()
    with ThinNode() as server:
        start = State.of(server)
        seen = storm(server, FORCE)
        assert seen.wrong == []
        settle(server)
        after, left, where = State.of(server), records(server), serial.published(server)
        serial.take_down(server)
        end, idle = State.of(server), Taken.by(server)
        serial.Serial(server).replay(left, where)
        settle(server)
        expected = State.of(server)
        serial.take_down(server)
        server.stop()
        server.thin.check()

    record(record_property, FORCE, seen, len(left))
    assert set(seen.answers) >= USUAL
    check_bounds(seen, idle, ANSWER_SECONDS)
    assert after == expected
    assert end == start
    assert Leftovers.now().since(before) == []
