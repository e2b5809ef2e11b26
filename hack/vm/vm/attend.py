"""Attending a running machine: passing on what it prints and finding out how it ended.

The guest reports on a port of its own in lines that begin with the job's nonce: ``began``, ``results N``
(tar's status) and ``ended N`` (the command's status). Nothing else counts as the command's result.
"""

from __future__ import annotations

import re
import selectors
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import IO, TYPE_CHECKING

from .machine import CONSOLE, PORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .machine import Machine

BOOT_LIMIT = 300.0
SHUTDOWN_LIMIT = 90.0
DRAIN_SECONDS = 0.5
STUCK = b"KVM internal error"
CHUNK = 1 << 16
CONSOLE_KEPT = 1 << 18
CRASHED = re.compile(r"KVM internal error|BUG: |Oops: |general protection fault|Kernel panic")
CUT = re.compile(r"sysrq: Resetting|reboot: Restarting system")
OFF = re.compile(r"reboot: Power down|reboot: System halted")
CONTROL = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|.)|[^\x20-\x7e\n\t]")


class Ending(Enum):
    """How a run came to its end."""

    REPORTED = "the command's status was reported"
    CUT = "the machine was reset"
    OFF = "the machine was switched off"
    CRASHED = "the machine crashed"
    NOT_BOOTED = "the machine did not come up"
    TIMED_OUT = "the command took too long"


@dataclass(slots=True)
class Record:
    """What is known about a run so far."""

    nonce: str
    console: bytearray = field(default_factory=bytearray)
    reports: bytearray = field(default_factory=bytearray)
    began: float | None = None
    status: int | None = None
    results: int | None = None

    def read_reports(self) -> None:
        """Take in the whole lines among the reports."""
        *lines, rest = bytes(self.reports).split(b"\n")
        self.reports[:] = rest
        for line in lines:
            match line.decode(errors="replace").split():
                case [nonce, "began"] if nonce == self.nonce:
                    self.began = time.monotonic()
                case [nonce, "results", number] if nonce == self.nonce and number.isdecimal():
                    self.results = int(number)
                case [nonce, "ended", number] if nonce == self.nonce and number.isdecimal():
                    self.status = int(number)

    def last_words(self, most: int = 25) -> str:
        """Return the console's lines from the first that tells of a crash, or else its end."""
        lines = CONTROL.sub("", self.console.decode(errors="replace")).strip().splitlines()
        first = next((number for number, line in enumerate(lines) if CRASHED.search(line)), len(lines) - most)
        return "\n".join(lines[max(first, 0) :][:most])

    def ending(self) -> Ending:
        """Judge a machine that stopped without having reported."""
        text = self.console.decode(errors="replace")
        if CRASHED.search(text):
            return Ending.CRASHED
        if CUT.search(text):
            return Ending.CUT
        return Ending.OFF if OFF.search(text) else Ending.CRASHED


class Attendant:
    """Serves one machine's channels until the run is over.

    What comes on stdout, stderr, results and console goes to the sink of that name; without one it is dropped.
    """

    def __init__(
        self,
        machine: Machine,
        nonce: str,
        sinks: Mapping[str, IO[bytes]],
        when_begun: Callable[[], None] = lambda: None,
    ) -> None:
        """Take a machine, its job's nonce, the sinks and what to call when the command begins."""
        self.record = Record(nonce)
        self._machine = machine
        self._sinks = dict(sinks)
        self._when_begun = when_begun
        self._selector = selectors.DefaultSelector()
        for name in (CONSOLE, *PORTS):
            self._selector.register(machine.channels[name], selectors.EVENT_READ, name)

    def attend(self, limit: float | None, *, boot_limit: float = BOOT_LIMIT, orderly: bool = False) -> Ending:
        """Serve until the command ended, the machine is gone, or the command's limit in seconds is over.

        An orderly machine is given time to shut down after its command.
        """
        boot_deadline = time.monotonic() + boot_limit
        while self._selector.get_map() and self.record.status is None:
            self._serve(1.0)
            now = time.monotonic()
            if STUCK in self.record.console:
                # QEMU stops such a machine for a debugger and would wait for ever.
                return Ending.CRASHED
            if self.record.began is None and now > boot_deadline:
                return Ending.NOT_BOOTED
            if limit is not None and self.record.began is not None and now > self.record.began + limit:
                return Ending.TIMED_OUT
        if self.record.status is None:
            return self.record.ending()
        shutdown_deadline = time.monotonic() + SHUTDOWN_LIMIT
        while orderly and self._selector.get_map() and time.monotonic() < shutdown_deadline:
            self._serve(1.0)
        # The report can overtake what was written before it: QEMU holds a buffer for each port, and passes them on in
        # no order. A busy host was seen to lose the end of the results that way.
        while self._serve(DRAIN_SECONDS):
            pass
        return Ending.REPORTED

    @property
    def is_gone(self) -> bool:
        """Say whether the machine closed all its channels."""
        return not self._selector.get_map()

    def _serve(self, wait: float) -> bool:
        """Handle what there is to read and say whether there was any."""
        events = self._selector.select(wait)
        for key, _ in events:
            channel = self._machine.channels[key.data]
            try:
                data = channel.recv(CHUNK)
            except ConnectionResetError:
                data = b""
            if data:
                self._handle(key.data, data)
            else:
                self._selector.unregister(channel)
        return bool(events)

    def _handle(self, name: str, data: bytes) -> None:
        if name == "status":
            waiting = self.record.began is None
            self.record.reports += data
            self.record.read_reports()
            if waiting and self.record.began is not None:
                self._when_begun()
        elif name == CONSOLE:
            self.record.console += data
            del self.record.console[:-CONSOLE_KEPT]
        if (sink := self._sinks.get(name)) is None:
            return
        try:
            sink.write(data)
            sink.flush()
        except BrokenPipeError:
            # Whoever read our output has gone; the command's status still counts.
            del self._sinks[name]
