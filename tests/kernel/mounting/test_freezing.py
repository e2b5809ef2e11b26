"""Freezes by FIFREEZE, in a mount namespace of their own. Needs root and loop devices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Busy, Unready
from csi_driver.host.freeze import DeadMan
from csi_driver.host.syscalls import FIFREEZE, FITHAW

if TYPE_CHECKING:
    from tests.kernel.mounting.rig import Rig

pytestmark = pytest.mark.native

REPO = Path(__file__).parents[3]


def test_writers_wait_while_frozen(rig: Rig) -> None:
    """Without device-mapper FIFREEZE holds writers back, and FITHAW lets them go on."""
    place = rig.mounted("volume")
    with ThreadPoolExecutor(1) as pool:
        with rig.freezer.frozen(place):
            writing = pool.submit((place / "file").write_bytes, b"x")
            with pytest.raises(TimeoutError):
                writing.result(0.2)
        assert writing.result(10) == 1


def is_frozen(rig: Rig, place: Path) -> bool:
    """Try to freeze; what that froze is thawed again."""
    fd = os.open(place, os.O_RDONLY)
    try:
        rig.kernel.ioctl(fd, FIFREEZE)
    except OSError:
        return True
    else:
        rig.kernel.ioctl(fd, FITHAW)
        return False
    finally:
        os.close(fd)


def test_an_administrators_freeze_is_left_alone(rig: Rig) -> None:
    """What somebody else froze can be cut, and stays frozen."""
    place = rig.mounted("volume")
    fd = os.open(place, os.O_RDONLY)
    try:
        rig.kernel.ioctl(fd, FIFREEZE)
        with rig.freezer.frozen(place):
            pass
        still = is_frozen(rig, place)
        rig.kernel.ioctl(fd, FITHAW)
    finally:
        os.close(fd)

    assert still


def test_a_cut_that_an_administrator_thawed_is_thrown_away(rig: Rig) -> None:
    """If the other's freeze ends during the cut, the cut is not of one moment, and the volume is left thawed."""
    place = rig.mounted("volume")
    fd = os.open(place, os.O_RDONLY)
    try:
        rig.kernel.ioctl(fd, FIFREEZE)
        with pytest.raises(Busy, match="thawed"), rig.freezer.frozen(place):
            rig.kernel.ioctl(fd, FITHAW)
    finally:
        os.close(fd)

    assert not is_frozen(rig, place)


def test_a_freeze_that_lasts_too_long_is_ended_and_said(rig: Rig) -> None:
    """The dead man thaws at its limit, and `frozen` raises."""
    place = rig.mounted("volume")
    freezer = rig.freezer_with(DeadMan(limit=0.3))

    with pytest.raises(Unready, match="more than"), freezer.frozen(place):
        (place / "file").write_bytes(b"x")  # waits until the dead man comes

    assert not is_frozen(rig, place)


DIE_INSIDE = """
import signal, sys
from pathlib import Path
from csi_driver.host.dm import DeviceMapper
from csi_driver.host.freeze import DeadMan, Freezer
from csi_driver.host.syscalls import Kernel
kernel = Kernel()
with Freezer(kernel, DeviceMapper(kernel), DeadMan()).frozen(Path(sys.argv[1])):
    print("inside", flush=True)
    signal.pause()
"""


def test_a_dead_man_thaws_when_we_die_inside(rig: Rig) -> None:
    """After SIGKILL to the whole process group of the process that froze it, the volume is thawed."""
    place = rig.mounted("volume")
    command = [sys.executable, "-c", DIE_INSIDE, str(place)]
    environment = {"PYTHONPATH": str(REPO)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"inside\n"
        frozen_inside = is_frozen(rig, place)
        os.killpg(child.pid, signal.SIGKILL)

    wait_for("the volume is thawed", lambda: not is_frozen(rig, place), Deadline(10))

    assert frozen_inside


def test_a_dead_man_that_was_killed_is_started_again(rig: Rig) -> None:
    """Its death between two cuts is noticed before the next."""
    place = rig.mounted("volume")
    dead_man = DeadMan()
    freezer = rig.freezer_with(dead_man)
    with freezer.frozen(place):
        pass
    first = dead_man.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for("the dead man is gone", lambda: not Path(f"/proc/{first}/exe").exists(), Deadline(5))

    with freezer.frozen(place):
        second = dead_man.pid

    assert second not in (None, first)


def test_nothing_is_frozen_when_the_dead_man_cant_be_armed(rig: Rig) -> None:
    """Without an acknowledged dead man there is no freeze."""
    place = rig.mounted("volume")
    freezer = rig.freezer_with(DeadMan(prefix=("/bin/false",)))

    with pytest.raises(Unready), freezer.frozen(place):
        pytest.fail("frozen without a dead man")

    assert not is_frozen(rig, place)
