"""The tests of the VM, as they are shown here. The machine is a stand-in: a script that runs the command at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent

RUN = """#!/bin/sh
echo "booted with $*" >>"$(dirname "$0")/boots"
while [ "$1" != -- ]; do shift; done
shift
SLUICE_DISK=/dev/null exec "$@"
"""
CONFTEST = """
from pathlib import Path

from tests.vm import boot
from tests.vm.relay import Relay, in_vm

boot.RUN, boot.LOGS = Path(__file__).with_name("run"), Path(__file__).with_name("logs")

def pytest_configure(config):
    if not in_vm():
        config.pluginmanager.register(Relay())
"""
SETTINGS = "[pytest]\naddopts = -q\nmarkers =\n    kernel\n    boot\n    last\n    timeout\n"
HEAD = "import os, sys, pytest\npytestmark = pytest.mark.kernel\n"


class Project:
    """A folder with tests, and a pytest over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "pytest.ini").write_text(SETTINGS)
        (folder / "run").write_text(RUN)
        (folder / "run").chmod(0o755)

    def run(self, body: str) -> str:
        """Run a module's tests and return what pytest prints."""
        (self.folder / "test_module.py").write_text(HEAD + body)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT)}
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA"]
        done = subprocess.run(argv, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def boots(self) -> int:
        """Return how often a machine was booted."""
        return len((self.folder / "boots").read_text().splitlines())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Give an empty project."""
    return Project(tmp_path)


def closing(output: str) -> str:
    """Return pytest's closing line, less its time."""
    return re.sub(r" in [0-9.]+s.*", "", output.strip().splitlines()[-1])


def test_what_passes_or_fails_there_passes_or_fails_here(project: Project) -> None:
    """Each test is one of its own, in one boot, and a failure shows its own words."""
    output = project.run("def test_a(): pass\ndef test_b(): assert 1 == 2, 'so it is'\ndef test_c(): print('hello')\n")

    assert closing(output) == "1 failed, 2 passed"
    assert "so it is" in output
    assert project.boots() == 1


def test_a_skip_there_is_a_failure_here(project: Project) -> None:
    """The machine has what a test needs; who skips has not tested."""
    output = project.run("def test_a(): pytest.skip('no loop')\n@pytest.mark.skip(reason='lazy')\ndef test_b(): pass\n")

    assert closing(output) == "1 failed, 1 error"
    assert "skipped in the VM, which admits no skips" in output
    assert "no loop" in output


def test_a_machine_that_crashes_fails_what_it_did_not_finish(project: Project) -> None:
    """What was through before has passed; the rest failed, with the machine's status."""
    output = project.run("def test_a(): pass\ndef test_b(): os._exit(125)\ndef test_c(): pass\n")

    assert closing(output) == "2 failed, 1 passed"
    assert "the VM ended with status 125, and this test was not run or not finished" in output


def test_a_machine_that_crashes_at_its_end_is_no_success(project: Project) -> None:
    """All tests are through, but the machine did not end as it should."""
    output = project.run("import atexit\natexit.register(os._exit, 125)\ndef test_a(): pass\n")

    assert closing(output) == "1 passed, 1 error"
    assert "the VM ended with status 125" in output


def test_a_module_that_cannot_be_read_there_fails_its_tests_here(project: Project) -> None:
    """Its error is shown."""
    output = project.run("if 'SLUICE_DISK' in os.environ: raise RuntimeError('only there')\ndef test_a(): pass\n")

    assert closing(output) == "1 failed"
    assert "only there" in output


def test_each_boot_has_its_own_machine(project: Project) -> None:
    """Tests with equal boots share one, in whatever order they stand."""
    slow, fast = "@pytest.mark.boot(iops=1000)\n", "@pytest.mark.boot(iops=9000)\n"
    output = project.run(f"{slow}def test_a(): pass\n{fast}def test_b(): pass\n{slow}def test_c(): pass\n")

    assert closing(output) == "3 passed"
    assert project.boots() == 2
    assert "--iops=1000" in (project.folder / "boots").read_text()
