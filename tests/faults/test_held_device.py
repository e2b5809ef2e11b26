"""Somebody, such as udev's blkid, has a volume's device open when it is to go: a bounded wait, then a clear answer."""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.agent.agent import WORKERS
from tests.faults.rig import create, delete, loop_of, meanwhile, refusal, unstage, until_done
from tests.serving import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.native

SECONDS = 1.5
MORE_THAN_WORKERS = WORKERS + 2


@pytest.fixture
def server() -> Iterator[Server]:
    """Give a server."""
    with Server() as running:
        yield running


@contextlib.contextmanager
def held(*devices: Path) -> Iterator[None]:
    """Have devices open while the body runs."""
    with contextlib.ExitStack() as stack:
        for device in devices:
            stack.callback(os.close, os.open(device, os.O_RDONLY | os.O_NONBLOCK))
        yield


def image(server: Server, volume_id: str) -> Path:
    return server.pool / "pool/images" / f"{volume_id}.img"


def test_a_device_that_is_held_open_is_named_until_it_is_let_go(server: Server) -> None:
    """The unstage ends by its deadline and says which device; the same volume can be used again, and deleted."""
    volume = create(server, "data").up()
    volume.fill(4 << 20)
    data = volume.file.read_bytes()
    device = loop_of(image(server, volume.id))
    volume.unpublish()
    with held(device):
        started = time.monotonic()
        code, said = refusal(lambda: unstage(volume, SECONDS))
        took = time.monotonic() - started
        other = create(server, "other").up()
        other.down()

    assert (code, took < SECONDS) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
    assert f"{device} is free; a program still has it open" in said
    unstage(volume, SECONDS)
    assert volume.up().file.read_bytes() == data
    for each in (volume, other):
        each.down()
        each.delete()


def test_many_devices_that_are_held_open_keep_nobody_else_from_the_agent(server: Server) -> None:
    """More deletions wait for their devices than the agent has workers; others are served all the same."""
    volumes = [create(server, f"data-{number}", block=True) for number in range(MORE_THAN_WORKERS)]
    for volume in volumes:
        volume.stage()
    with held(*(loop_of(image(server, volume.id)) for volume in volumes)):
        unstages = [meanwhile(partial(refusal, partial(unstage, volume, SECONDS))) for volume in volumes]
        assert {future.result()[0] for future in unstages} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        deletes = [meanwhile(partial(refusal, partial(delete, volume, SECONDS))) for volume in volumes]
        codes = {future.result()[0] for future in deletes}
        other = create(server, "other", seconds=10)
        other.delete()

    assert codes <= {grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED}
    for volume in volumes:
        until_done(partial(delete, volume, 10.0), 60.0)
