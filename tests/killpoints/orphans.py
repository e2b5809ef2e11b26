"""Programs that outlive their server: held where they begin, so that the next server starts beside them."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil

from csi_driver.deadline import Deadline, wait_for
from csi_driver.host.statelock import ProgramsLock
from tests.killpoints.fuse import Point
from tests.killpoints.serve import HOLD

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.killpoints.killable import Killable
    from tests.killpoints.served import Served

SECONDS = 20.0


def orphaned(on: Served, call: Callable[[], None], program: str) -> psutil.Process:
    """Make a call whose server dies when it has started a program, which has got no further. Return that one."""
    hold = on.server.folder / HOLD
    hold.touch()
    died = on.cut(call, Point(0, "inside", f"run {program}")).died
    orphan = psutil.Process(int(hold.read_text()))
    hold.unlink()
    assert died
    wait_for("it stops", lambda: orphan.status() == psutil.STATUS_STOPPED, Deadline(SECONDS))
    return orphan


def restart_beside(on: Served, orphan: psutil.Process, ask: Callable[[], None] = lambda: None) -> bool:
    """Begin another life; let the orphan go on when that says that it waits for it, and then ask for something.

    Where it doesn't wait it is asked before the orphan goes on. Return whether it waited.
    """
    server = on.server
    said = f"{orphan.pid} ("
    with ThreadPoolExecutor(1) as threads:
        life = threads.submit(on.restart)
        try:
            wait_for("it waits, or serves", lambda: said in server.log.read_text() or life.done(), Deadline(SECONDS))
            waits = not life.done()
            if not waits:
                ask()
        finally:
            orphan.resume()
        life.result()
    if waits:
        ask()
    wait_for("the orphan ends", lambda: ended(orphan), Deadline(SECONDS))
    return waits


def ended(orphan: psutil.Process) -> bool:
    """Return whether it has ended; whoever has to bury it may not have done so."""
    return not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def end_orphans(server: Killable) -> list[str]:
    """End what a server that died has left running, at once. Return its processes."""
    holders = ProgramsLock(server.folder / "state").holders()
    for who in holders:
        with contextlib.suppress(psutil.NoSuchProcess):  # it was through
            psutil.Process(int(who.split()[0])).kill()
    return holders
