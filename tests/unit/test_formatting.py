"""The mkfs rule: what may be formatted, and what never."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.backends.base import Passport
from csi_driver.backends.sim import SimBackend, SimPool
from csi_driver.deadline import Deadline
from csi_driver.errors import Foreign, StorageError, Unready
from csi_driver.formatting import Formatting
from csi_driver.host.block import Device
from csi_driver.ids import new_id
from csi_driver.limiting import Limiting
from csi_driver.records import GIB, History, Status, Volume, VolumeSpec
from csi_driver.store.base import StoreUnready
from csi_driver.store.hostile import HostileStore, Malice
from qos.enforce import Off
from qos.limits import DevNo

if TYPE_CHECKING:
    from csi_driver.store.base import Store

ID = new_id("test", "volume", "a")
DEVICE = Device(Path("/dev/dm-9"), DevNo(253, 9))


class Formatter:
    """Stand in for the programs: remembers what it was told to make, and can be cut in the middle."""

    def __init__(self, store: Store, kind: str | None = None) -> None:
        self.made: list[str] = []
        self.checked: list[str] = []
        self.begun_when_made = ""
        self.cut = False
        self.others = False
        self.looked_for_others = 0
        self._kind = kind
        self._store = store

    def kind(self, _: Path, **__: bool) -> str | None:
        if self._kind == "unreadable":
            raise Unready("read error, not touching it")
        return self._kind

    def check_alone(self, _: Path) -> None:
        self.looked_for_others += 1
        if self.others:
            raise Unready("is open in process 1 (mkfs.btrfs)")

    def make(self, _: Path, fs_type: str, **__: Any) -> None:  # noqa: ANN401 - not looked at
        record = self._store.get(Volume, ID)
        assert record is not None
        self.begun_when_made = record.status.history.format_begun
        self.made.append(fs_type)
        if self.cut:
            raise Unready("cut")

    def check(self, _: Path, fs_type: str, **__: Any) -> bool:  # noqa: ANN401 - not looked at
        self.checked.append(fs_type)
        return False


class Rig:
    """Hold one volume in a sim pool and what decides on its mkfs."""

    def __init__(self, history: History, *, kind: str | None = None, written: bool = False) -> None:
        self.store = HostileStore(1, Malice(delay=0.0, stale=0, skip=0.0, repeat=0.0, silence=0.0))
        self.backend = SimBackend(SimPool())
        self.backend.open("")
        self.backend.create(Passport(ID, "volume", "a", format_done=history.format_done), GIB)
        if written:
            self.backend.write(ID, 0, b"precious")
        made = self.store.create(Volume(ID, VolumeSpec("a", GIB)))
        self.store.put_status(dataclasses.replace(made, status=Status(history)))
        self.programs = Formatter(self.store, kind)
        self.formatting = Formatting(self.store, self.programs, Limiting(Off()))  # type: ignore[arg-type]

    @property
    def record(self) -> Volume:
        record = self.store.get(Volume, ID)
        assert record is not None
        return record

    def prepare(self, fs_type: str = "ext4") -> None:
        self.formatting.prepare(self.record, self.backend, DEVICE, fs_type, Deadline(5))


MADE = History(size=GIB, sector_size=4096, made="2026-01-01T00:00:00+00:00")


def test_a_new_volume_is_formatted_and_every_step_is_marked_in_time() -> None:
    """Begun is durable before mkfs; done, and the passport, before the stage goes on."""
    rig = Rig(MADE)
    rig.prepare("xfs")

    assert rig.programs.made == ["xfs"]
    assert rig.programs.begun_when_made == "xfs"
    assert rig.record.status.history.format_done == "xfs"
    found = rig.backend.find(ID)
    assert found is not None
    assert found.passport is not None
    assert found.passport.format_done == "xfs"


def test_a_formatted_volume_is_checked_and_never_formatted_again() -> None:
    """Asked for another file system, it is refused."""
    rig = Rig(dataclasses.replace(MADE, format_begun="ext4", format_done="ext4"), kind="ext4", written=True)
    rig.prepare("ext4")

    assert (rig.programs.made, rig.programs.checked) == ([], ["ext4"])
    with pytest.raises(Foreign, match="holds ext4, the capability asks for xfs"):
        rig.prepare("xfs")
    assert rig.programs.made == []


def test_an_mkfs_that_was_cut_is_done_again() -> None:
    """No pod ever saw the volume, so whatever the cut mkfs wrote is nobody's."""
    rig = Rig(MADE)
    rig.programs.cut = True
    with pytest.raises(Unready):
        rig.prepare()
    rig.backend.write(ID, 0, b"half a file system")
    rig.programs.cut = False
    rig.prepare()

    assert rig.programs.made == ["ext4", "ext4"]
    assert rig.record.status.history.format_done == "ext4"


