"""A secret in every field that may hold one is found nowhere afterwards: the fields are the proto's own list."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.input import proto
from tests.input.real import Real, Recorded
from tests.input.stand import CUT, RAW, USED
from tests.input.valid import request
from tests.serving import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

SECRET = "hunter2-correct-horse"  # noqa: S105 - the point of the test
SECRETS = {
    method: [names for names, field in proto.fields(proto.METHODS[method].input_type) if proto.is_secret(field)]
    for method in proto.METHODS
}
ORDER = [
    *("CreateVolume", "ValidateVolumeCapabilities", "GetCapacity", "ListVolumes", "ControllerGetVolume"),
    *("ControllerPublishVolume", "ControllerUnpublishVolume", "ControllerExpandVolume", "ControllerModifyVolume"),
    *("CreateSnapshot", "ListSnapshots", "GetSnapshot", "CreateVolumeGroupSnapshot", "GetVolumeGroupSnapshot"),
    *("DeleteVolumeGroupSnapshot", "NodeStageVolume", "NodePublishVolume", "NodeGetVolumeStats"),
    *("NodeExpandVolume", "NodeUnpublishVolume", "NodeUnstageVolume", "DeleteSnapshot", "DeleteVolume"),
]
BUG = f"""
import rich  # by which structlog would show the local variables of every frame
import sys
from csi_driver import log
from csi_driver.rpc import csi_pb2
from csi_driver.rpc.intercept import Intercept

class Context:
    def abort(self, code, said):
        raise SystemExit(said)

def handler(request, context):
    secrets = dict(request.secrets)
    raise KeyError("a bug")

log.configure(sys.argv[1], "debug")
request = csi_pb2.CreateVolumeRequest(name="v\\x1b[31m", secrets={{"key": "{SECRET}"}})
request.volume_capabilities.add().mount.mount_flags.append("{SECRET}")
Intercept(print)._call("CreateVolume", handler, request, Context())
"""


def test_the_proto_has_secrets_where_it_is_said() -> None:
    """So that an empty list proves nothing: 19 maps of secrets, and mount_flags in every capability."""
    flat = [names[-1] for method in SECRETS for names in SECRETS[method]]

    assert flat.count("secrets") == 19
    assert flat.count("mount_flags") >= 7
    assert {method for method in ORDER if method not in SECRETS} == set()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_log_of_a_bug_shows_no_request(log_format: str) -> None:
    """A traceback has the lines of code, not the values in them; what a terminal would obey is written out."""
    done = subprocess.run(
        [sys.executable, "-c", BUG, log_format], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr

    assert "KeyError" in said
    assert 'raise KeyError("a bug")' in said or "in handler" in said
    assert SECRET not in said
    assert "\x1b" not in said


def planted(method: str, real: Real) -> Iterator[Message]:
    """Yield a right request with all its secrets, some with a forbidden mount flag, and one that lacks a field."""
    right = request(method, real)
    for names in SECRETS[method]:
        if names[-1] == "secrets":
            proto.plant(right, names, SECRET)
    yield right
    for names in SECRETS[method]:
        if names[-1] == "mount_flags":
            for flag in (SECRET, f"commit={SECRET}", f"{SECRET}=1", f"bind,{SECRET}"):
                wrong = request(method, real)
                wrong.CopyFrom(right)
                proto.plant(wrong, names, flag)
                yield wrong
    lacking = request(method, real)
    lacking.CopyFrom(right)
    if lacking.DESCRIPTOR.fields:
        lacking.ClearField(lacking.DESCRIPTOR.fields[0].name)
        yield lacking


def answers(real: Real) -> list[str]:
    """Make every call that may carry a secret, as it should be and as it should not; return what was said."""
    said = []
    others = [method for method in SECRETS if method not in ORDER and SECRETS[method]]
    for method in (*ORDER, *others):
        for asked in planted(method, real):
            code, words = real.ask(method, asked)
            said.append(f"{method}: {code}: {words}")
            if code == "OK" and method == "ValidateVolumeCapabilities":
                said.append(f"{method}: OK: {real.answer(method, asked.SerializeToString()).message}")
    return said


def free_address() -> str:
    """Return an address of this machine at which nobody serves."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


def kept(real: Real, server: Recorded, metrics: str) -> dict[str, bytes]:
    """Return all that the server wrote: files of the state folder, passports, metrics, programs' arguments, the log."""
    found = {str(path): path.read_bytes() for path in (real.folder / "state").iterdir() if path.is_file()}
    for image in (real.server.pool / "pool/images").iterdir():
        names = os.listxattr(image)
        found[f"passport of {image.name}"] = b"".join(os.getxattr(image, name) for name in names)
    with urllib.request.urlopen(f"http://{metrics}/metrics") as page:
        found["metrics"] = page.read()
    found["programs"] = server.programs.read_bytes()
    found["log"] = server.log.read_bytes()
    found["environment"] = server.environment()
    return found


@pytest.mark.native
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_secret_is_found_nowhere(log_format: str) -> None:
    """Not in a log at debug level, argv, environment, record, passport, metric or answer, of calls right and wrong."""
    metrics = free_address()
    with Recorded(f"--metrics={metrics}", f"--log-format={log_format}") as server, Real.on(server) as real:
        said = answers(real)
        found = kept(real, server, metrics)

    assert [place for place, data in found.items() if SECRET.encode() in data] == []
    assert [words for words in said if SECRET in words] == []
    assert {words.split(": ")[1] for words in said} >= {"OK", "INVALID_ARGUMENT", "UNIMPLEMENTED"}
    assert sum("mount_flags: option" in words for words in said) >= 12
    check_seen(found, real)


def check_seen(found: dict[str, bytes], real: Real) -> None:
    """Check that each place was looked at: it has what it should have."""
    passport = found[f"passport of {real.ids[USED]}.img"]

    assert b"mkfs.ext4" in found["programs"]
    assert b"LC_ALL" in found["programs"]
    assert b"NodeStageVolume" in found["log"]
    assert b"sluice_rpc_seconds" in found["metrics"]
    assert b'"kind":"volume"' in passport
    assert real.ids[RAW].encode() in found[str(real.folder / "state/sluice.db-wal")]
    assert CUT.encode() in b"".join(data for place, data in found.items() if "sluice.db" in place)
