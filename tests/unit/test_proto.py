"""The gRPC stubs are what spec/csi.proto generates."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
STUBS = Path("csi_driver/rpc")


def test_the_committed_stubs_are_the_generated_ones(tmp_path: Path) -> None:
    """Generating them anew gives the same files, byte for byte; if not: `make proto`."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run([CHECKOUT / "hack/proto", tmp_path], check=True, env=environment)

    generated = {path.name: path.read_bytes() for path in (tmp_path / STUBS).iterdir()}
    committed = {path.name: path.read_bytes() for path in (CHECKOUT / STUBS).glob("csi_pb2*")}

    assert sorted(generated) == sorted(committed)
    assert [name for name, text in generated.items() if text != committed[name]] == []
