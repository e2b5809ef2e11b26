"""The enforcer, over a folder that behaves as the kernel does."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from qos.cgroup import Cgroup, HelperCgroup
from qos.enforce import Enforcer, Off
from qos.errors import DeviceGone, Unenforceable
from qos.iofiles import parse_io_max
from qos.limits import UNLIMITED, DevNo, Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qos.enforce import Enforcement

DISK, OTHER, FOREIGN = DevNo(253, 0), DevNo(253, 1), DevNo(8, 0)
SLOW, FAST = Limits(riops=100), Limits(riops=1000, wbps=2**20)
KEYS = ("rbps", "wbps", "riops", "wiops")


class FakeCgroup(Cgroup):
    """Judge writes to io.max as tg_set_limit does: one device, known keys, 0 -> ERANGE, 1 -> EINVAL, the rest kept."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.disks = {DISK, OTHER, FOREIGN}
        self.writes: list[str] = []
        self.deaf = False
        self.before_write: Callable[[], None] = lambda: None
        self.lines: dict[str, dict[str, str]] = {}
        self.show()

    def show(self) -> None:
        kept = {dev: keys for dev, keys in self.lines.items() if set(keys.values()) != {"max"}}
        text = "".join(f"{dev} {' '.join(f'{key}={keys[key]}' for key in KEYS)}\n" for dev, keys in kept.items())
        (self.path / "io.max").write_text("(unknown) rbps=5 wbps=max riops=max wiops=max\n" + text)

    def someone_writes(self, text: str) -> None:
        dev, *pairs = text.split()
        if DevNo.parse(dev) not in self.disks:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        line = dict(self.lines.get(dev, dict.fromkeys(KEYS, "max")))
        for pair in pairs:
            key, _, value = pair.partition("=")
            if value == "0":
                raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
            if key not in KEYS or value == "1" or not (value == "max" or value.isdigit()):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            line[key] = value
        self.lines[dev] = line
        self.show()

    def refuse(self) -> None:
        raise Unenforceable("refused")

    def _write(self, name: str, text: str) -> None:
        self.before_write()
        if name == "io.max" and os.access(self.path / name, os.F_OK):
            self.writes.append(text)
            try:
                if not self.deaf:
                    self.someone_writes(text)
            except OSError as error:
                kind = DeviceGone if error.errno == errno.ENODEV else Unenforceable
                raise kind(text) from error
        else:
            super()._write(name, text)


@pytest.fixture
def ancestor(tmp_path: Path) -> FakeCgroup:
    return FakeCgroup(tmp_path)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def enforcer(ancestor: Cgroup, said: list[str]) -> Enforcer:
    return Enforcer(ancestor, period=0.01, log=said.append)


def test_apply_writes_all_four_keys_once_and_says_what_the_kernel_shows(
    enforcer: Enforcer, ancestor: FakeCgroup
) -> None:
    """One device, one write: the kernel takes two lines for an error."""
    shown = enforcer.apply(DISK, SLOW)

    assert shown == SLOW
    assert ancestor.writes == ["253:0 rbps=max wbps=max riops=100 wiops=max\n"]
    assert enforcer.wanted() == {DISK: SLOW}
    assert enforcer.seen() == {DISK: SLOW}


def test_apply_replaces_a_line_that_another_device_left_under_the_number(
    enforcer: Enforcer, ancestor: FakeCgroup
) -> None:
    """Device numbers are used again; nothing of an old line may remain."""
    ancestor.someone_writes("253:0 rbps=5000 wiops=7")

    enforcer.apply(DISK, SLOW)

    assert enforcer.seen() == {DISK: SLOW}


def test_drift_is_repaired_within_one_pass_and_counted(
    enforcer: Enforcer, ancestor: FakeCgroup, said: list[str]
) -> None:
    """Also a limit added to a volume that is to have none; other people's devices are left alone."""
    enforcer.apply(DISK, SLOW)
    enforcer.apply(OTHER, UNLIMITED)
    for line in ("253:0 riops=max", "253:1 rbps=4096", "8:0 rbps=9000"):
        ancestor.someone_writes(line)

    repaired = enforcer.reconcile()

    assert repaired == 2
    assert enforcer.drift_repaired == 2
    assert enforcer.failures == 0
    assert enforcer.seen() == {DISK: SLOW, FOREIGN: Limits(rbps=9000)}
    assert any("253:0" in line for line in said)


def test_a_pass_without_drift_writes_nothing(enforcer: Enforcer, ancestor: FakeCgroup, said: list[str]) -> None:
    """Every five seconds, forever: it must cost one read."""
    enforcer.apply(DISK, SLOW)
    ancestor.writes.clear()

    assert enforcer.reconcile() == 0
    assert (ancestor.writes, said) == ([], [])


def test_an_old_plan_does_not_undo_an_apply(enforcer: Enforcer, ancestor: FakeCgroup) -> None:
    """An apply that comes between a pass's look and its write waits, and has the last word."""
    enforcer.apply(DISK, SLOW)
    ancestor.someone_writes("253:0 riops=max")
    thread = threading.Thread(target=enforcer.apply, args=(DISK, FAST))

    def come_between() -> None:
        ancestor.before_write = lambda: None
        thread.start()
        thread.join(0.2)  # without the lock it would end here, and be undone below

    ancestor.before_write = come_between
    enforcer.reconcile()
    thread.join()

    assert enforcer.seen() == enforcer.wanted() == {DISK: FAST}


def test_lift_takes_the_limits_off_and_forgets(enforcer: Enforcer, ancestor: FakeCgroup) -> None:
    """The number's next owner must not inherit them, nor have them put back."""
    enforcer.apply(DISK, FAST)

    enforcer.lift(DISK)
    enforcer.reconcile()

    assert ancestor.writes[-1] == "253:0 rbps=max wbps=max riops=max wiops=max\n"
    assert enforcer.seen() == enforcer.wanted() == {}


