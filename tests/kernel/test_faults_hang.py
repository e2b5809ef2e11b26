"""A volume that hangs and a clock that jumps: both stay their own affair, and all goes on afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.assemble import DATABASE
from csi_driver.deadline import Deadline, wait_for
from csi_driver.rpc import csi_pb2 as csi
from tests.faults.rig import is_ready, meanwhile, sluice, unstage
from tests.kernel.node import MIB, refusal, run
from tests.kernel.pod import SLICE
from tests.storm import plan
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.node import Node
    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

SOON = 30.0
DAY = 86_400.0
RETRIES = 12
"""More than there are threads for the calls that take things away: none of them may be spent on a volume that hangs."""


@contextlib.contextmanager
def suspended(volume: Volume) -> Iterator[None]:
    """Hold back all I/O to a volume while the body runs."""
    name = f"sluice-{volume.id}"
    run("dmsetup", "suspend", "--noflush", "--nolockfs", name)
    try:
        yield
    finally:
        run("dmsetup", "resume", name)


def hangs(server: Node) -> bool:
    """Return whether a thread of the server sleeps where no signal reaches it."""
    states = (path.read_text() for path in Path(f"/proc/{server.pid}/task").glob("*/stat"))
    return any(state.rpartition(")")[2].split()[0] == "D" for state in states)


def test_a_mount_that_hangs_keeps_nobody_else_waiting(node: Node) -> None:
    """Its unmount waits for its disk; Probe and a whole other life do not, nor do its own retries hold them up."""
    volume = node.up("data")
    volume.file.write_bytes(bytes(range(256)) * 4096)  # not synced: an unmount has something to write
    volume.unpublish()
    with suspended(volume):
        unstaging = meanwhile(volume.unstage)
        wait_for("the unmount hangs", lambda: not volume.staging.is_mount() and hangs(node), Deadline(SOON))
        codes = {refusal(partial(unstage, volume, SOON))[0] for _ in range(RETRIES)}
        ready = is_ready(node)
        other = node.up("other")
        other.fill(4 * MIB)
        other.down()
        other.delete()
        node.listed()
        still = not unstaging.done()
    unstaging.result(SOON)

    assert (ready, still, codes) == (True, True, {grpc.StatusCode.ABORTED})
    assert volume.up().file.read_bytes() == bytes(range(256)) * 4096


@contextlib.contextmanager
def clock() -> Iterator[None]:
    """Put the clock of the wall right afterwards."""
    wall, steady = time.time(), time.monotonic()
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, wall + time.monotonic() - steady)


def jump(seconds: float) -> None:
    """Set the clock of the wall forth or back."""
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)


@pytest.mark.parametrize("seconds", pick([-DAY], [DAY, -DAY]), ids=lambda seconds: "forth" if seconds > 0 else "back")
def test_a_call_that_waits_ends_when_it_was_to_whatever_the_clock_says(node: Node, seconds: float) -> None:
    """Neither at once nor a day later."""
    volume, patience = node.up("data"), 2.5
    volume.unpublish()
    fd = os.open(volume.device, os.O_RDONLY)
    try:
        started = time.monotonic()
        unstaging = meanwhile(partial(refusal, partial(unstage, volume, patience)))
        wait_for("its mount is gone", lambda: not volume.staging.is_mount(), Deadline(SOON))
        with clock():
            jump(seconds)
            code, said = unstaging.result(SOON)
        took = time.monotonic() - started
    finally:
        os.close(fd)

    assert (code, "is open 1 times" in said) == (grpc.StatusCode.FAILED_PRECONDITION, True), said
    assert took > patience / 2


@pytest.mark.torture
def test_lives_go_on_while_the_clock_jumps(node: Node) -> None:
    """No call fails, no node is away, and what is asked with a deadline is answered."""
    ended = threading.Event()

    def jumping() -> None:
        while not ended.wait(0.1):
            jump(DAY)
            jump(-2 * DAY)
            jump(DAY)

    with clock():
        thread = threading.Thread(target=jumping)
        thread.start()
        try:
            for number in range(pick(1, 20)):
                _life_without_deadlines(node, f"data-{number}")
        finally:
            ended.set()
            thread.join()


def _life_without_deadlines(node: Node, name: str) -> None:
    """Live a life whose calls have no deadline: this end's would be reckoned by the clock that jumps."""
    places, client = plan.Places(node.folder / "jumps"), node.client
    places.staging(name).mkdir(parents=True)
    places.target(name, "one").parent.mkdir(parents=True)
    request = csi.CreateVolumeRequest(
        name=name,
        capacity_range=csi.CapacityRange(required_bytes=16 * MIB),
        volume_capabilities=[plan.capability(name)],
    )
    volume_id = client.controller.CreateVolume(request).volume.volume_id
    assert volume_id == plan.volume_id(name)
    client.node.NodeStageVolume(places.stage(name))
    client.node.NodePublishVolume(places.publish(name, "one"))
    (places.target(name, "one") / "file").write_bytes(b"x")
    client.node.NodeUnpublishVolume(places.unpublish(name, "one"))
    client.node.NodeUnstageVolume(places.unstage(name))
    client.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume_id))
    shutil.rmtree(places.folder)


def test_a_volume_that_adopt_brought_back_has_its_limits_and_its_data(node: Node) -> None:
    """The database is gone while the volume is in use, and somebody has even lifted its limits meanwhile."""
    volume = node.create("data", readIOPS="300", writeIOPS="200").up()
    volume.fill(4 * MIB)
    data, line = volume.file.read_bytes(), f"{volume.number} rbps=max wbps=max riops=300 wiops=200"
    node.stop()
    for path in (node.folder / "state").glob(f"{DATABASE}*"):
        path.unlink()
    (SLICE / "io.max").write_text(f"{volume.number} riops=max wiops=max")
    sluice(node, "adopt", "--yes")
    node.start()

    assert line in (SLICE / "io.max").read_text()
    assert volume.file.read_bytes() == data
