"""What every backend promises: one suite for all. `loop` runs on this machine's own kernel, `lvm` in the VM."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import uuid
from typing import TYPE_CHECKING

import pytest

from csi_driver.assemble import Machine
from csi_driver.backends.base import Passport
from csi_driver.backends.image import PoolImage
from csi_driver.backends.loop import LoopBackend
from csi_driver.backends.lvm import LvmBackend
from csi_driver.backends.sim import SimBackend, SimPool
from csi_driver.deadline import Deadline
from csi_driver.errors import Foreign, InUse, Lost, NoSpace, StorageError
from tests.thinpool import ThinPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from csi_driver.backends.base import Backend

MIB = 1 << 20


@pytest.fixture(scope="module")
def thin() -> Iterator[ThinPool]:
    """Give the thin pool of all tests, which each leaves empty."""
    with ThinPool() as made:
        yield made


@pytest.fixture(
    params=[
        "sim",
        pytest.param("loop", marks=pytest.mark.native),
        pytest.param("lvm", marks=pytest.mark.kernel),
    ]
)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Backend]]:
    """Give what opens the same pool again and again, as a new process would."""
    if request.param == "lvm":
        thin: ThinPool = request.getfixturevalue("thin")
        machine = Machine()
        yield lambda: LvmBackend(thin.vg, thin.name, machine.lvm, machine.mapper, machine.kernel)
        thin.empty()
        return
    if request.param == "sim":
        pool = SimPool()
        yield lambda: SimBackend(pool)
        return
    machine = Machine()
    image = PoolImage(
        tmp_path / "pool.xfs", 400 * MIB, machine.kernel, machine.loops, machine.filesystems, machine.mounts
    )
    folder = tmp_path / "pool"
    yield lambda: LoopBackend(folder, machine.kernel, machine.loops, machine.filesystems, image)
    for attached in machine.loops.list(folder / "images"):
        machine.loops.detach(attached, Deadline(5.0))
    image.unmount(folder)


@pytest.fixture
def backend(reopen: Callable[[], Backend]) -> Backend:
    opened = reopen()
    opened.open("")
    return opened


def passport(pool: Backend, kind: str = "volume", **more: object) -> Passport:
    plain = Passport(
        id=str(uuid.uuid4()),
        kind=kind,
        name="données",
        claim="ns/claim",
        made="2026-01-01T00:00:00+00:00",
        sector_size=pool.sector_size,
    )
    return dataclasses.replace(plain, **more)  # type: ignore[arg-type]


def soon() -> Deadline:
    return Deadline(10.0)


def test_a_pool_keeps_its_identity(reopen: Callable[[], Backend]) -> None:
    """Opened again it is the same pool; under another's identity it refuses."""
    first, again, wrong = reopen(), reopen(), reopen()
    first.open("")
    again.open(first.identity)

    assert again.identity == first.identity != ""
    with pytest.raises(Foreign):
        wrong.open("00000000-0000-0000-0000-000000000000@")


def test_nothing_is_done_before_the_pool_is_open(reopen: Callable[[], Backend]) -> None:
    """A pool that is not open neither makes nor deletes."""
    closed = reopen()

    with pytest.raises(StorageError):
        closed.create(passport(closed), MIB)


def test_a_volume_is_made_once_and_found_with_its_passport(backend: Backend) -> None:
    """Create says whether it changed anything, and the bytes carry what they are."""
    mine = passport(backend, overrides={"readIOPS": "500"}, tier="training")

    assert backend.create(mine, 8 * MIB) is True
    assert backend.create(mine, 16 * MIB) is False
    found = backend.find(mine.id)
    assert found is not None
    assert (found.kind, found.size, found.allocated, found.passport) == ("volume", 8 * MIB, 0, mine)
    assert [each.id for each in backend.list()] == [mine.id]
    assert backend.never_written(mine.id)


def test_a_thick_volume_has_its_bytes_from_the_start_and_what_it_grows_by(backend: Backend) -> None:
    """Nothing is left to be allocated under its writes, and yet nobody has written to it."""
    mine = passport(backend, thick=True)
    backend.create(mine, 8 * MIB)
    made, used = backend.find(mine.id), backend.fill().used
    backend.expand(mine.id, 24 * MIB)
    grown = backend.find(mine.id)

    assert made is not None
    assert made.allocated >= 8 * MIB
    assert grown is not None
    assert (grown.size, grown.passport) == (24 * MIB, mine)
    assert grown.allocated >= 24 * MIB
    assert backend.fill().used - used >= 16 * MIB
    assert backend.never_written(mine.id)


def test_a_thick_volume_for_which_there_is_no_room_takes_none(backend: Backend) -> None:
    """It is refused before anything is allocated, so that nobody else meets a full pool on the way."""
    fill = backend.fill()

    with pytest.raises(NoSpace):
        backend.create(passport(backend, thick=True), fill.total + MIB)
    mine = passport(backend, thick=True)
    backend.create(mine, 8 * MIB)
    before = backend.fill().used
    with pytest.raises(NoSpace):
        backend.expand(mine.id, fill.total + MIB)
    found = backend.find(mine.id)
    assert found is not None
    assert found.size == 8 * MIB
    assert backend.fill().used == before
    assert [each.id for each in backend.list()] == [mine.id]


