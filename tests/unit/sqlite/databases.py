"""Databases, and processes that write to them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

from csi_driver.records import Node, NodeStatus, Volume, VolumeSpec
from csi_driver.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.store.base import Store


def filled(path: Path, count: int = 60) -> list[Volume]:
    """Make a closed database of so many volumes, and return them."""
    with contextlib.closing(SqliteStore(path)) as store:
        return sorted((a_volume(store, number) for number in range(count)), key=lambda one: one.id)


def a_volume(store: Store, number: int) -> Volume:
    return store.create(Volume(f"id-{number}", VolumeSpec(f"pvc-{number}", 4096, claim="ns/" + "x" * 200)))


def beat(store: Store, record: Node, number: int, *, durable: bool = True) -> Node:
    return store.put_status(dataclasses.replace(record, status=NodeStatus(beat=number)), durable=durable)


def content(path: Path) -> dict[str, str]:
    """Return a sum of each file in the database's folder."""
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in sorted(path.parent.iterdir())}


WRITER = """
import dataclasses, pathlib, sys
from csi_driver.records import Node, NodeSpec, NodeStatus
from csi_driver.store.sqlite import SqliteStore
store = SqliteStore(pathlib.Path(sys.argv[1]))
record = store.create(Node(sys.argv[2], NodeSpec("writer")))
number = 0
while number < int(sys.argv[3]):
    number += 1
    status = NodeStatus(beat=number)
    record = store.put_status(dataclasses.replace(record, status=status), durable=number % 3 != 0)
    print(number, flush=True)
store.close()
"""


def start_writer(path: Path, name: str, writes: int) -> subprocess.Popen[str]:
    """Start a process that raises a node's beat by one with each write, and prints each once it is acknowledged."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(writes)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
