"""The commands for people, beside a server and without one, on this machine's own kernel."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from csi_driver.rpc import csi_pb2 as csi
from tests.serving import CHECKOUT

if TYPE_CHECKING:
    from tests.serving import Server

pytestmark = pytest.mark.native

MIB = 1 << 20


def run(server: Server, command: str, *words: str) -> tuple[int, str, str]:
    """Run a command with the server's own flags; return status, output and errors."""
    flags = [f"--state={server.folder / 'state'}"]
    if command not in {"volumes", "top"}:
        flags += ["--node-id=node-a", f"--pool=name=fast,backend=loop,path={server.pool},size=2Gi,ratio=40"]
    argv = [sys.executable, "-m", "csi_driver", command, *flags, *words]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def listed(server: Server, command: str, *words: str) -> Any:  # noqa: ANN401 - JSON
    _, output, errors = run(server, command, "--json", *words)
    assert errors == ""
    return json.loads(output)


def capability() -> csi.VolumeCapability:
    mode = csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
    return csi.VolumeCapability(
        mount=csi.VolumeCapability.MountVolume(), access_mode=csi.VolumeCapability.AccessMode(mode=mode)
    )


def create(server: Server, name: str) -> str:
    request = csi.CreateVolumeRequest(
        name=name,
        capacity_range=csi.CapacityRange(required_bytes=64 * MIB),
        volume_capabilities=[capability()],
        parameters={"tier": "inference", "csi.storage.k8s.io/pvc/name": "model"},
    )
    return server.client.controller.CreateVolume(request, timeout=20).volume.volume_id


def delete(server: Server, volume_id: str) -> None:
    server.client.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume_id), timeout=20)


def test_volumes_and_top_say_what_the_kernel_and_the_records_say(server: Server) -> None:
    """Beside a running server: the wanted limits, the state, and where it is staged; `top` has what is staged only."""
    volume_id = create(server, "pvc-a")
    staged = server.folder / "staged"
    staged.mkdir()
    request = csi.NodeStageVolumeRequest(
        volume_id=volume_id, staging_target_path=str(staged), volume_capability=capability()
    )
    server.client.node.NodeStageVolume(request, timeout=20)

    (shown,) = listed(server, "volumes")
    (busy,) = listed(server, "top", "--every=0.2")
    server.client.node.NodeUnstageVolume(
        csi.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(staged)), timeout=20
    )
    (after,) = listed(server, "volumes")
    idle = listed(server, "top", "--every=0.2")
    delete(server, volume_id)

    assert (busy["id"], busy["claim"], busy["tier"], busy["throttled"]) == (volume_id, "model", "inference", False)
    assert idle == []
    assert (shown["id"], shown["claim"], shown["tier"]) == (volume_id, "model", "inference")
    assert (shown["state"], shown["staged"]) == ("staged", str(staged))
    assert shown["wanted"]["riops"] == 1000
    assert shown["size"] == 64 * MIB
    assert 0 < shown["used"] < 64 * MIB
    assert (after["state"], after["staged"], after["applied"]) == ("ready", "", None)


def test_doctor_looks_beside_a_server_and_names_it(server: Server) -> None:
    """It can serve, the lock's holder is named, and the pool is the one that its record says."""
    status, output, errors = run(server, "doctor", "--qos=off", "--json")
    checks = {check["name"]: check for check in json.loads(output)["checks"]}

    assert (status, errors) == (0, "")
    assert str(server.pid) in checks["server"]["found"]
    assert checks["pool fast"]["found"].endswith("as its record says")
    assert checks["pool fast: reflinks"]["state"] == "ok"


def test_adopt_is_refused_while_a_server_runs(server: Server) -> None:
    """One clear line, and status 1."""
    status, output, errors = run(server, "adopt", "--yes")

    assert (status, output) == (1, "")
    assert errors.startswith("sluice: state: another sluice (process ")
    assert errors.count("\n") == 1


def test_a_lost_database_is_rebuilt_by_adopt(server: Server) -> None:
    """The plan changes nothing; with --yes the server finds its volumes again, and can delete them."""
    volume_id = create(server, "pvc-a")
    before = listed(server, "volumes")
    server.stop()
    shutil.rmtree(server.folder / "state")

    plan = listed(server, "adopt")
    planned_files = {path.name for path in (server.folder / "state").iterdir()}
    done = listed(server, "adopt", "--yes")
    again = listed(server, "adopt", "--yes")
    server.start()
    after = listed(server, "volumes")
    delete(server, volume_id)

    assert [step["action"] for step in plan["steps"]] == ["adopt"]
    assert planned_files == {"agent.lock", "programs.lock"}
    assert (done["written"], again["written"]) == (1, 0)
    assert after == before


def test_adopt_makes_no_pool_of_an_empty_folder(server: Server) -> None:
    """A folder without a pool is most likely a disk that isn't mounted: nothing is claimed, status 1."""
    server.stop()
    empty = server.folder / "empty"
    empty.mkdir()
    argv = [sys.executable, "-m", "csi_driver", "adopt", f"--state={server.folder / 'other'}"]
    argv += [f"--pool=name=fast,backend=loop,path={empty}", "--yes"]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "is its disk mounted" in done.stdout
    assert list(empty.iterdir()) == []
