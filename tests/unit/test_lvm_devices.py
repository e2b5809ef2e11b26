"""What a killed command of LVM's left suspended."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from csi_driver.backends import lvmdevices
from csi_driver.backends.lvmdevices import LvDevices
from csi_driver.errors import Unready
from csi_driver.host import block
from csi_driver.host.block import Device
from qos.limits import DevNo

VOLUME, METADATA, POOL = "fast-sluice--a", "fast-thin_tmeta", "fast-thin-tpool"
ANOTHER = "fast--b-sluice--a"
"""A volume of a group that is called fast-b."""
NAMES = (VOLUME, "fast-thin", METADATA, POOL, "sluice-a", ANOTHER)


@dataclass(frozen=True)
class State:
    """What device-mapper says of a device."""

    name: str
    suspended: bool
    uuid: str

    @property
    def device(self) -> Device:
        """Return its device, the number of which is its place in NAMES."""
        return Device(Path("/dev") / self.name, DevNo(253, NAMES.index(self.name)))


class FakeMapper:
    """Devices, what was done to them, and which of them their owner resumes after the first look."""

    def __init__(self, *suspended: str, theirs: tuple[str, ...] = ()) -> None:
        self.suspended = set(suspended)
        self.theirs = set(theirs)
        self.looks = 0
        self.done: list[str] = []

    def list(self, prefix: str) -> tuple[str, ...]:
        """Return the names that begin so."""
        found = tuple(name for name in NAMES if name.startswith(prefix))
        if self.looks > 1:
            self.suspended -= self.theirs
        self.looks += 1
        return found

    def info(self, name: str) -> State:
        """Tell of one."""
        return State(name, name in self.suspended, "SLUICE-a" if name == "sluice-a" else f"LVM-{name}")

    def forget_table(self, name: str) -> None:
        """Note it."""
        self.done.append(f"forget {name}")

    def resume(self, name: str) -> None:
        """Note it."""
        self.suspended.discard(name)
        self.done.append(f"resume {name}")


def resumed(vg: str, mapper: FakeMapper) -> list[str]:
    """Resume all of a group, and return what was done."""
    LvDevices(vg, "thin", mapper, threading.RLock()).resume_all()  # type: ignore[arg-type]
    return mapper.done


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvmdevices, "OTHERS_SECONDS", 0.05)


def test_what_is_below_is_resumed_first_with_the_table_that_it_had() -> None:
    """A volume's I/O goes to its pool, and the pool's to its metadata."""
    done = resumed("fast", FakeMapper(VOLUME, POOL, METADATA))

    assert [word for word in done if word.startswith("resume")] == [
        f"resume {name}" for name in (METADATA, POOL, VOLUME)
    ]
    assert done[:2] == [f"forget {METADATA}", f"resume {METADATA}"]


def test_what_is_in_use_goes_on_undisturbed() -> None:
    """Nothing is done to devices that aren't suspended."""
    assert resumed("fast", FakeMapper()) == []


def test_a_volume_that_we_hold_still_is_not_one_of_a_group_called_sluice() -> None:
    """Its name begins like those of the group's; resumed in the middle of a cut, the cut would be worth nothing."""
    assert resumed("sluice", FakeMapper("sluice-a")) == []


def test_what_another_groups_command_holds_is_left_to_it() -> None:
    """Though its name begins like ours."""
    assert resumed("fast", FakeMapper(ANOTHER)) == []
    assert resumed("fast-b", FakeMapper(ANOTHER)) == [f"forget {ANOTHER}", f"resume {ANOTHER}"]


def test_what_an_administrators_command_resumes_by_itself_is_left_alone() -> None:
    """Its new table would be lost."""
    assert resumed("fast", FakeMapper(VOLUME, theirs=(VOLUME,))) == []


def test_a_pool_of_which_a_disk_was_pulled_out_is_told_and_another_groups_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By what stands on it, though everything has its node in /dev."""
    gone = DevNo(253, NAMES.index(ANOTHER))
    monkeypatch.setattr(block, "pulled_below", lambda dev: ("sdb",) if dev == gone else ())
    groups = {vg: LvDevices(vg, "thin", FakeMapper(), threading.RLock()) for vg in ("fast", "fast-b")}  # type: ignore[arg-type]
    groups["fast"].check_below()

    with pytest.raises(Unready, match=f"sdb was pulled out from under {ANOTHER}.*vgchange -an fast-b"):
        groups["fast-b"].check_below()
