"""One process acts on a state folder: the server, or a command in its place; never beside a dead server's programs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import structlog

from csi_driver.assemble import Machine
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Unknown, Unready
from csi_driver.host.statelock import ProgramsLock, StateLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = structlog.get_logger(__name__)

ORPHAN_SECONDS = 60.0
"""How long a start waits for programs of a server that died. Only what hangs in the kernel takes longer."""


@contextlib.contextmanager
def in_place_of_a_server(state: Path) -> Iterator[Machine]:
    """Hold a state folder, which is made 0700, and give the machine. Raises Unready while a server has the folder."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as at_end:
        at_end.callback(StateLock(state).release)
        machine = Machine()
        at_end.callback(machine.dead_man.close)
        sign_programs(state, machine, at_end)
        yield machine


def sign_programs(state: Path, machine: Machine, at_end: contextlib.ExitStack) -> None:
    """Wait until no program of a server that died runs any more, and mark those of this process. Raises Unready."""
    lock = ProgramsLock(state)
    at_end.callback(lock.release)
    if not lock.take():
        log.warning("waiting for programs of a server that died", processes=lock.holders(), seconds=ORPHAN_SECONDS)
        try:
            wait_for("they end", lock.take, Deadline(ORPHAN_SECONDS))
        except Unknown as error:
            raise Unready(
                f"state: programs of a server that died still run after {ORPHAN_SECONDS:.0f} s: "
                f"{', '.join(lock.holders())}; end them, or see in the kernel log why they hang"
            ) from error
    machine.runner.sign = lock.fd
    at_end.callback(setattr, machine.runner, "sign", None)
