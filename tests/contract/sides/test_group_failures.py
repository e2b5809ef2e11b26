"""Controller and agent over a Store: a group of which a cut fails is cut anew as a whole, or is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from csi_driver.backends.sim import SimBackend
from csi_driver.controller.requests import SizeRange
from csi_driver.deadline import Deadline
from csi_driver.errors import NoSpace, StorageError, Unready
from csi_driver.groups import GroupSnapshot
from csi_driver.records import GIB, Snapshot
from csi_driver.store.base import StoreUnready
from tests.contract.sides.asking import cut, images, left, opened, pool_of, soon, volumes, with_pool
from tests.fakes.world import World, agent_side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.backends.base import Frozen, Passport
    from csi_driver.store.base import Store


class Fails(SimBackend):
    """A pool whose second cut fails, until it is mended; `cuts` are those that were made."""

    error: StorageError | None = None
    cuts = 0

    def cut(self, source: str, passport: Passport, size: int, frozen: Frozen) -> bool:
        if self.error and self.cuts % 2:
            self.cuts += 1
            raise self.error
        self.cuts += 1
        return super().cut(source, passport, size, frozen)


@pytest.fixture
def failing(store: Store) -> Iterator[World]:
    with with_pool(store, Fails) as made:
        yield made


def test_a_group_of_which_one_cut_fails_for_good_is_none(failing: World) -> None:
    """The cuts that were made go, and then the caller hears why: no bytes, no record, no promise."""
    ids = volumes(failing, "a", "b", "c")
    pool_of(failing, Fails).error = NoSpace("the pool's disk is full")
    with pytest.raises(NoSpace, match="disk is full"):
        cut(failing, ids)
    failing.settle()

    assert (images(failing), left(failing)) == (3, 97)
    assert not failing.store.all(Snapshot)
    assert not failing.store.all(GroupSnapshot)


def test_a_try_that_failed_leaves_nothing_to_the_next(failing: World) -> None:
    """What was cut before a failure is of another moment: it goes at once, and all are cut anew."""
    ids = volumes(failing, "a", "b")
    backend = pool_of(failing, Fails)
    backend.error = Unready("the disk sleeps")
    for volume_id in ids:
        backend.write(volume_id, 0, b"first")
    with pytest.raises(StorageError, match="the disk sleeps"):
        failing.controller.groups.create("g", ids, {}, Deadline(1.0))
    failing.stop_agent("n1")
    between = images(failing)
    for volume_id in ids:
        backend.write(volume_id, 0, b"second")
    failing.agents["n1"] = agent_side(failing.store, "n1", Fails(failing.disks["n1"]))
    _, members = cut(failing, ids)

    assert between == 2
    assert [opened(failing).read(member.id) for member in members] == [{0: b"second"}] * 2


def test_a_volume_that_grows_while_its_group_waits_is_cut_as_it_is(failing: World) -> None:
    """The ledger has what it grew by too."""
    ids = volumes(failing, "a", "b")
    pool_of(failing, Fails).error = Unready("the disk sleeps")
    with pytest.raises(StorageError, match="the disk sleeps"):
        failing.controller.groups.create("g", ids, {}, Deadline(1.0))
    failing.controller.volumes.expand(ids[0], SizeRange(4 * GIB), soon())
    pool_of(failing, Fails).error = None
    group, members = cut(failing, ids)

    sizes = {member.spec.volume: member.status.history.size // GIB for member in members}
    assert (sizes, group.status.history.size) == ({ids[0]: 4, ids[1]: 1}, 5 * GIB)
    assert left(failing) == 90


@pytest.mark.parametrize("landed", [True, False])
def test_a_write_of_which_nobody_knows_whether_it_landed_costs_no_member(
    world: World, monkeypatch: pytest.MonkeyPatch, landed: bool
) -> None:
    """The Store goes away in the moment in which the group is said to be made: what it says later counts."""
    ids = volumes(world, "a", "b")
    store = world.agents["n1"].agent._grouper._store
    write, failed = store.put_status, list[bool]()

    def put_status(record: Any, *, durable: bool = True, wake: bool = True) -> Any:  # noqa: ANN401 - any record
        if isinstance(record, GroupSnapshot) and record.status.history.made and not failed:
            failed.append(landed)
            if landed:
                write(record, durable=durable, wake=wake)
            raise StoreUnready("can't tell whether this landed")
        return write(record, durable=durable, wake=wake)

    monkeypatch.setattr(store, "put_status", put_status)
    _, members = cut(world, ids)

    assert failed == [landed]
    assert all(opened(world).find(member.id) for member in members)
