"""In the test machine: tell the host something that a power cut right afterwards can't take back."""

from __future__ import annotations

import fcntl
import json
import struct
import sys
import termios
import threading
import time
from typing import Any

_lock = threading.Lock()


def say(**words: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Hand a line of JSON to the host, and return when it has it.

    Standard output is a pipe, from which one program copies to the host, a write at a time: when it reads the empty
    line, it has written the one before.
    """
    with _lock:
        for line in (json.dumps(words), ""):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            while _unread():
                time.sleep(0.001)


def _unread() -> int:
    """Return how many bytes are in the pipe."""
    answer = fcntl.ioctl(sys.stdout.fileno(), termios.FIONREAD, bytes(4))
    return int(struct.unpack("i", answer)[0])
