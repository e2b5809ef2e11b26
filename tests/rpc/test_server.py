"""The gRPC skin around the verbs: a real server on a real socket, on a sim pool."""

from __future__ import annotations

import contextlib
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from csi_driver.errors import Busy, Unready
from csi_driver.records import GIB
from csi_driver.rpc import csi_pb2 as csi
from csi_driver.rpc.controller import Controller
from csi_driver.rpc.csi_pb2_grpc import ControllerStub, IdentityStub
from csi_driver.rpc.group import Group
from csi_driver.rpc.identity import Identity
from csi_driver.rpc.intercept import WORKERS
from csi_driver.rpc.server import Server
from csi_driver.store.sqlite import SqliteStore
from tests.fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "csi.sluice.dev/node"
MOUNT = csi.VolumeCapability(
    mount=csi.VolumeCapability.MountVolume(fs_type="ext4"),
    access_mode=csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)


class Served:
    """Hold a server on a sim world, and stubs to it."""

    def __init__(self, folder: Path) -> None:
        self.world = World(SqliteStore(folder / "sluice.db"), total=100 * GIB)
        self.socket = folder / "made" / "csi.sock"
        self.calls: list[tuple[str, str]] = []
        self.controller = Controller(self.world.controller.volumes, self.world.controller.snapshots, KEY)
        self.server = Server(
            f"unix://{self.socket}",
            lambda rpc, code, _: self.calls.append((rpc, code)),
            Identity("csi.sluice.dev", "1", lambda: True),
            self.controller,
            None,
            Group(self.world.controller.groups),
        )
        self.server.start()
        self.channel = grpc.insecure_channel(f"unix:{self.socket}", [("grpc.default_authority", "localhost")])
        self.stub = ControllerStub(self.channel)
        self.identity = IdentityStub(self.channel)

    def close(self) -> None:
        self.channel.close()
        self.server.stop()
        self.world.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.close()


def create(**changes: Any) -> csi.CreateVolumeRequest:  # noqa: ANN401 - fields of any kind
    request = csi.CreateVolumeRequest(name="v", volume_capabilities=[MOUNT])
    for field, value in changes.items():
        if hasattr(value, "DESCRIPTOR"):
            getattr(request, field).CopyFrom(value)
        elif isinstance(value, (dict, list)):
            request.ClearField(field)  # type: ignore[arg-type]
            getattr(request, field).update(value) if isinstance(value, dict) else getattr(request, field).extend(value)
        else:
            setattr(request, field, value)
    return request


def capability(**changes: Any) -> csi.VolumeCapability:  # noqa: ANN401 - the same
    made = csi.VolumeCapability()
    made.CopyFrom(MOUNT)
    for field, value in changes.items():
        getattr(made, field).CopyFrom(value)
    return made


MountVolume = csi.VolumeCapability.MountVolume
AccessMode = csi.VolumeCapability.AccessMode


