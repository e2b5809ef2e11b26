"""A process that has imported the driver, and forks one for each request: `python -m tests.nursery FD`.

On an emulated processor the imports of one server take as long as all else that a test does. What is forked is the
command that was asked for in all but how it began: its arguments, environment, folder and descriptors are its own. It
ends without taking Python's objects down.

A request is a packet on the socket FD: JSON, and with it descriptors for 0, 1 and 2 and one to which the status at the
end is written. The answer is the process id.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import runpy
import select
import socket
import sys
from typing import NamedTuple, NoReturn

import csi_driver.cli.serve  # noqa: F401 - imported once, for all that are forked
import tests.faults.launcher  # noqa: F401 - the same
from tests.forked import run_to_the_end

PACKET = 1 << 17
PR_SET_MM, PR_SET_MM_ARG_START, PR_SET_MM_ARG_END = 35, 8, 9


class Request(NamedTuple):
    """Hold what to be: a module and its arguments, the whole environment, and the working folder."""

    argv: list[str]
    environment: dict[str, str]
    folder: str

    def packed(self) -> bytes:
        """Return it as a packet."""
        return json.dumps(self).encode()


def serve(requests: socket.socket) -> None:
    """Fork for each request until there are none; a child never returns."""
    children: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([requests.fileno(), *children], [], [])[0]:
            if ready in children:
                _bury(ready, *children.pop(ready))
                continue
            packet, descriptors, _, _ = socket.recv_fds(requests, PACKET, 4)
            if not packet:
                return
            *standard, told = descriptors
            child = os.fork()
            if child == 0:
                for fd in (requests.detach(), told, *children, *(fd for _, fd in children.values())):
                    os.close(fd)
                _be(Request(*json.loads(packet)), standard)
            for fd in standard:
                os.close(fd)
            children[os.pidfd_open(child)] = child, told
            requests.send(b"%d" % child)


def _bury(pidfd: int, child: int, told: int) -> None:
    """Take the status of one that ended, and tell it, if anybody still wants to know."""
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(told, b"%d" % os.waitstatus_to_exitcode(status))
    os.close(pidfd)
    os.close(told)


def _be(request: Request, standard: list[int]) -> NoReturn:
    """Be what was asked for, to its end."""
    for number, fd in enumerate(standard):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    run_to_the_end(lambda: _stand_for(request.argv))


def _stand_for(argv: list[str]) -> None:
    _line = _called(argv)
    module, *sys.argv[1:] = argv
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _called(argv: list[str]) -> object:
    """Have /proc show the command line that this process stands for; the kernel reads it from what is returned."""
    line = b"\0".join(map(os.fsencode, (sys.executable, "-m", *argv))) + b"\0"
    shown = ctypes.create_string_buffer(line, len(line))
    libc = ctypes.CDLL(None, use_errno=True)
    start = ctypes.addressof(shown)
    for option, address in ((PR_SET_MM_ARG_START, start), (PR_SET_MM_ARG_END, start + len(line))):
        if libc.prctl(PR_SET_MM, option, ctypes.c_ulong(address), 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_MM)")
    return shown


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
