"""Callers of whole lives, a program: so many threads, each making, using and deleting one volume after another.

    python -m tests.storm.lives SOCKET FOLDER THREADS SECONDS NUMBER

Nobody else is at their volumes, so every call must be answered with OK, the first time. Says, as JSON, how many lives
there were, what failed, and the seconds of the slowest one.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from csi_driver.rpc import csi_pb2 as csi
from tests.serving import Client
from tests.storm import plan

if TYPE_CHECKING:
    from collections.abc import Iterator

CALL_SECONDS = 60
MOST_FAILED = 20


@dataclass
class Lives:
    """Count lives."""

    done: int = 0
    slowest: float = 0.0
    failed: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Caller:
    """One thread, with a volume at a time."""

    def __init__(self, client: Client, places: plan.Places, lives: Lives, name: str) -> None:
        self._client = client
        self._places = places
        self._lives = lives
        self._name = name
        places.target(name, "one").parent.mkdir(parents=True)
        places.staging(name).mkdir(parents=True)

    def run(self, until: float) -> None:
        """Live until the time is over, or until something fails: what would come then is its consequence."""
        while time.monotonic() < until and not self._lives.failed:
            started = time.monotonic()
            try:
                for _ in self._life():
                    pass
            except (grpc.RpcError, AssertionError) as error:
                with self._lives.lock:
                    self._lives.failed.append(f"{self._name}: {error}")
                return
            with self._lives.lock:
                self._lives.done += 1
                self._lives.slowest = max(self._lives.slowest, time.monotonic() - started)

    def _life(self) -> Iterator[object]:
        name, controller, node = self._name, self._client.controller, self._client.node
        target = self._places.target(name, "one")
        yield controller.CreateVolume(plan.create(name), timeout=CALL_SECONDS)
        yield node.NodeStageVolume(self._places.stage(name), timeout=CALL_SECONDS)
        yield node.NodePublishVolume(self._places.publish(name, "one"), timeout=CALL_SECONDS)
        (target / "whose").write_text(name)
        request = csi.NodeGetVolumeStatsRequest(volume_id=plan.volume_id(name), volume_path=str(target))
        yield node.NodeGetVolumeStats(request, timeout=CALL_SECONDS)
        # Another volume's bytes, behind a number that was used again, would be another's file, or none.
        whose = (target / "whose").read_text()
        assert whose == name, f"{target} is {whose}'s"
        yield node.NodeUnpublishVolume(self._places.unpublish(name, "one"), timeout=CALL_SECONDS)
        yield node.NodeUnstageVolume(self._places.unstage(name), timeout=CALL_SECONDS)
        gone = csi.DeleteVolumeRequest(volume_id=plan.volume_id(name))
        yield controller.DeleteVolume(gone, timeout=CALL_SECONDS)


def main(socket: str, folder: str, threads: str, seconds: str, number: str) -> None:
    """Live, and say how it went."""
    client, lives, until = Client(Path(socket)), Lives(), time.monotonic() + float(seconds)
    # `v` so that the plan takes them for volumes that are mounted.
    names = [f"v{number}-{each}" for each in range(int(threads))]
    callers = [Caller(client, plan.Places(Path(folder)), lives, name) for name in names]
    running = [threading.Thread(target=caller.run, args=(until,)) for caller in callers]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    sys.stdout.write(json.dumps({"done": lives.done, "slowest": lives.slowest, "failed": lives.failed[:MOST_FAILED]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
