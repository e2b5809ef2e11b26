"""A program that writes 4 KiB and waits for the disk, over and over: what a freeze does to a database.

Run as `python -m hack.bench.writer FILE`. When its stdin ends it prints, as JSON, when each write ended.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

BLOCK, BLOCKS = 4096, 256


def main() -> int:
    """Write until stdin ends."""
    ended = threading.Event()
    threading.Thread(target=_listen, args=(ended,), daemon=True).start()
    fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o600)
    os.posix_fallocate(fd, 0, BLOCK * BLOCKS)
    data, times = b"w" * BLOCK, [time.monotonic()]
    while not ended.is_set():
        os.pwrite(fd, data, len(times) % BLOCKS * BLOCK)
        os.fsync(fd)
        times.append(time.monotonic())
    os.close(fd)
    sys.stdout.write(json.dumps(times))
    return 0


def _listen(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    sys.exit(main())
