"""Volumes that are written to one after the other, and what a group snapshot has of them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from tests.kernel.node import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.node import Node
    from tests.kernel.volume import Group, Volume

LET_GO_SECONDS = 15.0
MOMENTS = 30.0
"""Seconds for what takes moments."""


class Rounds:
    """Write a number to one volume after the other, each synced before the next, and then the number after it.

    So at any instant no volume has a number that the one before it lacks, and the first is ahead of the last by one at
    most.
    """

    def __init__(self, volumes: list[Volume]) -> None:
        self.number = 0
        self._files = [file_of(volume) for volume in volumes]
        for volume in volumes:
            if not volume.block:
                file_of(volume).touch()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        with contextlib.ExitStack() as stack:
            files = [os.open(path, os.O_WRONLY | os.O_DSYNC) for path in self._files]
            for fd in files:
                stack.callback(os.close, fd)
            while not self._ended.is_set():
                for fd in files:
                    os.pwrite(fd, f"{self.number + 1:09}".encode(), 0)
                self.number += 1

    def go_on(self) -> None:
        """Wait until some more were written."""
        until = self.number + 5
        wait_for("writing goes on", lambda: self.number >= until, Deadline(MOMENTS))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Write while the body runs."""
        self._thread.start()
        try:
            self.go_on()
            yield
        finally:
            self._ended.set()
            self._thread.join()


def file_of(volume: Volume) -> Path:
    """Return where a pod writes its number."""
    return volume.target if volume.block else volume.target / "number"


def three_volumes(node: Node) -> list[Volume]:
    """Return published volumes: one with an ext4, a raw one, one with an XFS."""
    made = [node.create("a"), node.create("b", block=True), node.create("c", 300 * MIB, fs_type="xfs")]
    return [volume.up() for volume in made]


def numbers(node: Node, group: Group, volumes: list[Volume]) -> list[int]:
    """Return the numbers that the members have, in the order in which they were written, from restored volumes."""
    found = []
    for at, volume in enumerate(volumes):
        size = 300 * MIB if volume.fs_type == "xfs" else 64 * MIB
        restored = node.create(
            f"{group.id[:8]}-{at}", size, block=volume.block, fs_type=volume.fs_type, source=group.members[volume.id]
        ).up()
        with file_of(restored).open("rb") as file:
            found.append(int(file.read(9)))
        restored.down()
        restored.delete()
        node.volumes.remove(restored)
    return found


def in_order(found: list[int]) -> bool:
    """Return whether numbers may have stood in the volumes at one instant."""
    return found == sorted(found, reverse=True) and found[0] - found[-1] <= 1


def killed_while_all_are_held(node: Node, volumes: list[Volume], rounds: Rounds) -> tuple[float, int]:
    """Ask for a group and kill the server while all volumes are suspended.

    Return after how many seconds writing went on, and the last number that was written before the next life.
    """
    states = [Path("/sys/block") / volume.device.name / "dm/suspended" for volume in volumes]
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(node.group, volumes, "group")
        end = time.monotonic() + MOMENTS
        while any(state.read_text() != "1\n" for state in states):
            assert time.monotonic() < end, "they were never all suspended"
        os.kill(node.pid, signal.SIGKILL)
        began = time.monotonic()
        wait_for("all go on", lambda: not any(volume.suspended for volume in volumes), Deadline(LET_GO_SECONDS))
        rounds.go_on()
        took = time.monotonic() - began
        node.stop(signal.SIGKILL)
        with pytest.raises(grpc.RpcError):
            cut.result()
    return took, rounds.number