def test_an_mkfs_that_may_still_run_gets_no_second_one_beside_it() -> None:
    """It outlived its server; nobody looks where none was begun, for a look at all processes takes its time."""
    fresh = Rig(MADE)
    fresh.prepare()
    rig = Rig(dataclasses.replace(MADE, format_begun="btrfs"))
    rig.programs.others = True

    with pytest.raises(Unready, match="open in process 1"):
        rig.prepare("btrfs")
    assert (rig.programs.made, fresh.programs.looked_for_others) == ([], 0)


@pytest.mark.parametrize("raw", [False, True])
def test_the_bytes_learn_that_somebody_has_them_after_the_record_and_before_anybody_has(
    monkeypatch: pytest.MonkeyPatch, *, raw: bool
) -> None:
    """The other way round, a cut between the two would leave a volume that is neither blank nor begun."""
    rig = Rig(MADE)
    seen: list[tuple[bool, int]] = []

    def take(_: str) -> None:
        history = rig.record.status.history
        seen.append((history.raw or bool(history.format_begun), len(rig.programs.made)))

    monkeypatch.setattr(rig.backend, "take", take)
    if raw:
        rig.formatting.hand_out_raw(rig.record, rig.backend)
    else:
        rig.prepare()

    assert seen == [(True, 0)]


@pytest.mark.parametrize(("mark", "landed"), [("begun", 0), ("done", 1), ("raw", 0)])
def test_nothing_follows_a_mark_that_may_not_have_landed(
    monkeypatch: pytest.MonkeyPatch, mark: str, landed: int
) -> None:
    """No mkfs after a `begun`, and nobody gets the volume after a `done` or a `raw`, of which nobody knows."""
    rig = Rig(MADE)
    put, times = rig.store.put_status, itertools.count()

    def unsure(record: Volume, **how: bool) -> Volume:
        if next(times) == landed:
            raise StoreUnready("can't tell whether this landed")
        return put(record, **how)

    monkeypatch.setattr(rig.store, "put_status", unsure)

    with pytest.raises(StoreUnready):
        rig.formatting.hand_out_raw(rig.record, rig.backend) if mark == "raw" else rig.prepare()
    assert len(rig.programs.made) == landed


def test_a_volume_that_a_pod_had_as_a_block_device_is_the_pods() -> None:
    """Even if an mkfs had been begun and cut before: what is written now may be a pod's."""
    rig = Rig(dataclasses.replace(MADE, format_begun="ext4"))
    rig.formatting.hand_out_raw(rig.record, rig.backend)
    rig.backend.write(ID, 0, b"a pod's")

    with pytest.raises(Foreign):
        rig.prepare()
    assert rig.programs.made == []


@given(
    begun=st.sampled_from(["", "ext4", "xfs"]),
    done=st.sampled_from(["", "ext4", "xfs"]),
    raw=st.booleans(),
    kind=st.sampled_from([None, "ext4", "LVM2_member", "unknown data", "unreadable"]),
    written=st.booleans(),
    fs_type=st.sampled_from(["ext4", "xfs"]),
)
def test_what_might_hold_data_is_never_formatted(
    begun: str, done: str, raw: bool, kind: str | None, written: bool, fs_type: str
) -> None:
    """Mkfs runs only over nothing, or over what an mkfs of ours left that no pod has seen."""
    rig = Rig(dataclasses.replace(MADE, format_begun=begun, format_done=done, raw=raw), kind=kind, written=written)
    unseen = bool(begun) and not done and not raw
    empty = not done and kind is None and not written
    try:
        rig.prepare(fs_type)
    except StorageError:
        assert rig.programs.made == []
        return

    assert bool(rig.programs.made) == (unseen or empty)
    if done:
        assert rig.programs.checked == [fs_type] == [done]
