"""In the test machine: what goes on until the power is cut, and what is there after the next boot.

`python -m tests.vm.power_cut WORDS` looks for all that was acknowledged before the last cut, fails like a test where it
isn't there, and goes on to work until the next one. WORDS is the JSON of a `Cut`. Lines of JSON on standard output say
what is acknowledged from then on; all others, what was found.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from csi_driver.deadline import Deadline, wait_for
from csi_driver.records import Snapshot as SnapshotRecord
from csi_driver.records import Volume as Record
from tests.kernel.gauge import limit_line
from tests.kernel.node import MIB, run
from tests.kernel.volume import Snapshot, Volume
from tests.leftovers import Leftovers
from tests.vm.caller import Caller, Seen, offered, settled, wrong
from tests.vm.fio import SIZE, Fio
from tests.vm.kept import kept
from tests.vm.plan import around, id_of
from tests.vm.saying import say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.vm.kept import KeptImages, KeptThin

    Node = KeptImages | KeptThin

KINDS: dict[str, dict[str, Any]] = {
    "ext4": {"size": 64 * MIB, "readIOPS": "5000", "writeBPS": "8Mi"},
    "xfs": {"size": 300 * MIB, "fs_type": "xfs", "readBPS": "16Mi", "writeIOPS": "200"},
    "raw": {"size": SIZE, "block": True, "tier": "inference"},
}
FILLED = ("ext4", "xfs")
"""What has a file that stays as it is."""
SNAPSHOT = "snapshot"
STAY = {*KINDS, SNAPSHOT}
WORKERS = 3


class Cut(NamedTuple):
    """Hold what the host knows and wants.

    backend    of the pool: loop or lvm
    seed       what the workers do
    number     how many cuts there were
    seconds    after how many the power is to be cut, 0 for not any more
    known      what the first boot said of the volumes that stay
    done       how many calls of each worker were acknowledged until the last cut
    counted    how many blocks fio had counted then
    """

    backend: str
    seed: int
    number: int
    seconds: float
    known: dict[str, Any]
    done: list[int]
    counted: dict[str, int]


def main(cut: Cut) -> None:
    """Look, and work."""
    machine = Leftovers.now()
    node = kept(cut.backend)
    if cut.number:
        _holds("nothing has to be repaired", node.sound())
    else:
        node.format()
    node.mount()
    node.start()
    if cut.number:
        cut = _check(node, cut)
    else:
        _make(node)
    if cut.seconds:
        _work(node, cut)
    else:
        _take_down(node, cut, machine)


def _make(node: Node) -> None:
    """Make the volumes and the snapshot that stay, and tell how to know them again."""
    known: dict[str, Any] = {}
    for name, words in KINDS.items():
        volume = node.create(name, **words).up()
        known[name] = {"line": limit_line(volume.number), "digest": ""}
        if name in FILLED:
            volume.fill(8 * MIB)
            known[name]["digest"] = _digest(volume)
    node.cut(node.volumes[0], SNAPSHOT)
    known[SNAPSHOT] = known["ext4"]["digest"]
    node.volumes[0].fill(4 * MIB)
    known["ext4"]["digest"] = _digest(node.volumes[0])
    say(known=known)


def _work(node: Node, cut: Cut) -> None:
    """Keep everything busy until the power goes."""
    counts: dict[str, int] = {}
    fios = _fios(node, cut.number + 1)
    for fio in fios:
        _clean(fio.path)
        fio.start(partial(_count, counts, fio.name))
    begun = threading.Barrier(WORKERS + 1)
    for worker in range(WORKERS):
        threading.Thread(target=_call, args=(node, cut, worker, begun), daemon=True).start()
    begun.wait()
    wait_for("fio writes", lambda: all(counts.get(fio.name) for fio in fios), Deadline(60))
    subprocess.Popen(["sh", "-c", f"sleep {cut.seconds} && echo b >/proc/sysrq-trigger"])
    threading.Event().wait()


def _count(counts: dict[str, int], name: str, count: int) -> None:
    counts[name] = count
    say(fio=name, count=count)


def _call(node: Node, cut: Cut, worker: int, begun: threading.Barrier) -> None:
    """Make the calls of one worker, and tell after each that it was acknowledged."""
    caller = Caller(node)
    for number in range(cut.done[worker], sys.maxsize):
        things, _, op = around(f"{cut.seed}-{worker}", number)
        caller.do(op, things)
        say(worker=worker, done=number + 1)
        if number == cut.done[worker]:
            begun.wait()


def _fios(node: Node, number: int) -> list[Fio]:
    """Return what fio writes before the cut of this number, another sequence each time."""
    volumes = {volume.staging.name: volume for volume in node.volumes}
    ext4 = Fio("ext4", volumes["ext4"].target / "fio", direct=False, seed=number)
    return [ext4, Fio("raw", volumes["raw"].target, direct=True, seed=number)]


def _clean(path: Path) -> None:
    """Leave only durable zeros where fio is going to write."""
    with path.open("r+b" if path.is_block_device() else "wb") as file:
        file.write(bytes(SIZE))
        file.flush()
        run("sync", path)


def _check(node: Node, cut: Cut) -> Cut:
    """Find everything again, whole, and nothing that is not. Return what is acknowledged from now on."""
    _holds("nothing is offered before it is made", offered(node) <= node.ids())
    seen = settled(node, STAY)
    _holds("nothing is wrong with any volume", not any(node.listed().values()))
    _holds("nothing half made is in the pool", node.half_made() == [])
    whole = {id_of(thing.kind, name) for name, thing in seen.items()}
    odd = whole ^ node.ids() | whole ^ offered(node)
    _holds(f"every image has its record, and all of them are offered {odd}", not odd)
    for name in KINDS:
        _check_volume(node, name, cut.known[name])
    for fio in _fios(node, cut.number):
        there, found = fio.check(cut.counted.get(fio.name, 0))
        _holds(f"{fio.name} has its {there} blocks, {cut.counted} were counted {found}", not found)
    return _check_calls(node, cut, seen)


def _check_calls(node: Node, cut: Cut, seen: Mapping[str, Seen]) -> Cut:
    """Compare what there is with what was acknowledged; then make each call again that was cut, and compare anew."""
    _holds("what must stay is there", seen.keys() >= STAY)
    turns = [around(f"{cut.seed}-{worker}", done) for worker, done in enumerate(cut.done)]
    before = {name: thing for things, _, _ in turns for name, thing in things.items()}
    after = {name: thing for _, things, _ in turns for name, thing in things.items()}
    ops = [op for _, _, op in turns]
    found = wrong(_others(seen), before, after, ops)
    _holds(f"each call has its effect if it was acknowledged, else all of it or none {found}", not found)
    for op in ops:
        Caller(node).do(op, before)
    found = wrong(_others(settled(node, STAY)), after, after)
    _holds(f"each call that was cut can be made again {found}", not found)
    done = [done + 1 for done in cut.done]
    say(done=done)
    return cut._replace(done=done)


def _others(seen: Mapping[str, Seen]) -> dict[str, Seen]:
    return {name: thing for name, thing in seen.items() if name not in STAY}


def _check_volume(node: Node, name: str, known: dict[str, str]) -> None:
    words = KINDS[name]
    volume_id = id_of(Record.KIND, name)
    fs_type = str(words.get("fs_type", "ext4"))
    volume = Volume(node, name, volume_id, block=words.get("block", False), fs_type=fs_type).up()
    node.volumes.append(volume)
    line = limit_line(volume.number)
    _holds(f"{name} has its limit: {line}", line == known["line"] != "")
    if name in FILLED:
        _holds(f"{name} has its data", _digest(volume) == known["digest"])


def _take_down(node: Node, cut: Cut, machine: Leftovers) -> None:
    """See that the snapshot is good, and that all can be deleted."""
    snapshot = Snapshot(node, id_of(SnapshotRecord.KIND, SNAPSHOT))
    restored = node.create("restored", KINDS["ext4"]["size"], source=snapshot).up()
    _holds("the snapshot has its data", _digest(restored) == cut.known[SNAPSHOT])
    for record in node.records():
        if isinstance(record, SnapshotRecord):
            node.snapshots.append(Snapshot(node, record.id))
        elif record.spec.name not in {*KINDS, "restored"}:
            node.volumes.append(Volume(node, record.spec.name, record.id, block=True, fs_type=""))
    node.take_down()
    _holds("all is deleted", node.images() == [])
    node.stop()
    node.release()
    left = Leftovers.now().since(machine)
    _holds(f"nothing is left: {left}", left == [])


def _digest(volume: Volume) -> str:
    return hashlib.sha256(volume.file.read_bytes()).hexdigest()


def _holds(what: str, holds: bool) -> None:
    sys.stdout.write(f"{'yes' if holds else 'NO'}: {what}\n")
    sys.stdout.flush()
    if not holds:
        raise SystemExit(f"after the power cut it is not so that {what}")


if __name__ == "__main__":
    main(Cut(**json.loads(sys.argv[1])))
