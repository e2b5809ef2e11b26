"""Group snapshots on a thin pool of a real LVM: the same promises as on loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.rounds import LET_GO_SECONDS, Rounds, in_order, killed_while_all_are_held, numbers, three_volumes
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.kernel

GROUPS = 2


@pytest.fixture(scope="module")
def thin_machine() -> Iterator[ThinNode]:
    """Give a node that serves a thin pool, and see that nothing of it is left."""
    before = Leftovers.now()
    with ThinNode() as running:
        yield running

    assert Leftovers.now().since(before) == []


def test_all_members_are_of_one_instant(thin: ThinNode, record_property: Callable[[str, object], None]) -> None:
    """In each of several groups, cut under writes that go on, no member has what was written after another's cut."""
    three = three_volumes(thin)
    rounds = Rounds(three)
    with rounds.kept():
        groups = []
        for number in range(GROUPS):
            groups.append(thin.group(three, f"group{number}"))
            rounds.go_on()
        alone = [thin.group([volume], f"alone{at}") for at, volume in enumerate(three)]
    found = [numbers(thin, group, three) for group in groups]
    held = [thin.group_record(group.id).status.history.held_ms for group in groups]
    single = [thin.group_record(group.id).status.history.held_ms for group in alone]
    record_property("numbers", found)
    record_property("held, ms", held)
    record_property("held by groups of one, ms", single)
    record_property("ratio", round(min(held) / max(1, sum(single)), 2))

    assert [one for one in found if not in_order(one)] == []
    assert found[-1][0] > found[0][0] > 0


def test_a_server_killed_while_all_are_held_leaves_nothing_suspended(thin: ThinNode) -> None:
    """The dead man lets all of them go; the next life makes the group anew, of an instant of its own."""
    three = three_volumes(thin)
    rounds = Rounds(three)
    with rounds.kept():
        took, at_death = killed_while_all_are_held(thin, three, rounds)
        thin.start()
        group = thin.group(three, "group")
    found = numbers(thin, group, three)
    ids = [*(volume.id for volume in three), *(member.id for member in group.members.values())]

    assert took < LET_GO_SECONDS
    assert in_order(found), found
    assert found[0] >= at_death
    assert thin.images() == sorted(f"sluice-{record_id}" for record_id in ids)
