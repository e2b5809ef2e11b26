"""Run the demo's inner part in the test machine, and pass on what it tells while it runs."""

from __future__ import annotations

import json
import subprocess
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from csi_driver.errors import Unready
from hack.demo.plan import DISK, DISK_IOPS, DISK_MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIMEOUT_SECONDS = 300
LAST_WORDS = 12
OUT = "/run/sluice-demo/out"


@dataclass(frozen=True, slots=True)
class Told:
    """Hold one line from the run: a step with its estimate in seconds, or something that was said beside."""

    text: str
    seconds: float = 0
    step: bool = False


def run(checkout: Path, plan: Path, out: Path, tell: Callable[[Told], None]) -> str:
    """Boot, run, take the results out, and return whether it was KVM or TCG. Raises Unready with the last words."""
    argv = [
        str(checkout / "hack/vm/run"),
        *("--disk", DISK, "--iops", str(DISK_IOPS), "--bps", f"{DISK_MIB}M"),
        *("--put", str(plan), "--get", f"{OUT}={out}", "--timeout", str(TIMEOUT_SECONDS)),
        *("--", "python", "-m", "hack.demo.inside", f"/put/{plan.name}", OUT),
    ]
    said: list[str] = []
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")

    def pass_on(stream: IO[str]) -> None:
        for line in stream:
            told = _told(line.rstrip())
            said.append(told.text)
            tell(told)

    try:
        readers = [threading.Thread(target=pass_on, args=(each,)) for each in (process.stdout, process.stderr) if each]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status:
        words = "\n".join(said[-LAST_WORDS:])
        raise Unready(f"the demo's VM ended with status {status}; its last words:\n{words}")
    return "KVM" if any("(KVM)" in text for text in said) else "TCG"


def _told(line: str) -> Told:
    if line.startswith('{"step"'):
        told = json.loads(line)
        return Told(told["step"], told["seconds"], step=True)
    return Told(line)
