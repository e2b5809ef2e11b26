"""A real `sluice serve` on this machine's kernel, furnished, with what it could leave and what it starts in view."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from csi_driver.host import mountinfo
from csi_driver.rpc import csi_pb2 as csi
from tests.input.stand import Stand
from tests.serving import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from csi_driver.host.mounts import Mount

SCOPE = "local/csi.sluice.dev"
RECORDER = "tests.input.recorded"


class Recorded(Server):
    """A server that writes down every program that it starts, with arguments and environment."""

    def __init__(self, *flags: str, folder: Path | None = None) -> None:
        super().__init__(*flags, folder=folder)
        self.programs = self.folder / "programs"
        self.programs.touch()
        self._argv[1:3] = ["-m", RECORDER, str(self.programs)]

    def environment(self) -> bytes:
        """Return the environment and the arguments of the server itself."""
        process = Path("/proc") / str(self.pid)
        return (process / "environ").read_bytes() + (process / "cmdline").read_bytes()


class Real(Stand):
    """Hold a running server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        super().__init__(server.folder, server.socket, SCOPE, "node-a")

    @classmethod
    def on(cls, server: Server) -> Self:
        """Furnish a running server."""
        made = cls(server)
        made.furnish()
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing, unless the test failed: the server's own end takes down what is there then."""
        if kind is None:
            self.clear()
        self.channel.close()

    def mounts(self) -> list[Mount]:
        """Return the mounts below the folder, but for the pool's own."""
        inside = [mount for mount in mountinfo.all_mounts() if mount.target.is_relative_to(self.folder)]
        return [mount for mount in inside if mount.target != self.server.pool / "pool"]

    def loops(self) -> dict[str, str]:
        """Return the loop devices of volumes: the device's name, and the volume's id."""
        found = {}
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            image = Path(os.fsdecode(path.read_bytes()).strip())
            if image.is_relative_to(self.folder) and image.suffix == ".img":
                found[path.parent.parent.name] = image.stem
        return found

    def shown(self) -> list[tuple[str, str]]:
        """Ask the kernel."""
        loops, found = self.loops(), []
        for mount in self.mounts():
            name = mount.source.removeprefix("/dev/") if mount.root == "/" else mount.root[1:]
            found.append((loops[name], str(mount.target)))
        return found

    def made(self) -> tuple[set[str], dict[str, str]]:
        """Ask the server."""
        volumes = self.server.client.controller.ListVolumes(csi.ListVolumesRequest())
        snapshots = self.server.client.controller.ListSnapshots(csi.ListSnapshotsRequest())
        return (
            {entry.volume.volume_id for entry in volumes.entries},
            {entry.snapshot.snapshot_id: entry.snapshot.group_snapshot_id for entry in snapshots.entries},
        )

    def state(self) -> list[str]:
        """Return what the kernel, the folders and the server's lists have."""
        volumes = self.server.client.controller.ListVolumes(csi.ListVolumesRequest())
        snapshots = self.server.client.controller.ListSnapshots(csi.ListSnapshotsRequest())
        mounts = [
            f"mount {mount.source} {mount.root} at {mount.target} {sorted(mount.options)}" for mount in self.mounts()
        ]
        loops = [f"loop {name} of {volume}" for name, volume in sorted(self.loops().items())]
        return [str(volumes), str(snapshots), *self.server.images(), *mounts, *loops, *self._files()]

    def _files(self) -> Iterator[str]:
        """Yield the files that callers name, not those in volumes."""
        for name in ("staging", "pods", "wrong"):
            for path in sorted((self.folder / name).glob("*" if name != "wrong" else "**/*")):
                status = path.lstat()
                yield f"{path} {status.st_mode:o} {status.st_size if path.is_file() else ''}"
