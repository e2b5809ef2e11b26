"""What a nursery has begun is, as far as anybody can see, the command that was asked for."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import warm
from tests.serving import CHECKOUT

if TYPE_CHECKING:
    from tests.kernel.node import Node

pytestmark = pytest.mark.kernel

TIERS = (sys.executable, "-m", "csi_driver", "tiers")


def test_a_command_says_what_it_says_and_ends_with_its_status() -> None:
    """Each channel has what is for it."""
    good = warm.run(TIERS, 60)
    bad = warm.run([*TIERS, "--nonsense"], 60)

    assert (good.returncode, good.stderr) == (0, "")
    assert "inference" in good.stdout
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "--nonsense" in bad.stderr


def test_a_server_has_its_own_command_line_and_folder_and_a_signal_ends_it(node: Node) -> None:
    """Who waits for it hears of its end as from any other."""
    process = Path(f"/proc/{node.pid}")
    shown = [os.fsdecode(word) for word in (process / "cmdline").read_bytes().split(b"\0")]
    folder = (process / "cwd").readlink()
    killed = node.stop(signal.SIGKILL)
    node.start()
    ended = node.stop()

    assert shown[:4] == [*TIERS[:3], "serve"]
    assert f"--endpoint=unix://{node.socket}" in shown
    assert folder == CHECKOUT
    assert (killed, ended) == (-signal.SIGKILL, 0)
