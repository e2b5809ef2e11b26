"""A process of callers: reads jobs, one JSON object a line, and answers each with what was measured.

Run as `python -m hack.bench.caller SOCKET FOLDER NAME`.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csi_driver.rpc import csi_pb2 as csi
from hack.bench.calls import Caller, Failed
from hack.bench.figures import added, counted

if TYPE_CHECKING:
    from collections.abc import Callable


def lives(caller: Caller, job: dict[str, Any]) -> list[str]:
    """Live whole lives."""
    for _ in range(job["count"]):
        caller.life()
    return []


def others(caller: Caller, job: dict[str, Any]) -> list[str]:
    """Make the calls that a life doesn't have."""
    for _ in range(job["count"]):
        caller.others()
    return []


def create(caller: Caller, job: dict[str, Any]) -> list[str]:
    """Create volumes and return their ids."""
    made = []
    for _ in range(job["count"]):
        try:
            made.append(caller.create())
        except Failed:
            continue
    return made


def delete(caller: Caller, job: dict[str, Any]) -> list[str]:
    """Delete a share of the volumes that the job names."""
    for volume_id in job["ids"]:
        try:
            caller.delete(volume_id)
        except Failed:
            continue
    return []


def ask(caller: Caller, job: dict[str, Any]) -> list[str]:
    """List all volumes, list a page from their middle, ask for the capacity."""
    page = csi.ListVolumesRequest(max_entries=job["page"])
    first = csi.ListVolumesResponse.FromString(caller.call("ListVolumes", page.SerializeToString(), "-"))
    page.starting_token = first.next_token
    for _ in range(job["lists"]):
        caller.call("ListVolumes", b"", "ListVolumes, all")
    for _ in range(job["count"]):
        caller.call("ListVolumes", page.SerializeToString(), f"ListVolumes, a page of {job['page']}")
        caller.call("GetCapacity", b"")
    caller.samples.pop("-")
    return []


JOBS: dict[str, Callable[[Caller, dict[str, Any]], list[str]]] = {
    "lives": lives,
    "others": others,
    "create": create,
    "delete": delete,
    "ask": ask,
}


class Callers:
    """Keep as many callers as were ever wanted at once."""

    def __init__(self, socket: Path, folder: Path, name: str) -> None:
        self._of = (socket, folder, name)
        self._callers: list[Caller] = []

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Let `callers` of them do the job at once, each `count` times. Return what they measured."""
        socket, folder, name = self._of
        while len(self._callers) < job["callers"]:
            self._callers.append(Caller(socket, folder, f"{name}-{len(self._callers)}"))
        chosen = self._callers[: job["callers"]]
        for caller in chosen:
            caller.clear()
        gc.collect()
        gc.disable()
        began = time.monotonic()
        made = self._at_once(chosen, job)
        ended = time.monotonic()
        gc.enable()
        return {
            "samples": added([caller.samples for caller in chosen]),
            "failures": counted([caller.failures for caller in chosen]),
            "made": made,
            "began": began,
            "ended": ended,
        }

    @staticmethod
    def _at_once(chosen: list[Caller], job: dict[str, Any]) -> list[str]:
        made: list[str] = []
        ids = job.get("ids", [])

        def work(number: int, caller: Caller) -> None:
            made.extend(JOBS[job["do"]](caller, {**job, "ids": ids[number :: len(chosen)]}))

        threads = [threading.Thread(target=work, args=pair) for pair in enumerate(chosen[1:], 1)]
        for thread in threads:
            thread.start()
        work(0, chosen[0])
        for thread in threads:
            thread.join()
        return made


def main() -> int:
    """Do jobs until there are no more."""
    # Ctrl-C reaches the whole group: who started us decides when we end, by closing our stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    socket, folder, name = sys.argv[1:]
    callers = Callers(Path(socket), Path(folder), name)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(callers.do(json.loads(line))) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