def test_a_thick_volume_that_somebody_was_given_is_not_taken_for_empty(
    backend: Backend, reopen: Callable[[], Backend]
) -> None:
    """Where no allocator knows what was written, that is noted on the bytes: the next process knows it too."""
    mine = passport(backend, thick=True)
    backend.create(mine, 8 * MIB)
    blank = backend.never_written(mine.id)
    for _ in range(2):
        backend.take(mine.id)
    again = reopen()
    again.open(backend.identity)

    assert blank
    assert again.never_written(mine.id) is not isinstance(backend, LvmBackend)
    found = again.find(mine.id)
    assert found is not None
    assert (found.size, found.passport) == (8 * MIB, mine)


def test_a_deleted_volume_is_gone_and_deleting_again_changes_nothing(backend: Backend) -> None:
    """Delete says whether it changed anything."""
    mine = passport(backend)
    backend.create(mine, MIB)

    assert backend.delete(mine.id) is True
    assert backend.delete(mine.id) is False
    assert backend.find(mine.id) is None
    assert list(backend.list()) == []


def test_bytes_that_are_gone_are_lost_and_not_made_anew(backend: Backend) -> None:
    """Neither attach, nor expand, nor cut makes what isn't there."""
    gone, copy = passport(backend), passport(backend)

    for verb in (
        lambda: backend.attach(gone.id, backend.sector_size, soon()),
        lambda: backend.expand(gone.id, MIB),
        lambda: backend.cut(gone.id, copy, MIB, contextlib.nullcontext()),
    ):
        with pytest.raises(Lost):
            verb()
    assert list(backend.list()) == []


def test_expanding_grows_and_never_shrinks(backend: Backend) -> None:
    """Expand says whether it changed anything."""
    mine = passport(backend)
    backend.create(mine, 4 * MIB)

    assert backend.expand(mine.id, 16 * MIB) is True
    assert backend.expand(mine.id, 8 * MIB) is False
    found = backend.find(mine.id)
    assert found is not None
    assert found.size == 16 * MIB


def test_an_amended_passport_outlives_the_process(backend: Backend, reopen: Callable[[], Backend]) -> None:
    """The bytes say that an mkfs ended, also to the next process; what isn't there can't be amended."""
    mine = passport(backend)
    backend.create(mine, MIB)
    backend.amend(mine.id, dataclasses.replace(mine, format_done="xfs"))
    again = reopen()
    again.open(backend.identity)
    found = again.find(mine.id)

    assert found is not None
    assert found.passport == dataclasses.replace(mine, format_done="xfs")
    with pytest.raises(Lost):
        again.amend(passport(backend).id, mine)


def test_a_cut_is_a_copy_of_its_own(backend: Backend) -> None:
    """A snapshot and a larger clone stand by themselves when the source is gone."""
    mine, snapshot, clone = passport(backend), passport(backend, "snapshot"), passport(backend)
    snapshot = dataclasses.replace(snapshot, parent=mine.id)
    backend.create(mine, 4 * MIB)

    assert backend.cut(mine.id, snapshot, 4 * MIB, contextlib.nullcontext()) is True
    assert backend.cut(mine.id, snapshot, 4 * MIB, contextlib.nullcontext()) is False
    assert backend.cut(snapshot.id, clone, 8 * MIB, contextlib.nullcontext()) is True
    backend.delete(mine.id)
    sizes = {found.id: (found.kind, found.size) for found in backend.list()}
    assert sizes == {snapshot.id: ("snapshot", 4 * MIB), clone.id: ("volume", 8 * MIB)}


def test_nothing_is_kept_of_a_cut_whose_source_did_not_hold_still(backend: Backend) -> None:
    """When the freeze did not last, the copy is not of one moment and goes."""

    @contextlib.contextmanager
    def thawed() -> Iterator[None]:
        yield
        raise StorageError("it did not last")

    mine, copy = passport(backend), passport(backend, "snapshot")
    backend.create(mine, MIB)
    with pytest.raises(StorageError, match="did not last"):
        backend.cut(mine.id, copy, MIB, thawed())

    assert [found.id for found in backend.list()] == [mine.id]


def test_attaching_twice_gives_one_device(backend: Backend) -> None:
    """Attach and detach are idempotent, and attached says what the kernel says."""
    mine = passport(backend)
    backend.create(mine, 4 * MIB)
    device = backend.attach(mine.id, backend.sector_size, soon())

    assert backend.attach(mine.id, backend.sector_size, soon()) == device == backend.attached(mine.id)
    if isinstance(backend, LvmBackend):
        assert backend.detach(mine.id, soon()) is False, "a volume is active until it is deleted"
        return
    assert backend.detach(mine.id, soon()) is True
    assert backend.detach(mine.id, soon()) is False
    assert backend.attached(mine.id) is None


def test_the_fill_is_what_the_pool_says(backend: Backend) -> None:
    """A thin volume takes no space until it is written."""
    before = backend.fill()
    backend.create(passport(backend), 1 << 40)

    assert backend.fill().total == before.total > 0
    assert backend.fill().used - before.used < MIB


@pytest.mark.native
def test_a_device_that_could_not_be_detached_is_found_again(tmp_path: Path) -> None:
    """While somebody has the loop device mounted or claimed, it stays attached, and the pool knows."""
    machine = Machine()
    image = tmp_path / "held.img"
    image.write_bytes(b"\0" * MIB)
    device = machine.loops.attach(image, sector_size=512, deadline=soon())
    claim = os.open(device.path, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(InUse):
            machine.loops.detach(image, Deadline(0.2))

        assert machine.loops.find(image) == device
    finally:
        os.close(claim)
        machine.loops.detach(image, soon())
    assert machine.loops.find(image) is None
