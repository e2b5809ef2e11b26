"""A dead man: undo a freeze or a suspend when the process that made it dies, or forgets it.

Run as a file by `python -I -S`, so it imports nothing but the standard library, and of that little: it must start
quickly and must not depend on anything of ours that could be broken. One request a line on stdin, one answer a line:

    arm TOKEN SECONDS dm NAME    -> ok | no REASON     resume this mapped device when the time is over
    arm TOKEN SECONDS fs PATH    -> ok | no REASON     thaw this file system (PATH in hex)
    disarm TOKEN                 -> ok | fired         forget it; "fired" says that it was undone meanwhile
    undo TOKEN                   -> ok                 undo it at once

At end of file on stdin everything that is armed is undone, and the dead man ends. Undoing can block for as long as the
kernel takes, so each has a thread of its own.
"""

import fcntl
import os
import select
import struct
import sys
import threading
import time

FITHAW = 0xC0045878
DM_DEV_SUSPEND = 0xC138FD06
# See dm.py for the layout and the flags.
DM_HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
DM_UDEV_FLAGS = 0x6E << 16


class Armed:
    """One thing that may have to be undone, with everything opened that undoing needs."""

    def __init__(self, seconds: float, kind: str, what: str) -> None:
        """Open it now: later, on a frozen machine, is too late. Raises OSError, ValueError."""
        self.until = time.monotonic() + seconds
        self.fired = False
        self._name = what.encode()
        if kind == "dm":
            self._fd = os.open("/dev/mapper/control", os.O_RDWR)
        elif kind == "fs":
            self._fd = os.open(bytes.fromhex(what), os.O_RDONLY | os.O_DIRECTORY)
        else:
            raise ValueError(f"unknown kind {kind}")
        self._kind = kind

    def fire(self) -> None:
        """Undo it, in a thread that the process waits for before it ends."""
        self.fired = True
        threading.Thread(target=self._undo).start()

    def _undo(self) -> None:
        try:
            if self._kind == "dm":
                header = DM_HEADER.pack(4, 0, 0, DM_HEADER.size, 0, 0, 0, 0, DM_UDEV_FLAGS, 0, 0, self._name, b"")
                fcntl.ioctl(self._fd, DM_DEV_SUSPEND, bytearray(header))
            else:
                fcntl.ioctl(self._fd, FITHAW, 0)
        except OSError:  # not suspended or not frozen: undone already, or never done
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it, so that it can be unmounted."""
        os.close(self._fd)


def answer(line: str, armed: dict[str, Armed]) -> str:
    """Do what one line asks, and return the answer."""
    match line.split(" "):
        case ["arm", token, seconds, kind, what]:
            try:
                armed[token] = Armed(float(seconds), kind, what)
            except (OSError, ValueError) as error:
                return f"no {error}"
            return "ok"
        case ["undo", token]:
            if (one := armed.pop(token, None)) and not one.fired:
                one.fire()
            return "ok"
        case ["disarm", token]:
            one = armed.pop(token, None)
            if one is None or one.fired:
                return "fired"
            one.close()
            return "ok"
    return "no such request"


def main() -> None:
    """Serve until end of file, and undo what is armed whenever its time is over."""
    armed: dict[str, Armed] = {}
    pending = b""
    while True:
        waiting = [one for one in armed.values() if not one.fired]
        timeout = max(0.0, min(one.until for one in waiting) - time.monotonic()) if waiting else None
        if select.select([0], [], [], timeout)[0]:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                os.write(1, answer(line.decode(), armed).encode() + b"\n")
        for one in armed.values():
            if not one.fired and time.monotonic() >= one.until:
                one.fire()
    for one in armed.values():
        if not one.fired:
            one.fire()


if __name__ == "__main__":
    main()
    sys.exit(0)
