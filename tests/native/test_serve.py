"""`sluice serve` on this machine's own kernel."""

from __future__ import annotations

import psutil
import pytest

from csi_driver.rpc import csi_pb2 as csi
from tests.leftovers import Leftovers
from tests.serving import Server

pytestmark = pytest.mark.native

MIB = 1 << 20


@pytest.mark.quiet
def test_a_server_is_ready_soon(server: Server) -> None:
    """In half a second, where its pool is made already. Best of three: others use this machine's processors too."""
    seconds = []
    for _ in range(3):
        server.stop()
        seconds.append(server.start())

    assert min(seconds) < 0.5


def test_an_idle_server_is_small(server: Server) -> None:
    """It takes less than 60 MiB of memory, what it shares with others counted."""
    size = psutil.Process(server.pid).memory_info().rss

    assert size < 60 * MIB


def test_the_driver_says_who_it_is(server: Server) -> None:
    """GetPluginInfo has the name and the version that sidecars ask for."""
    answer = server.client.identity.GetPluginInfo(csi.GetPluginInfoRequest())

    assert answer.name == "csi.sluice.dev"
    assert answer.vendor_version


def test_a_stopped_server_leaves_only_its_pool() -> None:
    """What is left after a stop is the pool's image, mounted; the harness takes it down and finds nothing else."""
    before = Leftovers.now()
    with Server() as server:
        server.stop()
        left = server.leftovers()
    after = Leftovers.now(str(server.folder))

    assert len(left) == 2
    assert all(str(server.pool) in thing for thing in left)
    assert after.since(before) == []
    assert not server.folder.exists()
