"""Large thin volumes on their way out: how much is discarded, in which order, how fast, and what never is."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from csi_driver.backends import lvmemptying, lvmgroup
from csi_driver.backends.base import Passport
from csi_driver.backends.lvmemptying import Emptying
from csi_driver.backends.lvmgroup import CONDEMNED, Lv
from csi_driver.errors import Busy, Unsupported
from csi_driver.host import block
from csi_driver.host.block import Device
from csi_driver.host.thin import Mapped, mapped
from qos.limits import DevNo

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 16
ID = "8d1f5c3e-6a52-4b7e-9d10-0c2f4e6a8b90"
LV = Lv(f"sluice-{ID}", 1 << 40, Passport(id=ID, kind="volume", name="a"))
DEVICE = Device(Path("/dev/dm-1"), DevNo(253, 1))
AT_ONCE, STEP = 10, 4


class Rig:
    """Hold a volume by the chunks that are mapped, what is done to it, and the time that passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chunks: set[int], size: int = LV.size) -> None:
        self.chunks = chunks
        self.size = size
        self.events: list[object] = []
        self.now = 0.0
        self.takes = 0.01
        self.device: Device | None = DEVICE
        self.openers = 1
        self.refused = False
        self.lv = LV
        self.lvs = {ID: LV}
        group = SimpleNamespace(chunk=CHUNK, lvs=self.lvs, change=self._change, keep=self._keep)
        devices = SimpleNamespace(of=lambda _: self.device, mapped=lambda _: self._mapped(), openers=self._openers)
        for name, value in (("AT_ONCE", AT_ONCE), ("LARGEST_STEP", STEP), ("SMALLEST_STEP", 1)):
            monkeypatch.setattr(lvmemptying, name, value)
        monkeypatch.setattr(lvmemptying, "held_alone", self._held)
        monkeypatch.setattr(lvmemptying, "discard", self._discard)
        monkeypatch.setattr(block, "size_bytes", lambda _: self.size)
        monkeypatch.setattr(block, "read_only", lambda _: False)
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("time.sleep", self._sleep)
        self.emptying = Emptying("fast", group, devices, None)  # type: ignore[arg-type]

    def empty(self) -> None:
        self.emptying.empty(ID, self.lv)

    @property
    def discarded(self) -> list[tuple[int, int]]:
        """Return the ranges that were discarded, in chunks."""
        return [event for event in self.events if isinstance(event, tuple)]

    @property
    def pauses(self) -> list[float]:
        return [event for event in self.events if isinstance(event, float)]

    def _change(self, *words: str) -> None:
        self.events.append(" ".join(words))

    def _keep(self, _: str, lv: Lv) -> None:
        self.lv = lv

    def _mapped(self) -> Mapped:
        return Mapped(len(self.chunks) * CHUNK, (max(self.chunks, default=-1) + 1) * CHUNK)

    def _openers(self, _: str) -> int:
        return self.openers

    @contextlib.contextmanager
    def _held(self, *_: object) -> Iterator[int]:
        yield 3

    def _discard(self, _: object, __: int, ___: Path, start: int, length: int) -> None:
        if self.refused:
            raise Unsupported("it doesn't discard")
        first, end = -(-start // CHUNK), (start + length) // CHUNK  # of parts of chunks the kernel takes none
        self.events.append((start // CHUNK, end))
        self.chunks -= set(range(first, end))
        self.now += self.takes

    def _sleep(self, seconds: float) -> None:
        self.events.append(seconds)
        self.now += seconds


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Give a volume with 20 chunks mapped: 12 at its begin, a hole, 8 far behind."""
    return Rig(monkeypatch, {*range(12), *range(1000, 1008)})


def emptied(rig: Rig) -> bool:
    """Make a try, and return whether it was the last."""
    try:
        rig.empty()
    except Busy:
        return False
    return True


def test_what_is_mapped_goes_from_the_end_down_and_the_last_chunks_stay_for_the_removal(rig: Rig) -> None:
    """The hole costs no step. Before the first one a tag says, durably, that bytes are missing."""
    rig.empty()

    assert rig.discarded == [(1004, 1008), (1000, 1004), (8, 12)]
    assert rig.chunks == set(range(8))
    assert rig.events[0] == f"lvchange --addtag {CONDEMNED} fast/{LV.name}"
    assert rig.pauses == pytest.approx([0.03, 0.03, 0.03])


def test_a_volume_that_the_removal_can_do_at_once_pays_nothing(rig: Rig) -> None:
    """No program, no discard: however large it is, and however far behind its bytes lie."""
    rig.chunks = set(range(5000, 5010))
    rig.empty()

    assert rig.events == []


@pytest.mark.parametrize("why", ["thick", "inactive", "read-only"])
def test_what_is_thick_inactive_or_read_only_is_left_alone(rig: Rig, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thick volume maps nothing, a snapshot isn't active, and what may not be written is not discarded."""
    rig.lv = dataclasses.replace(LV, thick=why == "thick")
    rig.device = None if why == "inactive" else DEVICE
    monkeypatch.setattr(block, "read_only", lambda _: why == "read-only")
    rig.empty()

    assert rig.events == []


@pytest.mark.parametrize(
    ("mine", "other", "alone"),
    [("", ID, False), ("", "gone", False), ("other", "", False), ("", "", True), ("", "other", True)],
)
def test_what_may_share_chunks_is_left_to_its_removal(rig: Rig, mine: str, other: str, alone: bool) -> None:
    """A copy, and what was copied; of one whose source is gone nobody knows what it shares, and with whom."""
    passport = LV.passport
    assert passport is not None
    rig.lv = rig.lvs[ID] = dataclasses.replace(LV, passport=dataclasses.replace(passport, parent=mine))
    for name, parent in (("other", ""), ("another", other)):
        rig.lvs[name] = Lv(name, 1, dataclasses.replace(passport, id=name, parent=parent))
    rig.empty()

    assert bool(rig.discarded) is alone


def test_a_try_ends_after_a_second_and_the_next_goes_on(rig: Rig) -> None:
    """It says how much is left; steps that take long get shorter; the tag is written once."""
    rig.takes = 0.4
    with pytest.raises(Busy, match=r"is emptied before it is removed: 1Mi of it are mapped still"):
        rig.empty()
    first = list(rig.discarded)
    assert any(emptied(rig) for _ in range(8))

    assert first == [(1004, 1008)]
    assert rig.discarded[1:3] == [(1002, 1004), (1001, 1002)]
    assert len(rig.chunks) == AT_ONCE
    assert sum(isinstance(event, str) for event in rig.events) == 1


def test_a_chunk_that_is_cut_by_the_volumes_end_keeps_no_try_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can't be discarded, and stays the last that is mapped: the next try goes on where this one got to."""
    rig = Rig(monkeypatch, set(range(40)), size=40 * CHUNK - 4096)
    rig.takes = 0.09
    tries = next(number for number in range(1, 9) if emptied(rig))

    assert rig.chunks == {*range(7), 39}
    assert tries == 3
    assert [end for _, end in rig.discarded] == sorted({end for _, end in rig.discarded}, reverse=True)


def test_what_somebody_has_open_is_not_discarded(rig: Rig) -> None:
    """The removal would be refused too."""
    rig.openers = 2

    with pytest.raises(Busy, match="nobody has it open"):
        rig.empty()
    assert rig.discarded == []


def test_one_volume_of_a_pool_is_emptied_at_a_time(rig: Rig) -> None:
    """The rate is the pool's; others come again."""
    with rig.emptying._one, pytest.raises(Busy, match="another large volume"):
        rig.empty()

    assert rig.events == []


def test_a_pool_that_takes_no_discards_leaves_all_to_the_removal(rig: Rig) -> None:
    """And the next volume can be emptied."""
    rig.refused = True
    for _ in range(2):
        rig.empty()

    assert len(rig.chunks) == 20


@pytest.mark.parametrize(("words", "expected"), [("128 1023", (65536, 524288)), ("0 -", (0, 0))])
def test_the_kernels_words_on_a_thin_volume_are_read(words: str, expected: tuple[int, int]) -> None:
    """How much is mapped, and where the last of it ends."""
    found = mapped("a", words)

    assert (found.bytes, found.end) == expected


def test_the_tag_is_read_and_hides_what_the_volume_was() -> None:
    """So that no adoption takes a volume without its bytes for whole."""
    row = {"lv_name": LV.name, "lv_size": "4194304", "lv_tags": f"sluice:id={ID},{CONDEMNED}", "pool_lv": "thin"}

    assert lvmgroup._lv(row).condemned
