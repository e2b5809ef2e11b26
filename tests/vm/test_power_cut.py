"""Power cuts of the whole machine, one after another: boots with one disk, each of which looks and then works on."""

from __future__ import annotations

import json
import random
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.torture import TORTURE, pick
from tests.vm.boot import RUN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CUTS = pick({"loop": 1, "lvm": 1}, {"loop": 20, "lvm": 20})
SECONDS = 240
SEED = random.SystemRandom().randrange(1 << 32) if TORTURE else 4
WORKERS = 3
SHORTEST, LONGEST = 0.5, 6.0
"""Seconds of work before a cut."""


def _boot(disk: Path, words: dict[str, Any]) -> list[str]:
    """Look, and work until a cut if one is wanted, in a machine of its own. Return what it said."""
    argv = [str(RUN), f"--keep={disk}", "--disk=4G", "--processors=1", f"--timeout={SECONDS}"]
    argv += [*["--expect-cut"] * bool(words["seconds"]), "--", "python", "-m", "tests.vm.power_cut", json.dumps(words)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"seed {SEED}, {words}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return [line for line in done.stdout.splitlines() if line]


def _learn(words: dict[str, Any], said: list[str]) -> None:
    """Take in what was acknowledged."""
    for line in said:
        match json.loads(line) if line.startswith("{") else None:
            case {"known": known}:
                words["known"] = known
            case {"worker": worker, "done": done}:
                words["done"][worker] = done
            case {"done": done}:
                words["done"] = done
            case {"fio": name, "count": count}:
                words["counted"][name] = count


@pytest.mark.boots
@pytest.mark.timeout((max(CUTS.values()) + 1) * SECONDS + 120)
@pytest.mark.parametrize("backend", CUTS)
def test_after_power_cuts_every_call_and_every_block_that_was_acknowledged_is_there(
    backend: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Calls that were cut have all of their effect or none and can be made again; in the end all can be deleted."""
    disk, moments = tmp_path / "disk", random.Random(SEED)  # noqa: S311 - to be repeated, not secret
    cuts = CUTS[backend]
    words: dict[str, Any] = {
        "backend": backend,
        "seed": SEED,
        "number": 0,
        "known": {},
        "done": [0] * WORKERS,
        "counted": {},
    }
    blocks, said = 0, []
    try:
        for number in range(cuts + 1):
            words |= {"number": number, "seconds": moments.uniform(SHORTEST, LONGEST) if number < cuts else 0}
            lines = _boot(disk, words)
            said += [line for line in lines if not line.startswith("{")]
            words["counted"] = {}
            _learn(words, lines)
            blocks += sum(words["counted"].values())
    finally:
        disk.unlink(missing_ok=True)
    record_property("seed", SEED)
    record_property("cuts", cuts)
    record_property("calls acknowledged before a cut", sum(words["done"]))
    record_property("blocks acknowledged by fio before a cut", blocks)

    assert [line for line in said if not line.startswith("yes: ")] == []
    assert sum(words["done"]) > cuts * WORKERS
    assert blocks > 0
