"""Thick volumes on LVM, a step at a time: what is zeroed when, and what the tags say of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.backends import lvmgroup, lvmthick
from csi_driver.backends.base import Passport
from csi_driver.backends.lvmgroup import BLANK, REACHED, Lv
from csi_driver.backends.lvmthick import Thick
from csi_driver.errors import Busy, Foreign, NoSpace
from csi_driver.host import block
from csi_driver.host.block import Device
from qos.limits import DevNo

if TYPE_CHECKING:
    from csi_driver.deadline import Deadline

MIB = 1 << 20
ID = "8d1f5c3e-6a52-4b7e-9d10-0c2f4e6a8b90"
NAME = f"sluice-{ID}"
MINE = Passport(id=ID, kind="volume", name="a", thick=True)
SIZE, GROWN, STEP = 64 * MIB, 128 * MIB, 40 * MIB


class FakeGroup:
    """A group whose commands do what they say. `refused` are the words of those for which there is no room."""

    def __init__(self) -> None:
        self.devices = (Path("/dev/one"), Path("/dev/two"))
        self.lvs: dict[str, Lv] = {}
        self.commands: list[str] = []
        self.tags: set[str] = set()
        self.size = 0
        self.refused = ""

    def change(self, command: str, *words: str) -> None:
        """Do a command."""
        if self.refused and self.refused in words:
            raise NoSpace("insufficient free space")
        self.commands.append(command)
        for word, value in itertools.pairwise(words):
            match word:
                case "-L":
                    self.size = int(value.removesuffix("b"))
                case "--addtag":
                    self.tags.add(value)
                case "--deltag":
                    self.tags.remove(value)

    def keep(self, record_id: str, lv: Lv) -> None:
        """Note what a change made of it."""
        self.lvs[record_id] = lv

    def whole_extents(self, size: int) -> int:
        """Return as much."""
        return size


class Rig:
    """Hold a group, its thick volumes, and what was zeroed: a step each time, and no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.group = FakeGroup()
        self.zeroed: list[tuple[int, int]] = []
        device = Device(Path("/dev/dm-1"), DevNo(253, 1))
        monkeypatch.setattr(lvmthick, "zero", self._zero)
        monkeypatch.setattr(block, "size_bytes", lambda _: self.group.size)
        self.thick = Thick("fast", "thin", self.group, None, lambda _: device)  # type: ignore[arg-type]

    def _zero(self, _kernel: object, _path: Path, start: int, end: int, _deadline: Deadline) -> int:
        reached = min(end, start + STEP)
        self.zeroed.append((start, reached))
        return reached

    @property
    def lv(self) -> Lv:
        return self.group.lvs[ID]

    def create(self) -> bool:
        return self.thick.create(self.group.lvs.get(ID), MINE, SIZE)

    def restart(self) -> None:
        """Forget all but what lvm reports."""
        row = {"lv_name": NAME, "lv_size": str(self.group.size), "lv_tags": ",".join(self.group.tags), "pool_lv": ""}
        self.group.lvs[ID] = lvmgroup._lv(row)

    def made(self) -> None:
        with pytest.raises(Busy):
            self.create()
        assert self.create()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_a_volume_is_made_when_all_of_it_is_zero_and_not_before(rig: Rig) -> None:
    """Each try goes on where the last one ended; only then the tags say so."""
    with pytest.raises(Busy, match="41943040 of 67108864 bytes"):
        rig.create()
    early = (set(rig.group.tags), rig.lv.zeroed, rig.lv.blank)
    made, again = rig.create(), rig.create()

    assert rig.zeroed == [(0, STEP), (STEP, SIZE)]
    assert ("sluice:zeroed=0" in early[0], BLANK in early[0], *early[1:]) == (True, False, 0, False)
    assert (made, again) == (True, False)
    assert {f"sluice:zeroed={SIZE}", BLANK, "sluice:pool=thin"} < rig.group.tags
    assert (rig.lv.size, rig.lv.zeroed, rig.lv.blank) == (SIZE, SIZE, True)
    assert rig.group.commands == ["lvcreate", "lvchange", "lvchange"]
    assert not any(tag.startswith(REACHED) for tag in rig.group.tags)


def test_zeroing_goes_on_after_a_restart_where_it_was(rig: Rig) -> None:
    """Of a new volume and of one that grows: what is noted is zeroed, and nothing of it is shown before all is."""
    shown = []
    with pytest.raises(Busy):
        rig.create()
    rig.restart()
    shown.append(rig.lv.zeroed)
    rig.create()
    with pytest.raises(Busy):
        rig.thick.expand(ID, rig.lv, GROWN)
    rig.restart()
    shown.append(rig.lv.zeroed)
    rig.thick.expand(ID, rig.lv, GROWN)
    rig.restart()
    shown.append(rig.lv.zeroed)

    assert rig.zeroed == [(0, STEP), (STEP, SIZE), (SIZE, SIZE + STEP), (SIZE + STEP, GROWN)]
    assert shown == [0, SIZE, GROWN]


def test_a_volume_that_was_removed_half_made_is_zeroed_from_the_start(rig: Rig) -> None:
    """The next one of its id may lie elsewhere."""
    with pytest.raises(Busy):
        rig.create()
    del rig.group.lvs[ID]
    rig.made()

    assert rig.zeroed == [(0, STEP), (0, STEP), (STEP, SIZE)]


def test_growth_touches_nothing_that_was_there_and_extends_once(rig: Rig) -> None:
    """It takes two tries here; until the second has ended no more is told than was zeroed before."""
    rig.made()
    rig.thick.take(ID, rig.lv)
    rig.zeroed.clear()
    with pytest.raises(Busy):
        rig.thick.expand(ID, rig.lv, GROWN)
    early = rig.lv.zeroed
    grown, again = rig.thick.expand(ID, rig.lv, GROWN), rig.thick.expand(ID, rig.lv, GROWN)

    assert rig.zeroed == [(SIZE, SIZE + STEP), (SIZE + STEP, GROWN)]
    assert (early, rig.lv.zeroed, grown, again) == (SIZE, GROWN, True, False)
    assert rig.group.commands.count("lvextend") == 1
    assert BLANK not in rig.group.tags


def test_a_volume_is_noted_as_given_once(rig: Rig) -> None:
    """One command the first time, none later."""
    rig.made()
    for _ in range(2):
        rig.thick.take(ID, rig.lv)

    assert (rig.lv.blank, BLANK in rig.group.tags, rig.group.commands.count("lvchange")) == (False, False, 3)


def test_a_volume_whose_tag_is_gone_is_not_zeroed(rig: Rig) -> None:
    """What nobody knows to be empty may be somebody's."""
    rig.group.lvs[ID] = Lv(NAME, SIZE, MINE, thick=True)

    with pytest.raises(Foreign, match="lost its tag"):
        rig.thick.expand(ID, rig.lv, GROWN)
    assert not rig.create()
    assert (rig.zeroed, rig.group.commands) == ([], [])


def test_a_volume_for_which_not_all_disks_have_room_is_linear(rig: Rig) -> None:
    """Striped is a wish, room is not."""
    rig.group.refused = "-i"
    rig.made()

    assert rig.group.commands == ["lvcreate", "lvchange", "lvchange"]
