"""The benchmark on this machine's own kernel, as small as it gets."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from csi_driver.deadline import Deadline, wait_for
from hack.bench.calls import TIMED_LIFE
from hack.bench.crew import CHECKOUT, Crew
from hack.bench.figures import LIFE
from tests.leftovers import Leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.native

SECONDS = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder to measure in, not in memory, which must be empty afterwards."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-test-", dir="/var/tmp") as name:
        yield Path(name)
        assert Leftovers.now(name).things == frozenset()
        assert list(Path(name).iterdir()) == []


def bench(program: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(CHECKOUT / "hack/bench" / program), "--folder", str(folder), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=SECONDS)


def test_all_parts_are_measured_and_nothing_fails(folder: Path, tmp_path: Path) -> None:
    """One of everything: ours, raw and null by the same names, and every target."""
    out = tmp_path / "rpc.json"
    said = bench("rpc", folder, "--tiny", "--out", str(out)).stdout
    found: dict[str, Any] = json.loads(out.read_text())

    for kind in ("ours", "raw", "null"):
        assert set(found["calls"][kind]["ms"]) == {*TIMED_LIFE, LIFE}
    assert "CreateVolume (restore)" in found["others"]["ours"]["ms"]
    assert found["parallel"]["2"]["ours"]["lives_per_second"][0] > 0
    assert [level["volumes"] for level in found["growth"]] == [0, 6]
    assert found["cost"]["programs_per_life"] == {"mkfs.ext4": 1}
    assert "Targets" in said
    assert "FAILURES" not in said


def test_a_snapshot_of_many_extents_is_measured(folder: Path, tmp_path: Path) -> None:
    """The extents are really there, and each of the cuts was waited for."""
    out = tmp_path / "ficlone.json"
    bench("ficlone", folder, "--extents", "200", "--out", str(out))
    (cut,) = json.loads(out.read_text())["cuts"]

    assert cut["extents"] >= 200
    assert min(cut["clone_ms"], cut["snapshot_ms"]) > 0
    assert cut["longest_wait_ms"] > 0
    assert cut["failures"] == {}


def test_another_driver_is_measured_by_its_socket(folder: Path, tmp_path: Path) -> None:
    """Here one that does nothing; nothing of ours is started, and a result of ours can be shown beside."""
    with Crew("hack.bench.null", tmp_path / "null.sock", processes=1, named=False) as other:
        wait_for("it listens", (tmp_path / "null.sock").exists, Deadline(SECONDS))
        out = tmp_path / "other.json"
        words = ("--socket", str(tmp_path / "null.sock"), "--name", "other", "--out", str(out))
        bench("rpc", folder, "--tiny", *words)
        said = bench("rpc", folder, "--show", str(out), "--compare", str(out)).stdout
        other.kill()
    found = json.loads(out.read_text())

    assert found["machine"]["driver"] == "other"
    assert set(found["calls"]) == {"ours", "null"}
    assert "start" not in found
    assert "Side by side" in said


def test_an_interrupted_run_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """In the middle of lives, with volumes staged and published."""
    words = ["--folder", str(folder), "--only", "calls", "--rounds", "50", "--out", str(tmp_path / "rpc.json")]
    with subprocess.Popen(
        [CHECKOUT / "hack/bench/rpc", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "whole lives, 1 caller" in line)
        process.terminate()  # SIGINT is ignored below a shell that runs these tests in its background
        process.communicate(timeout=SECONDS)

    assert "whole lives" in said
    assert process.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "rpc.json").exists()
