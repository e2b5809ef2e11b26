"""In the test machine: what goes on until the power is cut, and what is there after the next boot.

`python -m tests.vm.power_cut before` prints what the server acknowledged, as a line of JSON, and cuts the power in the
middle of more work. `python -m tests.vm.power_cut after LINE` looks for all of it on the same disk, and fails like a
test where it isn't there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from csi_driver.deadline import Deadline, wait_for
from csi_driver.rpc import csi_pb2 as csi
from tests.kernel.gauge import limit_line
from tests.kernel.node import MIB, Node, run
from tests.kernel.volume import Snapshot, Volume
from tests.leftovers import Leftovers

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path("/var/tmp/kept")
KINDS: dict[str, dict[str, Any]] = {
    "ext4": {"size": 64 * MIB, "readIOPS": "300", "writeBPS": "8Mi"},
    "xfs": {"size": 300 * MIB, "fs_type": "xfs", "readBPS": "16Mi", "writeIOPS": "200"},
    "block": {"size": 64 * MIB, "block": True, "tier": "inference"},
}
WORKERS = 3
LEAST_MADE = 3


def _digest(volume: Volume) -> str:
    return hashlib.sha256(volume.file.read_bytes()).hexdigest()


def before() -> None:
    """Fill a disk with volumes and a snapshot, say what is on it, and cut the power."""
    node = Node(folder=FOLDER)
    node.format()
    node.mount()
    node.start()
    known: dict[str, Any] = {"volumes": {}, "busy": []}
    for name, words in KINDS.items():
        volume = node.create(name, **words).up()
        volume.fill(8 * MIB)
        line = limit_line(volume.number)
        known["volumes"][name] = {"id": volume.id, "digest": _digest(volume), "line": line}
    first = node.volumes[0]
    known["snapshot"] = node.cut(first, "cut").id
    known["digest at the cut"] = known["volumes"]["ext4"]["digest"]
    first.fill(4 * MIB)
    known["volumes"]["ext4"]["digest"] = _digest(first)
    _make_more(node, known["busy"])
    # Whatever was acknowledged when this line goes out must be there after the cut.
    sys.stdout.write(json.dumps(known) + "\n")
    sys.stdout.flush()
    threading.Event().wait(0.5)
    Path("/proc/sysrq-trigger").write_text("b")
    threading.Event().wait(60)


def _make_more(node: Node, made: list[str]) -> None:
    """Keep the server busy with volumes, copies and cuts, and append what is acknowledged, until the power goes."""

    def work(worker: int) -> None:
        for number in range(1000):
            name = f"more-{worker}-{number}"
            with contextlib.suppress(grpc.RpcError):
                made.append(node.create(name, 16 * MIB).id)
                node.volumes[-1].stage()
                node.cut(node.volumes[0], f"{name}-cut")

    for worker in range(WORKERS):
        threading.Thread(target=work, args=(worker,), daemon=True).start()
    wait_for("some more are made", lambda: len(made) >= LEAST_MADE, Deadline(60))


def after(known: dict[str, Any]) -> None:
    """Find everything again, whole, and nothing that is not."""
    machine = Leftovers.now()
    node = Node(folder=FOLDER)
    node.mount()
    node.start()
    listed = node.listed()
    acknowledged = [each["id"] for each in known["volumes"].values()] + known["busy"]
    _check("every acknowledged volume is listed", set(acknowledged) <= set(listed))
    _check("nothing is wrong with any volume", not any(listed.values()))
    _check("nothing half made is in the pool", list((node.pool / "new").iterdir()) == [])
    _check("every image has its record", {Path(name).stem for name in node.images()} == {*listed, *_cuts(node)})
    for name, words in KINDS.items():
        _check_volume(_volume(node, name, known["volumes"][name]["id"], words), known["volumes"][name])
    _check_snapshot(node, known)
    for volume_id in set(listed) - {volume.id for volume in node.volumes}:
        _volume(node, volume_id, volume_id, {}).up()
    node.snapshots = [Snapshot(node, snapshot_id) for snapshot_id in _cuts(node)]
    node.take_down()
    _check("all is deleted", node.images() == [])
    node.stop()
    run("umount", FOLDER)
    _check(f"nothing is left: {Leftovers.now().since(machine)}", Leftovers.now().since(machine) == [])


def _volume(node: Node, name: str, volume_id: str, words: dict[str, Any]) -> Volume:
    volume = Volume(node, name, volume_id, block=words.get("block", False), fs_type=str(words.get("fs_type", "ext4")))
    node.volumes.append(volume)
    return volume


def _check_volume(volume: Volume, known: dict[str, Any]) -> None:
    volume.up()
    _check(f"{volume.staging.name} has its data", _digest(volume) == known["digest"])
    line = limit_line(volume.number)
    _check(f"{volume.staging.name} has its limit: {line}", line == known["line"] != "")


def _check_snapshot(node: Node, known: dict[str, Any]) -> None:
    _check("the snapshot is listed", known["snapshot"] in _cuts(node))
    restored = node.create("restored", 64 * MIB, source=Snapshot(node, known["snapshot"])).up()
    _check("the snapshot has its data", _digest(restored) == known["digest at the cut"])


def _cuts(node: Node) -> list[str]:
    answer = node.client.controller.ListSnapshots(csi.ListSnapshotsRequest(), timeout=60)
    return [each.snapshot.snapshot_id for each in answer.entries]


def _check(what: str, holds: bool) -> None:
    sys.stdout.write(f"{'yes' if holds else 'NO'}: {what}\n")
    sys.stdout.flush()
    if not holds:
        raise SystemExit(f"after the power cut it is not so that {what}")


if __name__ == "__main__":
    phases: dict[str, Callable[[], None]] = {"before": before, "after": lambda: after(json.loads(sys.argv[2]))}
    phases[sys.argv[1]]()
