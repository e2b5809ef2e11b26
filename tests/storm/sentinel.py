"""Who measures in a storm, a program: Probe and NodeUnpublishVolume on a volume of its own, until its stdin ends.

    python -m tests.storm.sentinel SOCKET FOLDER

It says `ready` when its volume is staged, and at the end, as JSON, how often it asked, how long it waited at most, and
what was refused.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from csi_driver.rpc import csi_pb2 as csi
from tests.serving import Client
from tests.storm import plan
from tests.storm.programs import hurry

if TYPE_CHECKING:
    from collections.abc import Callable

CALL_SECONDS = 60
PAUSE_SECONDS = 0.02
NAME = "v999"


@dataclass
class Watched:
    """Hold what one kind of call met."""

    seconds: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def call(self, method: Any, request: Any, *, measured: bool = True) -> None:  # noqa: ANN401 - any stub
        """Make one call."""
        started = time.monotonic()
        try:
            method(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            self.refused.append(f"{error.code().name}: {error.details()}")
        if measured:
            self.seconds.append(time.monotonic() - started)

    def as_dict(self) -> dict[str, Any]:
        """Return it in figures."""
        return {"calls": len(self.seconds), "worst": max(self.seconds), "refused": self.refused}


def probe(client: Client, watched: Watched) -> None:
    """Ask whether the server is there."""
    watched.call(client.identity.Probe, csi.ProbeRequest())


def unpublish(client: Client, places: plan.Places, watched: Watched) -> None:
    """Publish, and measure the unpublish; then one of a volume that nobody ever made."""
    watched.call(client.node.NodePublishVolume, places.publish(NAME, "one"), measured=False)
    watched.call(client.node.NodeUnpublishVolume, places.unpublish(NAME, "one"))
    watched.call(client.node.NodeUnpublishVolume, places.unpublish("v998", "two"))


def repeat(ended: threading.Event, step: Callable[[], None]) -> None:
    """Do one step after another until the end."""
    while not ended.wait(PAUSE_SECONDS):
        step()


def main(socket: str, folder: str) -> None:
    """Measure, and say what was measured."""
    hurry(os.getpid())  # who measures is not to wait for a processor
    client, places = Client(Path(socket)), plan.Places(Path(folder))
    places.staging(NAME).mkdir(parents=True)
    places.target(NAME, "one").parent.mkdir(parents=True)
    client.controller.CreateVolume(plan.create(NAME), timeout=CALL_SECONDS)
    client.node.NodeStageVolume(places.stage(NAME), timeout=CALL_SECONDS)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    ended, probes, unpublishes = threading.Event(), Watched(), Watched()
    threads = [
        threading.Thread(target=repeat, args=(ended, lambda: probe(client, probes))),
        threading.Thread(target=repeat, args=(ended, lambda: unpublish(client, places, unpublishes))),
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()
    client.node.NodeUnstageVolume(places.unstage(NAME), timeout=CALL_SECONDS)
    client.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=plan.volume_id(NAME)), timeout=CALL_SECONDS)
    sys.stdout.write(json.dumps({"Probe": probes.as_dict(), "NodeUnpublishVolume": unpublishes.as_dict()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
