"""A server with something wrong below it: its state or its pool on a file system of a test's own, or a bad program."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc

from csi_driver.deadline import Deadline, wait_for
from csi_driver.host import mountinfo
from csi_driver.host.loopdev import LoopDevices
from csi_driver.host.syscalls import Kernel
from csi_driver.rpc import csi_pb2 as csi
from tests.kernel.node import refusal, run
from tests.kernel.volume import Volume
from tests.serving import CHECKOUT, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Volume", "refusal", "run"]

MIB = 1 << 20
CALL_SECONDS = 20.0
AGAIN = (grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
FLAGS = {"volumes": ("--state=",), "adopt": ("--state=", "--node-id=", "--pool=")}
Result = TypeVar("Result")


def create(
    server: Server,
    name: str,
    size: int = 32 * MIB,
    *,
    block: bool = False,
    seconds: float = CALL_SECONDS,
    tier: str = "standard",
) -> Volume:
    """Create a volume."""
    request = csi.CreateVolumeRequest(
        name=name,
        capacity_range=csi.CapacityRange(required_bytes=size),
        volume_capabilities=[Volume.capability(block=block, fs_type="ext4")],
        parameters={"tier": tier},
    )
    answer = server.client.controller.CreateVolume(request, timeout=seconds)
    return Volume(server, name, answer.volume.volume_id, block=block, fs_type="ext4")


def stage(volume: Volume, seconds: float) -> None:
    """Stage a volume, by a deadline of one's own."""
    volume.staging.mkdir(parents=True, exist_ok=True)
    request = csi.NodeStageVolumeRequest(
        volume_id=volume.id,
        staging_target_path=str(volume.staging),
        volume_capability=Volume.capability(block=volume.block, fs_type=volume.fs_type),
    )
    volume.node.client.node.NodeStageVolume(request, timeout=seconds)


def unstage(volume: Volume, seconds: float) -> None:
    """Unstage a volume, by a deadline of one's own."""
    request = csi.NodeUnstageVolumeRequest(volume_id=volume.id, staging_target_path=str(volume.staging))
    volume.node.client.node.NodeUnstageVolume(request, timeout=seconds)


def delete(volume: Volume, seconds: float) -> None:
    """Delete a volume, by a deadline of one's own."""
    volume.node.client.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume.id), timeout=seconds)


def listed(server: Server) -> list[str]:
    """Return the ids of all volumes."""
    answer = server.client.controller.ListVolumes(csi.ListVolumesRequest(), timeout=CALL_SECONDS)
    return [entry.volume.volume_id for entry in answer.entries]


def is_ready(server: Server) -> bool:
    """Ask whether the server serves, and want an answer in a second."""
    return server.client.identity.Probe(csi.ProbeRequest(), timeout=1.0).ready.value


def until_done(call: Callable[[], object], seconds: float = CALL_SECONDS) -> None:
    """Make a call again for as long as it is told to come again, as sidecars and a kubelet do."""

    def done() -> bool:
        try:
            call()
        except grpc.RpcError as error:
            if error.code() not in AGAIN:
                raise
            return False
        return True

    wait_for("the call is done", done, Deadline(seconds))


def refused_start(server: Server) -> str:
    """Start a server that must refuse to, and return what it says: a line for a person, and status 1."""
    done = subprocess.run(server._argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    return done.stderr


def sluice(server: Server, command: str, *words: str) -> Any:  # noqa: ANN401 - JSON
    """Run a command for people with the server's own flags."""
    flags = [word for word in server._argv if word.startswith(FLAGS[command])]
    argv = [sys.executable, "-m", "csi_driver", command, *flags, *words, "--json"]
    return json.loads(run(*argv))


def loop_of(image: Path) -> Path:
    """Return the loop device that an image is behind."""
    device = LoopDevices(Kernel()).find(image)
    assert device is not None
    return device.path


def meanwhile(call: Callable[[], Result]) -> Future[Result]:
    """Make a call in a thread of its own."""
    future: Future[Result] = Future()

    def settle() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - who asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=settle, daemon=True).start()
    return future


def _loops_of(image: Path) -> list[str]:
    return [line.partition(":")[0] for line in run("losetup", "--associated", image).splitlines()]


class OnDisk(Server):
    """A server with one of its folders on a file system of its own, that a test can fill, spoil and take away."""

    def __init__(self, place: str, size: int, *, fs_type: str, pool: str) -> None:
        super().__init__(pool=pool)
        self.place = self.folder / place
        self._image = self.folder / f"{place}.disk"
        self._fs_type = fs_type
        self._stays: tuple[str, ...] = (f" on {self._image}", f" at {self.place}")
        with self._image.open("wb") as file:
            file.truncate(size)
        run(f"mkfs.{fs_type}", "-q", self._image)
        self.mount()

    def mount(self, *options: str) -> None:
        """Mount the file system."""
        self.place.mkdir(exist_ok=True)
        run("mount", "-t", self._fs_type, "-o", ",".join(("loop", *options)), self._image, self.place)

    def remount(self, option: str) -> None:
        """Mount it read-only, or writable again."""
        run("mount", "-o", f"remount,{option}", self.place)

    @contextlib.contextmanager
    def taken_away(self) -> Iterator[None]:
        """Unmount it while the body runs, and mount it again from another device, as a disk that was plugged in."""
        device = next(mount.source for mount in mountinfo.all_mounts() if mount.target == self.place)
        run("umount", self.place)
        stranger = self.folder / "stranger"
        stranger.write_bytes(bytes(MIB))
        # Unless another program of this machine is quicker, which will do as well.
        subprocess.run(["losetup", device, stranger], check=False, capture_output=True)
        try:
            yield
            self.mount()
        finally:
            for name in _loops_of(stranger):
                run("losetup", "--detach", name)

    def images(self) -> list[str]:
        """Return the image files in the pool, also where the pool's folder holds them itself."""
        if self.place != self.pool:
            return super().images()
        return sorted(path.name for folder in ("images", "new") for path in (self.pool / folder).glob("*"))

    def leftovers(self) -> list[str]:
        """Return what is left besides the file system itself, while that is to stay."""
        return [thing for thing in super().leftovers() if not thing.endswith(self._stays)]

    def clear(self) -> None:
        """Take the file system down too."""
        self._stays = ()
        super().clear()

    def __enter__(self) -> Self:
        """Start."""
        try:
            return super().__enter__()
        except BaseException:
            self.clear()
            raise


class Launched(Server):
    """A server that finds programs of a test's own before the machine's."""

    def __init__(self) -> None:
        super().__init__()
        self.programs = self.folder / "programs"
        self.programs.mkdir()
        self._argv = [sys.executable, "-m", "tests.faults.launcher", str(self.programs), *self._argv[3:]]

    def program(self, name: str, script: str) -> None:
        """Put a shell script there."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
