"""Controller and agent over a Store: several volumes cut at one instant, all of them or none."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from csi_driver.backends.base import Passport
from csi_driver.errors import Busy, Conflict, Invalid, NoSpace, NotFound, Unsupported
from csi_driver.groups import GroupSnapshot, member_name
from csi_driver.ids import new_id
from csi_driver.records import GIB, Snapshot, Source, Volume
from tests.contract.sides.asking import ask, cut, images, left, opened, soon, volumes
from tests.fakes.world import SCOPE, World

GROUP_ID = new_id(SCOPE, GroupSnapshot.KIND, "g")


def test_a_group_has_a_cut_of_each_volume(world: World) -> None:
    """Each has what its volume held, is listed with its group, is of the group's moment, and can be restored."""
    ids = volumes(world, "a", "b", "c")
    pool = opened(world)
    for volume_id in ids:
        pool.write(volume_id, 0, volume_id.encode())
    group, members = cut(world, ids)
    for volume_id in ids:
        pool.write(volume_id, 0, b"later")
    restored = [
        world.controller.volumes.create(dataclasses.replace(ask(f"r{at}"), source=Source("snapshot", one.id)), soon())
        for at, one in enumerate(members)
    ]
    listed, _ = world.controller.snapshots.page("", 0)

    assert [member.spec.volume for member in members] == sorted(ids)
    assert [pool.read(volume.id)[0] for volume in restored] == [volume_id.encode() for volume_id in sorted(ids)]
    assert {one.status.history.made for one in members} == {group.status.history.made}
    assert {one.id: one.spec.group for one in listed} == {one.id: group.id for one in members}
    assert world.controller.groups.get(group.id, [one.id for one in members]) == (group, members)


def test_the_bytes_of_a_member_say_what_group_they_are_of(world: World) -> None:
    """Enough to rebuild its record, and that of the group when all are there."""
    (volume_id, _) = ids = volumes(world, "a", "b")
    group, members = cut(world, ids)
    found = {one.id: one.passport for one in opened(world).list() if one.kind == "snapshot"}
    passport = next(one for one in found.values() if one and one.parent == volume_id)

    assert found.keys() == {member.id for member in members}
    assert (passport.group, passport.group_size, passport.name) == ("g", 2, member_name(group.id, volume_id))


def test_a_repeated_call_finds_its_group(world: World) -> None:
    """The same name and volumes in any order, by a controller that knows nothing, when the volumes are gone."""
    ids = volumes(world, "a", "b")
    group, _ = cut(world, ids)
    for volume_id in ids:
        world.controller.volumes.delete(volume_id, soon())
    world.restart_controller()
    again, members = cut(world, ids[::-1])

    assert again.id == group.id
    assert (images(world), len(members)) == (2, 2)


def test_a_name_stands_for_one_choice_of_volumes(world: World) -> None:
    """Fewer, more or other volumes are a conflict, as other parameters are."""
    a, b, c = volumes(world, "a", "b", "c")
    cut(world, [a, b])
    for other in ([a], [a, c], [a, b, c]):
        with pytest.raises(Conflict, match="exists as"):
            cut(world, other)
    with pytest.raises(Conflict, match="other parameters"):
        world.controller.groups.create("g", [a, b], {"csi.storage.k8s.io/x": "y"}, soon())

    assert len(world.store.all(Snapshot)) == 2


@pytest.mark.parametrize(
    ("ids", "says"),
    [([], "source_volume_ids is missing"), (["a", "b", "a"], "'a' is there twice"), (["a"] * 101, "101 volumes")],
)
def test_a_choice_that_makes_no_sense_is_refused(world: World, ids: list[str], says: str) -> None:
    """None, one twice, more than can be held still."""
    with pytest.raises(Invalid, match=says):
        cut(world, ids)
    assert not world.store.all(GroupSnapshot)


def test_volumes_of_two_pools_are_not_cut_together(world: World) -> None:
    """No instant is common to two nodes; the message says which volume lies where, and nothing is begun."""
    ids = volumes(world, "a") + volumes(world, "b", node="n2")
    with pytest.raises(Unsupported, match="only volumes of one pool") as caught:
        cut(world, ids)

    for volume_id, node in zip(ids, ("n1", "n2"), strict=True):
        assert f"{volume_id} in fast of node {node}" in str(caught.value)
    assert not world.store.all(GroupSnapshot)


