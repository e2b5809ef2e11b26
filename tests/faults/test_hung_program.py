"""A program that hangs: the call ends by its deadline, others never notice, and the next try finds its way."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from csi_driver.deadline import Deadline, wait_for
from tests.faults.rig import Launched, create, is_ready, meanwhile, refusal, stage

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.native

SECONDS = 2.0
HANGS = 'if [ -e "$0.hangs" ]; then touch "$0.began"; {before}exec sleep 1000; fi; exec {program} "$@"'


@pytest.fixture(params=["", '{program} "$@"; '], ids=["before its work", "after its work"])
def server(request: pytest.FixtureRequest) -> Iterator[Launched]:
    """Give a server whose mkfs.ext4 hangs while a file says so, before or after it has done its work."""
    launched = Launched()
    program = shutil.which("mkfs.ext4")
    launched.program("mkfs.ext4", HANGS.format(before=request.param.format(program=program), program=program))
    with launched:
        yield launched


def test_a_stage_whose_mkfs_hangs_ends_by_its_deadline_and_is_done_by_the_next(server: Launched) -> None:
    """Meanwhile others are staged, a second call is told to wait; then nothing of it is left, no zombie either."""
    other, volume = create(server, "other").up(), create(server, "data")
    hangs, began = server.programs / "mkfs.ext4.hangs", server.programs / "mkfs.ext4.began"
    hangs.touch()

    started = time.monotonic()
    staging = meanwhile(lambda: refusal(lambda: stage(volume, SECONDS)))
    wait_for("mkfs hangs", began.exists, Deadline(SECONDS))
    other.down()
    other.up()
    second, _ = refusal(lambda: stage(volume, SECONDS))
    ready, still_at_it = is_ready(server), not staging.done()
    code, said = staging.result()
    took = time.monotonic() - started
    children = psutil.Process(server.pid).children(recursive=True)
    hangs.unlink()

    assert (ready, still_at_it, second) == (True, True, grpc.StatusCode.ABORTED)
    assert (code, took < SECONDS) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
    assert "mkfs.ext4 did not end in " in said
    assert children == []
    volume.up()
    volume.fill(4 << 20)
    for each in (volume, other):
        each.down()
        each.delete()
