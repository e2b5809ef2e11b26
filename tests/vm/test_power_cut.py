"""A power cut of the whole machine: two boots with one disk."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.vm.boot import RUN

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 240


def _boot(disk: Path, *words: str, cut: bool = False) -> list[str]:
    """Run one phase in a machine of its own, and return what it printed."""
    argv = [str(RUN), f"--keep={disk}", f"--timeout={SECONDS}", *(["--expect-cut", "--disk=4G"] if cut else [])]
    argv += ["--", "python", "-m", "tests.vm.power_cut", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()


@pytest.mark.boots
@pytest.mark.timeout(2 * SECONDS + 120)
def test_after_a_power_cut_every_volume_comes_back_with_its_data_and_its_limit(tmp_path: Path) -> None:
    """What was acknowledged or synced is there, snapshots too; nothing half made is offered; and all can be deleted."""
    disk = tmp_path / "disk"
    try:
        known = _boot(disk, "before", cut=True)[-1]
        said = _boot(disk, "after", known)
    finally:
        disk.unlink(missing_ok=True)

    assert json.loads(known)["busy"] != []
    assert [line for line in said if not line.startswith("yes: ")] == []
    assert len(said) > 10