def test_a_group_of_a_volume_that_is_not_there_is_not_found(world: World) -> None:
    """Whatever the others are."""
    ids = volumes(world, "a")
    with pytest.raises(NotFound, match="volume_id: there is no volume"):
        cut(world, [*ids, new_id(SCOPE, Volume.KIND, "nowhere")])

    assert not world.store.all(GroupSnapshot)


def test_a_deleted_group_leaves_nothing(world: World) -> None:
    """No bytes, no record, no promise; a second call is fine, and what was restored lives on."""
    ids = volumes(world, "a", "b")
    before = left(world)
    group, members = cut(world, ids)
    names = [member.id for member in members]
    restored = dataclasses.replace(ask("r"), source=Source("snapshot", names[0]))
    world.controller.volumes.create(restored, soon())
    promised = before - left(world)
    for _ in range(2):
        world.controller.groups.delete(group.id, names, soon())
    world.settle()

    assert promised == 3
    assert (images(world), before - left(world)) == (3, 1)
    assert not world.store.all(Snapshot)
    assert not world.store.all(GroupSnapshot)
    with pytest.raises(NotFound, match="there is no group snapshot"):
        world.controller.groups.get(group.id, names)


def test_only_who_names_the_members_gets_the_group(world: World) -> None:
    """A list that lacks a member, or has another, is refused, and nothing is deleted."""
    ids = volumes(world, "a", "b")
    group, members = cut(world, ids)
    names = [member.id for member in members]
    for wrong, says in (([], "is missing"), (names[:1], names[1]), ([*names, ids[0]], ids[0]), (ids, group.id)):
        with pytest.raises(Invalid, match=f"snapshot_ids.* {says}|snapshot_ids: '{says}"):
            world.controller.groups.delete(group.id, wrong, soon())
        with pytest.raises(Invalid, match="snapshot_ids"):
            world.controller.groups.get(group.id, wrong)

    assert images(world) == 4


def test_a_member_goes_with_its_group_alone(world: World) -> None:
    """DeleteSnapshot of it is refused, and says what to call instead; no other snapshot gets its name."""
    ids = volumes(world, "a", "b")
    group, members = cut(world, ids)
    with pytest.raises(Invalid, match=f"member of group snapshot {group.id}"):
        world.controller.snapshots.delete(members[0].id, soon())
    with pytest.raises(Invalid, match="choose another"):
        world.controller.snapshots.create(members[0].spec.name, ids[0], {}, soon())

    assert world.controller.snapshots.get(members[0].id) == members[0]


def test_the_ledger_counts_a_group_once(world: World) -> None:
    """Its members take what its volumes have, before and after a restart."""
    ids = volumes(world, "a", "b")
    cut(world, ids)
    before = left(world)
    world.stop_agent("n1")
    world.start_agent("n1")

    assert before == left(world) == 96


def test_a_group_that_has_no_room_is_refused_for_good(world: World) -> None:
    """All members are admitted or none; what is refused leaves no record."""
    big = world.controller.volumes.create(ask("big", 60 * GIB, nodes=frozenset({"n1"})), soon())
    with pytest.raises(NoSpace, match="60Gi"):
        cut(world, [big.id])
    world.settle()

    assert (images(world), left(world)) == (1, 40)
    assert not world.store.all(GroupSnapshot)


def test_what_has_the_id_of_a_member_is_not_touched(world: World) -> None:
    """Bytes that nobody knows are not the group's to clear away: it is refused, and they stay."""
    ids = volumes(world, "a", "b")
    foreign = new_id(SCOPE, Snapshot.KIND, member_name(GROUP_ID, ids[1]))
    opened(world).create(Passport(foreign, "snapshot", "found"), GIB)
    with pytest.raises(Conflict, match=f"there is a snapshot {foreign}"):
        cut(world, ids)
    world.settle()

    assert opened(world).find(foreign) is not None
    assert (images(world), left(world)) == (3, 98)
    assert not world.store.all(GroupSnapshot)


def test_groups_that_share_volumes_do_not_wait_for_each_other_for_ever(world: World) -> None:
    """Locks are taken in one order: all of them are made."""
    ids = volumes(world, "a", "b", "c", "d")

    def one(number: int) -> str:
        chosen = [ids[(number + at) % 4] for at in range(3)]
        while True:
            try:
                return cut(world, chosen[:: 1 - 2 * (number % 2)], f"g{number}")[0].id
            except Busy:
                continue

    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(one, range(8)))

    assert (len(made), images(world)) == (8, 4 + 8 * 3)
