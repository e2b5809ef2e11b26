"""The conformance suite in the VM on LVM's thin pools, with limits in force."""

from __future__ import annotations

import pytest

from tests import sanity
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.torture import pick

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(sanity.SECONDS + 100)]


@pytest.mark.parametrize(
    ("access", "fs_type"),
    pick([("mount", "xfs")], [("mount", "ext4"), ("mount", "xfs"), ("mount", "btrfs"), ("block", "ext4")]),
)
def test_csi_sanity_finds_no_fault_on_a_thin_pool(access: str, fs_type: str) -> None:
    """No test fails, the same ones are left out as on images, and the pool is empty and sound afterwards."""
    before = Leftovers.now()
    with ThinNode() as server:
        verdict = sanity.run(server, access, fs_type)
        server.stop()
        server.thin.check()

    assert verdict.failed == {}
    assert verdict.left_out == sanity.known_to_be_left_out()
    assert Leftovers.now().since(before) == []