def said(caught: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    return str(caught.value.details())


def test_the_socket_is_for_its_owner_alone(served: Served) -> None:
    """0600 in a folder of 0700."""
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(served.socket.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (create(name=""), "name is missing"),
        (create(name="x" * 129), "name: 'xxx"),
        (create(name="a\x1bb"), r"name: 'a\x1bb'"),
        (create(volume_capabilities=[]), "volume_capabilities is missing"),
        (create(volume_capabilities=[csi.VolumeCapability()]), "access_type is missing"),
        (create(volume_capabilities=[capability(mount=MountVolume(fs_type="ntfs"))]), "fs_type: 'ntfs'"),
        (create(volume_capabilities=[capability(mount=MountVolume(mount_flags=["ro", "suid"]))]), "option 2 of 2"),
        (create(volume_capabilities=[capability(mount=MountVolume(volume_mount_group="7"))]), "volume_mount_group"),
        (
            create(volume_capabilities=[capability(access_mode=AccessMode(mode=AccessMode.MULTI_NODE_MULTI_WRITER))]),
            "MULTI_NODE_MULTI_WRITER is not served",
        ),
        (
            create(volume_capabilities=[MOUNT, capability(mount=MountVolume(fs_type="xfs"))]),
            "can't have the file systems ext4, xfs",
        ),
        (create(parameters={"teir": "training"}), "parameter 'teir' is not known"),
        (create(parameters={"tier": "gold"}), "there is no tier 'gold'"),
        (create(parameters={"readIOPS": "lots"}), "readIOPS='lots'"),
        (create(parameters={"readIOPS": "1"}), "readIOPS"),
        (create(parameters={"burstBPS": "5"}), "burstBPS: not supported yet"),
        (create(parameters={"fsType": "vfat"}), "fsType: 'vfat'"),
        (create(parameters={"mountOptions": "noatime,suid"}), "mountOptions: option 2 of 2"),
        (create(parameters={"mkfsOptions": "-F -F"}), "mkfsOptions: '-F -F'"),
        (create(parameters={"sectorSize": "1000"}), "sectorSize: '1000'"),
        (create(parameters={"readAheadKiB": "-1"}), "readAheadKiB: '-1'"),
        (create(parameters={"pool": "x" * 5000}), "parameters: 5004 bytes"),
        (create(mutable_parameters={"fsType": "ext4"}), "parameter 'fsType' is not known"),
        (create(capacity_range=csi.CapacityRange(required_bytes=-1)), "capacity_range: -1"),
        (create(capacity_range=csi.CapacityRange(required_bytes=9, limit_bytes=8)), "capacity_range"),
        (
            create(volume_content_source=csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource())),
            "snapshot_id is missing",
        ),
        (
            create(
                accessibility_requirements=csi.TopologyRequirement(requisite=[csi.Topology(segments={"zone": "a"})])
            ),
            "lacks 'csi.sluice.dev/node'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_names_the_field_and_makes_nothing(
    served: Served, request_: csi.CreateVolumeRequest, names: str
) -> None:
    """INVALID_ARGUMENT with a message that says what to mend, empty details, and no volume."""
    with pytest.raises(grpc.RpcError) as caught:
        served.stub.CreateVolume(request_, timeout=10)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert names in said(caught)
    assert not served.world.disks["n1"].images
    assert "grpc-status-details-bin" not in str(caught.value.trailing_metadata())


def test_a_bug_is_internal_and_says_where_the_log_has_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is none of our errors is INTERNAL; the message shows no innards."""

    def bug(*_: object, **__: object) -> None:
        raise KeyError("innards")

    monkeypatch.setattr(served.world.controller.volumes, "create", bug)
    with structlog.testing.capture_logs() as logs, pytest.raises(grpc.RpcError) as caught:
        served.stub.CreateVolume(create(), timeout=10)

    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "innards" not in said(caught)
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["bug"]


def test_a_wait_ends_before_the_callers_deadline(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller hears ABORTED and what was waited for, not its own DEADLINE_EXCEEDED."""

    def stuck(*_: object) -> None:
        raise Unready("the disk sleeps")

    monkeypatch.setattr(served.world.agents["n1"].pool().backend, "create", stuck)
    with pytest.raises(grpc.RpcError) as caught:
        served.stub.CreateVolume(create(), timeout=1.5)

    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert "the disk sleeps" in said(caught)


def test_waiting_calls_do_not_keep_a_probe_from_its_turn(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every controller thread waiting, and more calls behind them, Probe answers at once."""
    entered = threading.Semaphore(0)
    let_go = threading.Event()

    def wait(*_: object, **__: object) -> None:
        entered.release()
        let_go.wait(30)
        raise Busy("let go")

    monkeypatch.setattr(served.world.controller.volumes, "create", wait)
    with ThreadPoolExecutor(WORKERS["controller"] + 8) as callers:

        def call() -> None:
            with contextlib.suppress(grpc.RpcError):
                served.stub.CreateVolume(create(), timeout=30)

        for _ in range(WORKERS["controller"] + 8):
            callers.submit(call)
        for _ in range(WORKERS["controller"]):
            assert entered.acquire(timeout=20)
        started = time.monotonic()
        answer = served.identity.Probe(csi.ProbeRequest(), timeout=20)
        waited = time.monotonic() - started
        let_go.set()

    assert answer.ready.value is True
    assert waited < 10, "it waited for the controller's calls"


def test_every_call_is_counted_with_its_code(served: Served) -> None:
    """The metrics hear of each call once."""
    served.stub.CreateVolume(create(), timeout=10)
    with pytest.raises(grpc.RpcError):
        served.stub.ControllerGetVolume(csi.ControllerGetVolumeRequest(volume_id="no"), timeout=10)

    assert served.calls == [("CreateVolume", "OK"), ("ControllerGetVolume", "NOT_FOUND")]


def test_a_secret_is_in_no_log(served: Served) -> None:
    """Secrets, and mount flags that may hold one, are not written anywhere."""
    secret = "hunter2"  # noqa: S105 - the point of the test
    flags = capability(mount=MountVolume(fs_type="ext4", mount_flags=[secret]))
    with structlog.testing.capture_logs() as logs:
        served.stub.CreateVolume(create(secrets={"key": secret}), timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            served.stub.CreateVolume(create(name="w", volume_capabilities=[flags]), timeout=10)

    assert secret not in repr(logs)
    assert secret not in said(caught)
    assert logs
