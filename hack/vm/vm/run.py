"""``hack/vm/run``: one command in one machine, and a verdict that never mistakes the machine for the command."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, NoReturn

from .accel import choose_accelerator
from .attend import Attendant, Ending
from .build import prepare
from .cache import Cache, default_root
from .host import VmError, note
from .job import Job, make_job_disk, unpack
from .machine import CONSOLE, DataDisk, Hardware, running
from .options import Options, parse

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

TIMED_OUT = 124
MACHINE_FAILED = 125
DEFAULT_DISK = 4 << 30
BOOT_SECONDS = {"kvm": 3, "tcg": 10}


def main() -> int:
    """Run what the command line asks for and return the exit status."""
    options = parse(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        return _run(options)
    except VmError as error:
        note(str(error))
        return MACHINE_FAILED


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """Unwind, so that the machine and its files go too."""
    note(f"ended by {signal.Signals(number).name}")
    raise SystemExit(128 + number)


def _run(options: Options) -> int:
    cache = Cache(default_root())
    emulator, image = prepare(cache)
    accelerator = options.accelerator or choose_accelerator(cache, emulator, image)
    environment = {"CI": os.environ["CI"]} if "CI" in os.environ else {}
    job = Job(
        nonce=secrets.token_hex(8),
        argv=options.command,
        environment={**environment, **options.environment},
        puts=options.puts,
        takes=options.takes,
        orderly=options.keep is not None,
    )
    with ExitStack() as stack:
        folder = stack.enter_context(cache.run_folder())
        hardware = Hardware(
            accelerator,
            make_job_disk(folder, job, cache),
            _data_disk(options, folder),
            options.memory >> 20,
            options.processors,
            options.append,
        )
        sinks: dict[str, IO[bytes]] = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
        sinks["results"] = stack.enter_context((folder / "results.tar").open("wb"))
        if options.console is not None:
            sinks[CONSOLE] = stack.enter_context(options.console.open("wb"))
        note(f"booting the VM ({accelerator.upper()}), about {BOOT_SECONDS[accelerator]} s")
        started = time.monotonic()
        machine = stack.enter_context(running(emulator, image, hardware))
        attendant = Attendant(
            machine, job.nonce, sinks, lambda: note(f"COMMAND begins after {time.monotonic() - started:.1f} s")
        )
        ending = attendant.attend(options.timeout, orderly=job.orderly)
        if ending is Ending.REPORTED and job.orderly and not attendant.is_gone:
            note("the VM did not shut down in time and was ended; what was written to the disk before is there")
        status = _verdict(ending, attendant, options)
        return _take_out(folder / "results.tar", attendant, options, status)


def _data_disk(options: Options, folder: Path) -> DataDisk:
    path = options.keep or folder / "data.raw"
    try:
        with path.open("ab") as file:
            present = file.tell()
            if present == 0:
                file.truncate(options.disk or DEFAULT_DISK)
            elif options.disk not in (None, present):
                raise VmError(f"{path} has {present} bytes, not {options.disk}: remove it or leave out --disk")
    except OSError as error:
        raise VmError(f"cannot use {path} as the data disk: {error.strerror}") from error
    return DataDisk(path, options.iops, options.bps)


def _verdict(ending: Ending, attendant: Attendant, options: Options) -> int:
    """Turn the ending into an exit status and, where it is not the command's own, one line that says so."""
    record = attendant.record
    during = "while COMMAND ran" if record.began is not None else "while booting"
    match ending:
        case Ending.REPORTED if options.expect_cut:
            note(f"COMMAND ended with status {record.status}; it was expected to cut the power")
            return MACHINE_FAILED
        case Ending.REPORTED if record.status is not None:
            return record.status
        case Ending.CUT if options.expect_cut:
            return 0
        case Ending.CUT:
            note(f"the VM was reset {during}; use --expect-cut if it is meant to be")
        case Ending.OFF:
            note(f"the VM was switched off {during}, so COMMAND has no status")
        case Ending.TIMED_OUT:
            note(f"COMMAND took longer than {options.timeout:g} s and was ended with its VM")
            return TIMED_OUT
        case Ending.NOT_BOOTED:
            note(f"the VM did not come up. Its console:\n{record.last_words()}")
        case _:
            note(f"the VM crashed {during}; this is no result of COMMAND. Its console:\n{record.last_words()}")
    return MACHINE_FAILED


def _take_out(archive: Path, attendant: Attendant, options: Options, status: int) -> int:
    """Unpack the results, if any were asked for; without them a run has not succeeded."""
    if not options.takes or attendant.record.status is None:
        return status
    unpack(archive, options.takes)
    if attendant.record.results != 0:
        note("not all that --get asked for was in the VM")
        return status or MACHINE_FAILED
    return status
