"""Records to write to a Store, and callers that race for one."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from csi_driver.ids import new_id
from csi_driver.records import History, Snapshot, SnapshotSpec, Status, Volume, VolumeSpec
from csi_driver.store.base import Stale, Store
from csi_driver.store.hostile import HostileStore

OpenStore = Callable[..., Store]

THREADS = 8


def settle(store: Store) -> None:
    """Let lists show what was written so far."""
    if isinstance(store, HostileStore):
        store.settle()


def a_volume(name: str = "pvc-1", **spec: Any) -> Volume:  # noqa: ANN401 - whatever VolumeSpec takes
    return Volume(new_id("cluster/driver", "volume", name), VolumeSpec(name, 4096, **spec))


def a_snapshot(name: str, volume: str) -> Snapshot:
    return Snapshot(new_id("cluster/driver", "snapshot", name), SnapshotSpec(name, 4096, volume))


def volumes(count: int) -> list[Volume]:
    return sorted((a_volume(f"pvc-{number}") for number in range(count)), key=lambda one: one.id)


def with_made(record: Volume, made: str = "2026-01-01T00:00:00Z") -> Volume:
    return dataclasses.replace(record, status=Status(History(made=made)))


def race(swap: Callable[[int], Volume]) -> list[Volume]:
    """Run a swap in eight threads at once and return what came of those that weren't Stale."""
    ready = threading.Barrier(THREADS)

    def run(number: int) -> Volume | None:
        ready.wait()
        try:
            return swap(number)
        except Stale:
            return None

    with ThreadPoolExecutor(THREADS) as threads:
        return [one for one in threads.map(run, range(THREADS)) if one is not None]
