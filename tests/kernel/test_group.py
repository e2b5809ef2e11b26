"""Group snapshots of volumes that are written to: one instant for all members, or no group and nothing suspended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.config import DRIVER_NAME
from csi_driver.deadline import Deadline, wait_for
from csi_driver.groups import GroupSnapshot, member_name
from csi_driver.ids import new_id
from csi_driver.records import Snapshot
from tests.kernel.node import Node, refusal, run
from tests.kernel.rounds import MOMENTS, Rounds, cut_in_order, in_order, killed_and_made_anew, numbers, three_volumes
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

SCOPE = f"local/{DRIVER_NAME}"
GROUPS = pick(2, 4)


@pytest.fixture
def three(node: Node) -> list[Volume]:
    """Give three volumes that are published."""
    return three_volumes(node)


def scatter(volume: Volume) -> None:
    """Give the image of a raw volume so many extents that its cut takes a while."""
    run(
        *("fio", "--name=x", f"--filename={volume.device}", "--rw=write:4k", "--bs=4k", "--ioengine=libaio"),
        *("--iodepth=32", "--direct=1", "--size=16m", "--io_size=8m", "--eta=never", "--output=/dev/null"),
    )


def test_all_members_are_of_one_instant(
    node: Node, three: list[Volume], record_property: Callable[[str, object], None]
) -> None:
    """In each of several groups, cut under writes that go on, no member has what was written after another's cut."""
    cut_in_order(node, three, GROUPS, record_property)


def ids_of(name: str, volumes: list[Volume]) -> dict[str, str]:
    """Return the ids that the members of a group will have, by volume."""
    group_id = new_id(SCOPE, GroupSnapshot.KIND, name)
    return {volume.id: new_id(SCOPE, Snapshot.KIND, member_name(group_id, volume.id)) for volume in volumes}


def test_a_cut_that_fails_undoes_all_and_lets_all_go(node: Node, three: list[Volume]) -> None:
    """The pool can't make one of the members: no image of another is left, and writing goes on; later it is made."""
    last = ids_of("group", three)[max(volume.id for volume in three)]
    in_the_way = node.image(last).parent.parent / "new" / f"{last}.img"
    rounds = Rounds(three)
    with rounds.kept():
        in_the_way.mkdir()
        code, said = refusal(lambda: node.group(three, "group", seconds=4.0))
        alone = sorted([*(f"{volume.id}.img" for volume in three), in_the_way.name])
        wait_for("the other cuts are gone", lambda: node.images() == alone, Deadline(MOMENTS))
        rounds.go_on()
        tried_again = node.log.read_text().count("Is a directory")
        in_the_way.rmdir()
        group = node.group(three, "group")
    found = numbers(node, group, three)

    assert code is grpc.StatusCode.ABORTED
    assert "Is a directory" in said
    assert tried_again > 1
    assert in_order(found), found


def test_a_server_killed_while_all_are_held_leaves_nothing_suspended(node: Node, three: list[Volume]) -> None:
    """The dead man lets all of them go; the next life makes the group anew, of an instant of its own."""
    scatter(three[1])
    killed_and_made_anew(node, three, "{}.img")
