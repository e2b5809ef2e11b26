"""The conformance suite in the VM: device-mapper below every volume, and limits in force."""

from __future__ import annotations

import pytest

from tests import sanity
from tests.leftovers import Leftovers
from tests.serving import Server

pytestmark = [pytest.mark.kernel, pytest.mark.torture, pytest.mark.timeout(sanity.SECONDS + 100)]


@pytest.mark.parametrize(
    ("access", "fs_type"),
    [("mount", "ext4"), ("mount", "xfs"), ("mount", "btrfs"), ("block", "ext4"), ("block", "xfs")],
)
def test_csi_sanity_finds_no_fault_with_limits_in_force(access: str, fs_type: str) -> None:
    """No test fails, those left out have a reason in spec/conformance.md, and the machine is as it was.

    The other file systems: on this machine's own kernel (tests/native), and in the VM on thin pools.
    """
    before = Leftovers.now()
    with Server(qos="enforce") as server:
        verdict = sanity.run(server, access, fs_type)

    assert verdict.failed == {}
    assert verdict.left_out == sanity.known_to_be_left_out()
    assert Leftovers.now().since(before) == []
