"""The conformance suite on this machine's own kernel, without limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import sanity

if TYPE_CHECKING:
    from tests.serving import Server

pytestmark = pytest.mark.native


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
@pytest.mark.parametrize("access", ["mount", "block"])
def test_csi_sanity_finds_no_fault(server: Server, access: str, fs_type: str) -> None:
    """No test fails, and those that are left out are the ones that spec/conformance.md gives a reason for."""
    verdict = sanity.run(server, access, fs_type)

    assert verdict.failed == {}
    assert verdict.left_out == sanity.known_to_be_left_out()
    assert verdict.passed > 75
