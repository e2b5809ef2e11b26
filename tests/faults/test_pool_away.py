"""A pool that is read-only, or not mounted: every call says so, nothing is made where it was, and it comes back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.rpc import csi_pb2 as csi
from tests.faults.rig import OnDisk, create, delete, is_ready, listed, refusal, stage, until_done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.native

MIB = 1 << 20
SECONDS = 1.5
NOT_MADE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED}


@pytest.fixture
def server() -> Iterator[OnDisk]:
    """Give a server whose pool is a folder on a disk of its own."""
    with OnDisk("pool", 320 * MIB, fs_type="xfs", pool="ratio=10") as running:
        yield running


def kept(server: OnDisk) -> tuple[Volume, bytes]:
    """Make a volume that holds something, and that nobody uses now."""
    volume = create(server, "data").up()
    volume.fill(4 * MIB)
    data = volume.file.read_bytes()
    volume.down()
    return volume, data


def take_down(server: OnDisk, volume: Volume) -> None:
    """Delete what there is, also what a refused call wished for and got later."""
    volume.down()
    until_done(partial(create, server, "late", seconds=SECONDS))
    for volume_id in listed(server):
        server.client.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume_id), timeout=SECONDS)


def check_refused(server: OnDisk, volume: Volume, reason: str, *others: Volume) -> None:
    """See that calls are refused with the reason, that nobody is told that anything is gone, and that Probe answers."""
    calls: dict[str, Callable[[], object]] = {
        "stage": partial(stage, volume, SECONDS),
        "modify": partial(volume.modify, readIOPS="500"),
    }
    for name, call in calls.items():
        code, said = refusal(call)
        assert (name, code, reason in said, "LOST" in said) == (name, grpc.StatusCode.UNAVAILABLE, True, False), said
    code, said = refusal(partial(create, server, "late", seconds=SECONDS))
    assert code in NOT_MADE
    assert reason in said
    assert {volume.id} <= set(listed(server)) <= {volume.id, *(other.id for other in others)}
    assert is_ready(server)


def test_a_pool_that_is_read_only_is_said_to_be_and_comes_back(server: OnDisk) -> None:
    """Nothing is begun there; once it can be written again, calls are served again."""
    volume, data = kept(server)
    server.remount("ro")
    check_refused(server, volume, "read-only")
    images = server.images()
    server.remount("rw")

    until_done(volume.up)
    assert volume.file.read_bytes() == data
    assert images == [f"{volume.id}.img"]
    take_down(server, volume)


def test_a_pool_that_is_not_mounted_is_said_to_be_and_comes_back_on_another_device(server: OnDisk) -> None:
    """What was asked meanwhile is done then."""
    (volume, data), unwanted = kept(server), create(server, "unwanted")
    before = server.place.stat().st_dev
    with server.taken_away():
        check_refused(server, volume, "mounted", unwanted)
        code, said = refusal(partial(delete, unwanted, SECONDS))

    assert server.place.stat().st_dev != before
    assert (code, "mounted" in said) == (grpc.StatusCode.UNAVAILABLE, True)
    until_done(volume.up)
    assert volume.file.read_bytes() == data
    until_done(partial(delete, unwanted, SECONDS))
    take_down(server, volume)


def test_a_server_makes_nothing_where_its_pool_is_not_mounted_and_serves_when_it_is(server: OnDisk) -> None:
    """The bare mount point stays bare."""
    volume, data = kept(server)
    server.stop()
    with server.taken_away():
        server.start()
        check_refused(server, volume, "mounted")
        bare = list(server.place.iterdir())

    assert bare == []
    until_done(volume.up)
    assert volume.file.read_bytes() == data
    take_down(server, volume)
