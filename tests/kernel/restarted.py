"""A server started on a disk as a power cut left it, and a look at what it makes of it."""

from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from csi_driver.assemble import DATABASE
from csi_driver.backends import passports
from csi_driver.cli import serve
from csi_driver.config import Config, PoolConfig
from csi_driver.deadline import Deadline
from csi_driver.records import Volume as Record
from tests.kernel.recorded import BASE, BLOCK, FILE_SYSTEMS, SEED, SLOTS, numbered
from tests.kernel.volume import Volume
from tests.serving import Client
from tests.vm.caller import Caller, Seen, offered, settled, wrong
from tests.vm.kept import KeptImages
from tests.vm.plan import around, id_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from csi_driver.assemble import Machine
    from csi_driver.records import History
    from tests.kernel.logged import Copy
    from tests.kernel.moments import Acknowledged

SECONDS = 30
OTHERS = {op.name for op in BASE}


class Restarted(KeptImages):
    """A server in this process, on a copy of the disk, in the folder where it was. Within `with`, it is mounted."""

    def __init__(self, folder: Path, copy: Copy, machine: Machine) -> None:
        super().__init__(qos="off", folder=folder, disk="none")
        self._copy = copy
        self._machine = machine
        self._at_end = contextlib.ExitStack()

    def start(self) -> float:
        """Start, on what is mounted."""
        pool = PoolConfig("fast", "loop", self.pool, ratio=10.0)
        config = Config(f"unix://{self.socket}", "all", "node-a", self.folder / "state", (pool,), qos="off")
        serve.start(config, self._at_end, threading.Event())
        self._client = Client(self.socket)
        self._at_end.callback(self._client.channel.close)
        return 0.0

    def __enter__(self) -> Self:
        """Mount both file systems, which replays their own logs."""
        for name, image in self._copy.files.items():
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            device = self._machine.loops.attach(image, sector_size=512, deadline=Deadline(SECONDS))
            self._machine.mounts.mount(device.path, self.folder / name, FILE_SYSTEMS[name], ("noatime",))
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, unmount, and leave nothing."""
        self._at_end.close()
        for name, image in self._copy.files.items():
            self._machine.mounts.unmount(self.folder / name, Deadline(SECONDS))
            self._machine.loops.detach(image, Deadline(SECONDS))
        shutil.rmtree(self.folder)


class Look:
    """Look at one moment, at what the last server left and at what the next one makes of it."""

    def __init__(self, node: Restarted, acknowledged: Acknowledged, older: dict[str, History]) -> None:
        self._node = node
        self._known = acknowledged
        self._older = older
        turns = [around(f"{SEED}-{worker}", done) for worker, done in enumerate(acknowledged.done)]
        self._before = {name: thing for things, _, _ in turns for name, thing in things.items()}
        self._after = {name: thing for _, things, _ in turns for name, thing in things.items()}
        self._ops = [op for _, _, op in turns]

    def records(self) -> Iterator[str]:
        """Yield what is wrong before a server was started: promises without bytes, bytes without a promise."""
        database = (self._node.folder / "state" / DATABASE).exists()
        records = {record.id: record for record in self._node.records()} if database else {}
        images = {path.stem for path in self._node.pool.glob("images/*")}
        for record in records.values():
            history = record.status.history
            if history.made and not history.condemned:
                yield from self._promise(record.id, record.spec.name, images)
            if history.falls_back_from(self._older.get(record.id, history)):
                yield f"{record.spec.name} had {self._older[record.id]} and has {history}"
        for image in images - {record.id for record in records.values() if record.status.history.accepted}:
            yield f"image {image} has no record"
        self._older.update({record.id: record.status.history for record in records.values()})

    def _promise(self, record_id: str, name: str, images: set[str]) -> Iterator[str]:
        if record_id not in images:
            yield f"{name} was made, and has no image"
            return
        with self._node.image(record_id).open("rb") as file:
            passport = passports.read(file.fileno())
        if passport is None or (passport.id, passport.name) != (record_id, name):
            yield f"{name} has the passport {passport}"

    def started(self) -> Iterator[str]:
        """Start the server, and yield what is wrong when it has settled: with what it offers, with what was written."""
        self._node.start()
        if half := offered(self._node) - self._images():
            yield f"{half} are offered before they are made"
        seen = settled(self._node, OTHERS)
        whole = {id_of(thing.kind, name) for name, thing in seen.items()}
        if not self._images() == whole == offered(self._node):
            yield f"there are images {self._images()}, records {whole}, and {offered(self._node)} are offered"
        yield from wrong(_others(seen), self._before, self._after, self._ops)
        for op in BASE[: self._known.base]:
            if op.name not in seen or seen[op.name][:2] != (Record.KIND, op.size):
                yield f"{op.name} is {seen.get(op.name)}"
        if self._known.base >= 1:
            yield from self._raw()
        if self._known.base >= len(BASE):
            yield from self._diary()

    def _images(self) -> set[str]:
        return {Path(name).stem for name in self._node.images()}

    def again(self) -> Iterator[str]:
        """Yield what is wrong after the calls that were cut have been made again."""
        if self._known.base < len(BASE):
            return
        for op in self._ops:
            Caller(self._node).do(op, self._before)
        yield from wrong(_others(settled(self._node, OTHERS)), self._after, self._after)

    def _raw(self) -> Iterator[str]:
        """Look at the numbered blocks: each the last that was acknowledged, or the one after that."""
        last = self._known.raw
        with self._node.image(id_of(Record.KIND, "raw")).open("rb") as image:
            for slot in range(SLOTS):
                block = image.read(BLOCK)
                allowed = [number for number in range(last - SLOTS + 1, last + 2) if number % SLOTS == slot]
                if block not in [numbered(number) if number > 0 else bytes(BLOCK) for number in allowed]:
                    yield f"block {slot} of raw is {block[:16].hex()}, not one of {allowed}"

    def _diary(self) -> Iterator[str]:
        """Look at the diary, as a pod would."""
        volume = Volume(self._node, "diary", id_of(Record.KIND, "diary"), block=False, fs_type="ext4").up()
        try:
            lines = volume.file.read_text().split() if volume.file.exists() else []
        finally:
            volume.down()
        whole = [int(line) for line in lines] == list(range(1, len(lines) + 1))
        if not whole or len(lines) - self._known.diary not in (0, 1):
            yield f"the diary ends with {lines[-2:]}, acknowledged was {self._known.diary}"


def _others(seen: Mapping[str, Seen]) -> dict[str, Seen]:
    return {name: thing for name, thing in seen.items() if name not in OTHERS}
