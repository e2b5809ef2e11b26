"""fio, writing blocks that verify themselves until the power is cut, and what must be there of them afterwards.

Each write waits until it is durable before the next begins, and no block is written twice. So the blocks that are there
are the first so many of the sequence, at least as many as fio had counted, and each is whole.
"""

from __future__ import annotations

import json
import struct
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.kernel.node import MIB, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 16 * MIB
BLOCK = 4096
RATE = 300
MAGIC = 0xACCA
# verify.h: magic, type, length, random seed, offset, seconds, nanoseconds, thread, number, checksum.
HEADER = struct.Struct("<HHIQQIIHHI")


@dataclass(frozen=True, slots=True)
class Fio:
    """Describe what is written to a file or device; `direct` is past the page cache."""

    name: str
    path: Path
    direct: bool
    seed: int

    def start(self, counted: Callable[[int], None]) -> None:
        """Write until the end of the world, and tell from time to time how many blocks are durable."""
        argv = [*self._argv(), "--do_verify=0", f"--rate_iops={RATE}", "--status-interval=200ms", "--thread"]
        argv += ["--output-format=json", "--eta=never"]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=_follow, args=(process, counted), daemon=True).start()

    def check(self, counted: int) -> tuple[int, list[str]]:
        """Return how many blocks are there, and what is wrong with them."""
        numbers = self._numbers()
        wrong = [] if numbers == list(range(len(numbers))) else [f"{self.name} has gaps in {numbers}"]
        if len(numbers) < counted:
            wrong.append(f"{self.name} has {len(numbers)} blocks of the {counted} that were acknowledged")
        if numbers:
            run(*self._argv(), "--verify_only=1", f"--io_size={len(numbers) * BLOCK}", "--output=/dev/null")
        return len(numbers), wrong

    def _argv(self) -> list[str]:
        argv = ["fio", f"--name={self.name}", f"--filename={self.path}", "--rw=randwrite", f"--bs={BLOCK}"]
        argv += [f"--size={SIZE}", "--ioengine=psync", "--sync=dsync", f"--direct={int(self.direct)}"]
        return [*argv, "--verify=crc32c", "--verify_fatal=1", f"--randseed={self.seed}", "--allow_file_create=0"]

    def _numbers(self) -> list[int]:
        """Return the numbers of the blocks that are there, sorted. What was never written is zeros."""
        data, numbers = self.path.read_bytes(), []
        for offset in range(0, SIZE, BLOCK):
            magic, _, length, _, where, _, _, _, number, _ = HEADER.unpack_from(data, offset)
            if magic:
                assert (magic, length, where) == (MAGIC, BLOCK, offset), f"{self.name}: what is at {offset}?"
                numbers.append(number)
            else:
                assert data[offset : offset + BLOCK] == bytes(BLOCK), f"{self.name}: half a block at {offset}"
        return sorted(numbers)


def _follow(process: subprocess.Popen[str], counted: Callable[[int], None]) -> None:
    """Read fio's accounts as they come: one JSON object after another, each ended by a line with a brace only."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            account: dict[str, Any] = json.loads(text[text.index("{") :])
            text = ""
            counted(account["jobs"][0]["write"]["total_ios"])
