"""A hundred callers at the same few volumes: only right answers, nobody waits, nothing grows, and nothing is left."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.serving import Server
from tests.storm import serial
from tests.storm.codes import RIGHT
from tests.storm.programs import Taken
from tests.storm.state import State, records, settle
from tests.storm.storming import Force, check_bounds, record, storm
from tests.torture import TORTURE, pick

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.native, pytest.mark.quiet, pytest.mark.timeout(pick(200, 400))]

FORCE = Force(
    programs=4,
    threads=25,
    seconds=pick(10.0, 60.0),
    seed=random.SystemRandom().randrange(1 << 32) if TORTURE else 4,
)
ANSWER_SECONDS = 1.0
"""Within which Probe and NodeUnpublishVolume answer, whatever goes on."""


def test_a_storm_of_callers_is_answered_at_once_and_leaves_what_callers_in_a_row_would_have(
    record_property: Callable[[str, object], None],
) -> None:
    """Every code is one of the call's; what is there when it is over is as if nobody had been in a hurry."""
    print(f"seed {FORCE.seed}")  # noqa: T201 - shown when it fails
    with Server() as server, Server() as quiet:
        start = State.of(server)
        seen = storm(server, FORCE)
        assert seen.wrong == []
        settle(server)
        after, left, where = State.of(server), records(server), serial.published(server)
        serial.Serial(quiet).replay(left, where)
        expected = State.of(quiet)
        for each in (server, quiet):
            serial.take_down(each)
        end, idle = State.of(server), Taken.by(server)

    record(record_property, FORCE, seen, len(left))
    assert {rpc.partition(" ")[0] for rpc in seen.answers if rpc.endswith(" OK")} == set(RIGHT)
    check_bounds(seen, idle, ANSWER_SECONDS)
    assert after == expected
    assert end == start
