"""As much as CSI lets a caller say is kept with the bytes, or the call is refused: it is no full disk."""

from __future__ import annotations

import pytest

from csi_driver.rpc import csi_pb2 as csi
from tests.input.real import Real
from tests.input.stand import BLOCK
from tests.serving import Server

pytestmark = pytest.mark.native

FOREIGN = "csi.storage.k8s.io/x"
MOST = {FOREIGN: "\0" * (4096 - len(FOREIGN))}
"""4 KiB, each byte of which takes six in JSON."""


def asked(parameters: dict[str, str]) -> csi.CreateVolumeRequest:
    """Return a request for a volume that needs no file system."""
    return csi.CreateVolumeRequest(name="new", volume_capabilities=[BLOCK], parameters=parameters)


def test_a_map_of_4_kib_is_kept_with_the_bytes() -> None:
    """In a pool of its own, whose file system keeps 64 KiB beside a file."""
    with Server() as server, Real(server) as real:
        answered = real.ask("CreateVolume", asked(MOST))

    assert answered == ("OK", "")


def test_what_the_file_system_cannot_keep_is_refused() -> None:
    """INVALID_ARGUMENT, naming the field: RESOURCE_EXHAUSTED would send the claim from node to node for ever."""
    with Server(pool="ratio=40") as server, Real(server) as real:
        code, said = real.ask("CreateVolume", asked(MOST))
        made = real.made()
        images = [*(server.pool / "images").iterdir(), *(server.pool / "new").iterdir()]

    assert code == "INVALID_ARGUMENT", said
    assert said.startswith("parameters: ")
    assert made == (set(), {})
    assert images == []
