"""Callers of a storm, a program: so many threads, each asking for anything about any object, until the time is over.

    python -m tests.storm.callers SOCKET FOLDER THREADS SECONDS SEED

What they were answered goes to stdout as JSON: see `Tally`. They are programs of their own so that one Python's lock
doesn't slow down the callers of all, nor those who measure.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from csi_driver.rpc import csi_pb2 as csi
from tests.serving import Client
from tests.storm import plan
from tests.storm.codes import is_right

if TYPE_CHECKING:
    from collections.abc import Callable

CALL_SECONDS = 60
MOST_WRONG = 10
NICE = 5
"""Callers step back behind the server: what is measured is how it serves, not who gets this machine's processors."""


@dataclass
class Tally:
    """Count answers by RPC and code; keep the words of wrong ones and the seconds of the slowest call of each RPC."""

    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rpc: str, code: str, said: str, seconds: float) -> None:
        """Count one answer."""
        with self.lock:
            self.answers[f"{rpc} {code}"] += 1
            self.slowest[rpc] = max(self.slowest.get(rpc, 0.0), seconds)
            if not is_right(rpc, code) and len(self.wrong) < MOST_WRONG:
                self.wrong.append(f"{rpc} {code} after {seconds:.2f} s: {said}")

    def as_json(self) -> str:
        """Return it for who started this program."""
        return json.dumps({"answers": self.answers, "wrong": self.wrong, "slowest": self.slowest})


class Caller:
    """One thread that asks without a pause."""

    def __init__(self, client: Client, places: plan.Places, tally: Tally, seed: str) -> None:
        self._client = client
        self._places = places
        self._tally = tally
        self._random = random.Random(seed)  # noqa: S311 - not for secrets
        self._doings: dict[Callable[[], None], int] = {
            self._create: 4,
            self._delete: 2,
            self._cut: 2,
            self._delete_snapshot: 1,
            self._stage: 4,
            self._unstage: 2,
            self._publish: 4,
            self._unpublish: 3,
            self._stats: 3,
            self._expand: 2,
            self._expand_on_node: 1,
            self._modify: 2,
            self._look: 4,
        }

    def run(self, until: float) -> None:
        """Ask until the time is over."""
        doings, weights = list(self._doings), list(self._doings.values())
        while time.monotonic() < until:
            self._random.choices(doings, weights)[0]()

    def _ask(self, method: Any, request: Any) -> None:  # noqa: ANN401 - any stub, any message
        rpc, code, said, started = _name(method), "OK", "", time.monotonic()
        try:
            method(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            code, said = error.code().name, error.details() or ""
        self._tally.add(rpc, code, said, time.monotonic() - started)

    def _volume(self) -> str:
        return self._random.choice(plan.VOLUMES)

    def _snapshot(self) -> str:
        return self._random.choice(plan.SNAPSHOTS)

    def _target(self) -> str:
        return self._random.choice(plan.TARGETS)

    def _create(self) -> None:
        self._ask(self._client.controller.CreateVolume, plan.create(self._volume()))

    def _delete(self) -> None:
        request = csi.DeleteVolumeRequest(volume_id=plan.volume_id(self._volume()))
        self._ask(self._client.controller.DeleteVolume, request)

    def _cut(self) -> None:
        self._ask(self._client.controller.CreateSnapshot, plan.cut(self._snapshot()))

    def _delete_snapshot(self) -> None:
        request = csi.DeleteSnapshotRequest(snapshot_id=plan.snapshot_id(self._snapshot()))
        self._ask(self._client.controller.DeleteSnapshot, request)

    def _stage(self) -> None:
        self._ask(self._client.node.NodeStageVolume, self._places.stage(self._volume()))

    def _unstage(self) -> None:
        self._ask(self._client.node.NodeUnstageVolume, self._places.unstage(self._volume()))

    def _publish(self) -> None:
        self._ask(self._client.node.NodePublishVolume, self._places.publish(self._volume(), self._target()))

    def _unpublish(self) -> None:
        self._ask(self._client.node.NodeUnpublishVolume, self._places.unpublish(self._volume(), self._target()))

    def _stats(self) -> None:
        name = self._volume()
        path = str(self._places.target(name, self._target()))
        request = csi.NodeGetVolumeStatsRequest(volume_id=plan.volume_id(name), volume_path=path)
        self._ask(self._client.node.NodeGetVolumeStats, request)

    def _expand(self) -> None:
        self._ask(self._client.controller.ControllerExpandVolume, plan.expand(self._volume()))

    def _expand_on_node(self) -> None:
        name = self._volume()
        request = csi.NodeExpandVolumeRequest(
            volume_id=plan.volume_id(name),
            volume_path=str(self._places.target(name, self._target())),
            capacity_range=csi.CapacityRange(required_bytes=plan.grown(name)),
        )
        self._ask(self._client.node.NodeExpandVolume, request)

    def _modify(self) -> None:
        request = csi.ControllerModifyVolumeRequest(
            volume_id=plan.volume_id(self._volume()),
            mutable_parameters={self._random.choice(("readIOPS", "writeIOPS")): self._random.choice(("500", "700"))},
        )
        self._ask(self._client.controller.ControllerModifyVolume, request)

    def _look(self) -> None:
        controller, name = self._client.controller, self._volume()
        volume_id, snapshot_id = plan.volume_id(name), plan.snapshot_id(self._snapshot())
        looks = {
            self._client.identity.Probe: csi.ProbeRequest(),
            controller.ListVolumes: csi.ListVolumesRequest(max_entries=self._random.randrange(5)),
            controller.ListSnapshots: csi.ListSnapshotsRequest(),
            controller.GetSnapshot: csi.GetSnapshotRequest(snapshot_id=snapshot_id),
            controller.GetCapacity: csi.GetCapacityRequest(),
            controller.ControllerGetVolume: csi.ControllerGetVolumeRequest(volume_id=volume_id),
            controller.ValidateVolumeCapabilities: csi.ValidateVolumeCapabilitiesRequest(
                volume_id=volume_id, volume_capabilities=[plan.capability(name)]
            ),
        }
        method = self._random.choice(list(looks))
        self._ask(method, looks[method])


def _name(method: Any) -> str:  # noqa: ANN401 - grpcio's types don't show it
    path: bytes = method._method
    return path.decode().rpartition("/")[2]


def main(socket: str, folder: str, threads: str, seconds: str, seed: str) -> None:
    """Storm, and say what was answered."""
    os.nice(NICE)
    client, tally, until = Client(Path(socket)), Tally(), time.monotonic() + float(seconds)
    callers = [Caller(client, plan.Places(Path(folder)), tally, f"{seed}/{number}") for number in range(int(threads))]
    running = [threading.Thread(target=caller.run, args=(until,)) for caller in callers]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    sys.stdout.write(tally.as_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
