"""Volumes that are written to one after the other, and what a group snapshot has of them."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
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
    from collections.abc import Callable, Iterator

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


def cut_in_order(node: Node, three: list[Volume], groups: int, record_property: Callable[[str, object], None]) -> None:
    """Cut several groups under writes that go on: no member has what was written after another's cut."""
    rounds = Rounds(three)
    made = []
    with rounds.kept():
        for number in range(groups):
            made.append(node.group(three, f"group{number}"))
            rounds.go_on()
        alone = [node.group([volume], f"alone{at}") for at, volume in enumerate(three)]
    found = [numbers(node, group, three) for group in made]
    held = [node.group_record(group.id).status.history.held_ms for group in made]
    single = [node.group_record(group.id).status.history.held_ms for group in alone]
    record_property("numbers", found)
    record_property("held, ms", held)
    record_property("held by groups of one, ms", single)
    record_property("ratio", round(statistics.median_low(held) / max(1, sum(single)), 2))

    assert [one for one in found if not in_order(one)] == []
    assert found[-1][0] > found[0][0] > 0


def killed_and_made_anew(node: Node, three: list[Volume], called: str) -> None:
    """Kill the server while all are held: all are let go, and the next life's group is of an instant of its own.

    `called` says what the pool calls a record's bytes.
    """
    rounds = Rounds(three)
    with rounds.kept():
        took, at_death = killed_while_all_are_held(node, three, rounds)
        node.start()
        group = node.group(three, "group")
    found = numbers(node, group, three)
    ids = [*(volume.id for volume in three), *(member.id for member in group.members.values())]

    assert took < LET_GO_SECONDS
    assert in_order(found), found
    assert found[0] >= at_death
    assert node.images() == sorted(called.format(record_id) for record_id in ids)
