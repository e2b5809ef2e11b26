"""A kernel without the io controller, booted as one: what must be limited is not staged, and all else is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from tests.kernel.node import Node, refusal
from tests.leftovers import Leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernel, pytest.mark.boot(append="cgroup_disable=io")]


@pytest.fixture(params=["enforce", "off"])
def server(request: pytest.FixtureRequest) -> Iterator[Node]:
    """Give a node with limits asked for, then one with limits switched off."""
    with Node(qos=request.param) as running:
        yield running


@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("server", ["enforce"], indirect=True)
def test_a_volume_that_must_be_limited_is_not_staged_where_nothing_can_be(server: Node, block: bool) -> None:
    """UNAVAILABLE, which a kubelet tries again, with the reason and the way out; and nothing of it stays up."""
    volume = server.create("data", tier="inference", block=block)
    before = Leftovers.now()

    code, said = refusal(volume.stage)
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "tier inference must not run without its limits" in said
    assert "the kernel lists this controller, but has it switched off: boot without cgroup_disable=" in said
    assert "--qos off" in said
    assert Leftovers.now().since(before) == []


@pytest.mark.parametrize("server", ["enforce"], indirect=True)
def test_a_volume_without_limits_is_staged_where_nothing_can_be_limited(server: Node) -> None:
    """The standard tier asks for nothing. The log says from the start what will not be staged."""
    volume = server.create("data").up()
    volume.fill(4 << 20)

    assert "limits can't be applied; tiers that require them will not be staged" in server.log.read_text()


@pytest.mark.parametrize("server", ["off"], indirect=True)
def test_with_limits_switched_off_everything_is_staged_and_the_log_says_so_loudly(server: Node) -> None:
    """That is what the operator chose, and nobody will overlook it."""
    volume = server.create("data", tier="inference").up()
    volume.fill(4 << 20)

    assert "QoS IS OFF: no volume is limited" in server.log.read_text()
