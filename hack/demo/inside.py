"""The part that runs in the VM: a server, two volumes over its socket, and the phases of the plan.

Run as `python -m hack.demo.inside PLAN OUT`. It tells what it does as one JSON object a line on standard output.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from csi_driver import assemble
from csi_driver.cli import volumes
from csi_driver.records import Pool, Volume
from csi_driver.store.sqlite import SqliteStore
from hack.demo import load
from hack.demo.client import Client
from hack.demo.plan import RATIO
from hack.demo.story import copies

RUN = Path("/run/sluice-demo")
DATA = Path("/srv/sluice")
STATE = Path("/var/lib/sluice-demo")
SOCKET = RUN / "csi.sock"
POOL = "fast"
ROLES = ("inference", "training")
LATE_SECONDS = 60.0
READY_SECONDS = 60.0


def tell(text: str, seconds: float = 0) -> None:
    """Say what comes next and about how long it takes."""
    sys.stdout.write(json.dumps({"step": text, "seconds": seconds}) + "\n")
    sys.stdout.flush()


class Demo:
    """Hold what the phases share."""

    def __init__(self, plan: dict[str, Any], out: Path, client: Client) -> None:
        self._plan = plan
        self._out = out
        self._client = client
        self._ids: dict[str, str] = {}
        self._store = SqliteStore(STATE / assemble.DATABASE)
        self._ancestor = volumes.ancestor("auto")
        self._pods = {role: load.pod(self._ancestor.path, role) for role in ROLES}

    def make_volumes(self) -> None:
        """Create, stage and publish both volumes, and fill the files that the load uses."""
        for role in ROLES:
            tell(f"{role}: CreateVolume, NodeStageVolume, NodePublishVolume", 2)
            size, parameters = self._plan["sizes"][role], self._plan["classes"][role]
            volume_id = self._client.create(f"pvc-{role}", size, parameters)
            staged = RUN / "staging" / role
            self._client.stage(volume_id, staged)
            self._client.publish(volume_id, staged, self._target(role))
            self._ids[role] = volume_id
        for role in ROLES:
            size = self._plan["filled"][role]
            tell(f"{role}: writing its {size >> 20} MiB once, so that no measured write has to allocate", size / 50e6)
            load.fill(self._file(role), size)

    def tell_story(self) -> dict[str, Any]:
        """Cut and clone a volume in use, and return what that took and what training's volume takes of the disk."""
        tell("a snapshot of inference's volume, a clone of that, compared and deleted", 6)
        folders = (RUN / "staging" / "clone", RUN / "pods" / "clone" / "mount")
        role = "inference"
        made = copies(self._client, self._ids[role], self._file(role), self._plan["classes"][role], folders)
        used = volumes.used_of(self._store.list(Pool), assemble.Machine())
        training = next(record for record in self._store.list(Volume) if record.id == self._ids["training"])
        return {**made, "promised": training.status.history.size, "taken": used(training)}

    def phase(self, number: int, phase: dict[str, Any]) -> dict[str, Any]:
        """Run one phase and return what the kernel showed."""
        seconds = self._plan["seconds"]
        tell(f"phase {number} of {len(self._plan['phases'])}: {phase['title']}", seconds + 1)
        for change in phase["changes"]:
            if not change["after"]:
                self._client.modify(self._ids[change["volume"]], change["parameters"])
        before = self._limits()
        running = [self._start(role, phase["key"]) for role in ROLES if role == "inference" or phase["training"]]
        began = time.monotonic()
        changed = [self._change(change, began) for change in phase["changes"] if change["after"]]
        for process in running:
            load.finish(process, seconds + LATE_SECONDS)
        return {**phase, "limits": before, "changed": changed, "limits_after": self._limits()}

    def _start(self, role: str, phase: str) -> subprocess.Popen[str]:
        file, size = self._file(role), self._plan["filled"][role]
        words = (
            load.inference(file, size, self._plan["inference_iops"])
            if role == "inference"
            else load.training(file, size, buffered=self._plan["buffered"])
        )
        return load.start(words, self._pods[role], self._plan["seconds"], self._out / f"{role}-{phase}")

    def _change(self, change: dict[str, Any], began: float) -> dict[str, Any]:
        """Change a limit while the load runs; return when it was asked for (epoch) and how long it took, in seconds."""
        # An Event that nobody sets is a sleep that a signal may end.
        threading.Event().wait(max(0.0, began + change["after"] - time.monotonic()))
        asked_at, asked = time.time(), time.monotonic()
        self._client.modify(self._ids[change["volume"]], change["parameters"])
        return {**change, "asked_at": asked_at, "took": time.monotonic() - asked}

    def _limits(self) -> dict[str, Any]:
        """Return what records want and what io.max shows, by role."""
        found = volumes.lines(self._store, self._ancestor.read_limits())
        roles = {volume_id: role for role, volume_id in self._ids.items()}
        return {roles[line.volume.id]: volumes.as_dict(line) for line in found}

    def _target(self, role: str) -> Path:
        return RUN / "pods" / role / "mount"

    def _file(self, role: str) -> Path:
        return self._target(role) / "data"


def serve(backend: str) -> subprocess.Popen[bytes]:
    """Make the pool on the data disk and start the server on it."""
    disk = os.environ["SLUICE_DISK"]
    for folder in (RUN, DATA, STATE):
        folder.mkdir(parents=True, exist_ok=True)
    argv = ["sluice", "serve", "--endpoint", f"unix://{SOCKET}", "--state", str(STATE), "--node-id", "demo"]
    if backend == "lvm":
        tell("sluice pool create: a thin pool of LVM on the data disk", 8)
        make = ["sluice", "pool", "create", "--backend", "lvm", "--name", POOL, "--device", disk]
        commands = [[*make, "--ratio", str(RATIO), "--state", str(STATE)]]
    else:
        tell("mkfs.xfs on the data disk", 4)
        commands = [["mkfs.xfs", "-q", "-f", disk], ["mount", disk, str(DATA)]]
        argv += ["--pool", f"name={POOL},backend=loop,path={DATA / 'pool'},ratio={RATIO}"]
    for command in commands:
        subprocess.run(command, check=True, stdout=sys.stderr)
    tell("sluice serve", 3)
    log = (RUN / "log").open("wb")
    return subprocess.Popen(argv, stdout=log, stderr=log)


def wait(server: subprocess.Popen[bytes]) -> None:
    """Wait until the server has its socket. Raises RuntimeError as soon as it has ended, or after a minute.

    Not by asking: a gRPC client that finds no socket waits longer and longer before it looks again.
    """
    end = time.monotonic() + READY_SECONDS
    pause = threading.Event()
    while not SOCKET.exists():
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"sluice serve does not answer; its status: {server.poll()}")
        pause.wait(0.05)


def main() -> int:
    """Run the plan; the result goes to OUT/inside.json."""
    plan, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    server = serve(plan["backend"])
    try:
        wait(server)
        with Client(SOCKET) as client:
            client.wait()
            demo = Demo(plan, out, client)
            demo.make_volumes()
            story = demo.tell_story()
            done = [demo.phase(number, phase) for number, phase in enumerate(plan["phases"], 1)]
    except Exception:
        sys.stderr.write((RUN / "log").read_text()[-4000:])
        raise
    finally:
        server.terminate()
        server.wait()
    fio = subprocess.run(["fio", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    machine = {"kernel": platform.release(), "fio": fio, "cpus": os.cpu_count(), "python": platform.python_version()}
    (out / "inside.json").write_text(json.dumps({"phases": done, "story": story, "machine": machine}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
