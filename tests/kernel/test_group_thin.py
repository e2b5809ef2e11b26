"""Group snapshots on a thin pool of a real LVM: the same promises as on loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.rounds import cut_in_order, killed_and_made_anew, three_volumes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.thin_node import ThinNode

pytestmark = pytest.mark.kernel

GROUPS = 2


def test_all_members_are_of_one_instant(thin: ThinNode, record_property: Callable[[str, object], None]) -> None:
    """In each of several groups, cut under writes that go on, no member has what was written after another's cut."""
    cut_in_order(thin, three_volumes(thin), GROUPS, record_property)


@pytest.mark.torture
def test_a_server_killed_while_all_are_held_leaves_nothing_suspended(thin: ThinNode) -> None:
    """The dead man lets all of them go; the next life makes the group anew, of an instant of its own."""
    killed_and_made_anew(thin, three_volumes(thin), "sluice-{}")
