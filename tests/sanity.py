"""The conformance suite csi-sanity against a running server, and what it says."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving import Server

CHECKOUT = Path(__file__).resolve().parent.parent
CONFORMANCE = CHECKOUT / "spec/conformance.md"
PLACES = (CHECKOUT / "build/bin/csi-sanity", Path("/put/csi-sanity"))
MIB = 1 << 20
SIZE = 512 * MIB
SECONDS = 500


@dataclass(frozen=True, slots=True)
class Verdict:
    """Hold the tests by name: how many passed, what failed and why, and which were not run."""

    passed: int
    failed: dict[str, str]
    left_out: frozenset[str]


def program() -> Path:
    """Return csi-sanity, or fail: conformance that nobody looked at is not conformance."""
    for place in PLACES:
        if place.exists():
            return place
    pytest.fail("csi-sanity is not there: hack/csi-sanity builds it, with Go on PATH; CONFORMANCE IS NOT TESTED", False)


def run(server: Server, access: str, fs_type: str) -> Verdict:
    """Run the suite for an access type (mount or block) and a file system."""
    work = server.folder / "sanity"
    work.mkdir()
    parameters, report = work / "parameters.yaml", work / "report.json"
    parameters.write_text(f"tier: inference\nfsType: {fs_type}\n")
    argv = [
        str(program()),
        "--ginkgo.no-color",
        f"--ginkgo.json-report={report}",
        f"--csi.endpoint=unix://{server.socket}",
    ]
    argv += [f"--csi.mountdir={work / 'target'}", f"--csi.stagingdir={work / 'staging'}"]
    argv += [f"--csi.testvolumeparameters={parameters}", f"--csi.testvolumeaccesstype={access}"]
    argv += [f"--csi.testvolumesize={SIZE}", f"--csi.testvolumeexpandsize={2 * SIZE}"]
    done = subprocess.run(argv, cwd=work, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert report.exists(), f"csi-sanity ended with status {done.returncode}:\n{done.stdout}{done.stderr}"
    return _read(report)


def known_to_be_left_out() -> frozenset[str]:
    """Return the tests that spec/conformance.md says are not run, and why."""
    rows = re.findall(r"^\| `([^`]+)` \| (\S.*) \|$", CONFORMANCE.read_text(), re.MULTILINE)
    return frozenset(name for name, _ in rows)


def _read(report: Path) -> Verdict:
    specs = [spec for suite in json.loads(report.read_text()) for spec in suite["SpecReports"] if spec["LeafNodeText"]]
    states = [(" ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]]), spec) for spec in specs]
    failed = {
        name: spec.get("Failure", {}).get("Message", spec["State"])
        for name, spec in states
        if spec["State"] not in ("passed", "skipped", "pending")
    }
    left_out = frozenset(name for name, spec in states if spec["State"] in ("skipped", "pending"))
    return Verdict(sum(spec["State"] == "passed" for _, spec in states), failed, left_out)