@pytest.mark.parametrize("gone", ["device", "cgroup"])
def test_lift_is_fine_when_the_limits_are_gone_already(enforcer: Enforcer, ancestor: FakeCgroup, gone: str) -> None:
    """They went with the device, or with the cgroup."""
    enforcer.apply(DISK, FAST)
    if gone == "device":
        ancestor.disks.remove(DISK)
    else:
        (ancestor.path / "io.max").unlink()

    enforcer.lift(DISK)

    assert enforcer.wanted() == {}


def test_a_lift_that_the_kernel_refuses_is_said_and_forgets_all_the_same(
    enforcer: Enforcer, ancestor: FakeCgroup
) -> None:
    """The caller learns that the line stays; a later pass must not write to the number's next owner."""
    enforcer.apply(DISK, FAST)
    ancestor.before_write = ancestor.refuse
    with pytest.raises(Unenforceable, match="refused"):
        enforcer.lift(DISK)

    assert enforcer.wanted() == {}


def test_forget_leaves_the_line_and_repairs_it_no_more(enforcer: Enforcer, ancestor: FakeCgroup) -> None:
    """What was forgotten is somebody else's."""
    enforcer.apply(DISK, FAST)
    enforcer.forget(DISK)
    ancestor.someone_writes("253:0 riops=5")

    assert enforcer.reconcile() == 0
    assert enforcer.seen() == {DISK: Limits(riops=5, wbps=2**20)}


def test_a_device_that_went_is_forgotten_loudly(enforcer: Enforcer, ancestor: FakeCgroup, said: list[str]) -> None:
    """Its number may be another disk's by the next pass. The other devices get their limits all the same."""
    enforcer.apply(DISK, SLOW)
    enforcer.apply(OTHER, SLOW)
    ancestor.disks.remove(DISK)
    ancestor.lines.clear()
    ancestor.show()

    assert enforcer.reconcile() == 1
    assert enforcer.wanted() == {OTHER: SLOW}
    assert enforcer.failures == 1
    assert any("253:0" in line for line in said)


def test_io_that_is_missing_is_loud_as_long_as_it_is_missing(
    enforcer: Enforcer, ancestor: FakeCgroup, said: list[str]
) -> None:
    """Every limit is gone then; the pass says so, counts it, and goes on trying."""
    enforcer.apply(DISK, SLOW)
    (ancestor.path / "io.max").unlink()

    assert [enforcer.reconcile(), enforcer.reconcile()] == [0, 0]
    assert enforcer.failures == 2
    assert "io is missing" in said[0]
    assert "not enforced on 1 devices" in said[1]
    assert enforcer.wanted() == {DISK: SLOW}


def test_io_that_comes_back_brings_the_limits_back(enforcer: Enforcer, ancestor: FakeCgroup) -> None:
    """-io and +io on a parent loses every line; they count as drift."""
    enforcer.apply(DISK, SLOW)
    (ancestor.path / "io.max").unlink()
    ancestor.lines.clear()
    ancestor.repair = ancestor.show  # type: ignore[method-assign]

    assert enforcer.reconcile() == 1
    assert enforcer.seen() == {DISK: SLOW}


def test_what_was_wanted_before_stays_wanted_when_an_apply_fails(enforcer: Enforcer, ancestor: FakeCgroup) -> None:
    """A change of limits that can't be made leaves the old ones in force."""
    enforcer.apply(DISK, SLOW)
    ancestor.deaf = True
    with pytest.raises(Unenforceable, match=r"253:0 .*wrote rbps=max wbps=1048576 riops=1000 .*shows .*riops=100 "):
        enforcer.apply(DISK, FAST)

    assert enforcer.wanted() == {DISK: SLOW}


def test_an_apply_that_fails_leaves_nothing_wanted(enforcer: Enforcer, ancestor: FakeCgroup) -> None:
    """The stage fails, so the device goes; nothing may be put on its number later."""
    with pytest.raises(DeviceGone):
        enforcer.apply(DevNo(259, 1), SLOW)

    assert enforcer.wanted() == {}


def test_the_thread_repairs_and_outlives_a_bug(enforcer: Enforcer, ancestor: FakeCgroup, said: list[str]) -> None:
    """An exception that nobody thought of is said loudly, and the next pass comes. Limits stay after the end."""
    enforcer.apply(DISK, SLOW)
    repaired = threading.Event()

    def fail_once() -> None:
        ancestor.before_write = repaired.set
        raise RuntimeError("a bug")

    ancestor.before_write = fail_once
    ancestor.someone_writes("253:0 riops=max")
    enforcer.start()
    enforcer.start()
    came = repaired.wait(10)
    enforcer.stop()

    assert came
    assert parse_io_max((ancestor.path / "io.max").read_text()) == {DISK: SLOW}
    assert any("RuntimeError: a bug" in line for line in said)
    assert [thread for thread in threading.enumerate() if thread.name == "qos-enforcer"] == []


def test_off_has_the_same_surface_and_does_nothing(ancestor: FakeCgroup) -> None:
    """Whoever holds an Enforcement need not know which."""
    with_helper: Enforcement = Enforcer(ancestor, helper=HelperCgroup(ancestor))
    off: Enforcement = Off()
    off.start()
    off.lift(DISK)
    off.forget(DISK)
    off.stop()

    assert with_helper.helper_prefix[-1] == f"{ancestor.path}/cgroup.procs"
    assert off.apply(DISK, SLOW) == UNLIMITED
    assert (off.helper_prefix, off.reconcile(), off.failures, off.drift_repaired) == ((), 0, 0, 0)
    assert off.seen() == off.wanted() == {}
