"""The tests of the VM, as they are shown here. The machine is a stand-in: a script that runs the command at once."""

from __future__ import annotations

import json
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

from tests.vm import boot, lanes, seconds
from tests.vm.relay import Relay, in_vm

HERE = Path(__file__).parent
boot.RUN, boot.LOGS, seconds.KNOWN = HERE / "run", HERE / "logs", HERE / "known"
lanes.PROCESSORS = int((HERE / "processors").read_text())

def pytest_configure(config):
    if not in_vm():
        config.pluginmanager.register(Relay())
"""
SETTINGS = "[pytest]\naddopts = -q\nmarkers =\n    kernel\n    boot\n    quiet\n    last\n    timeout\n"
HEAD = "import os, sys, time, pathlib, pytest\npytestmark = pytest.mark.kernel\n"


class Project:
    """A folder with tests, and a pytest over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "pytest.ini").write_text(SETTINGS)
        (folder / "run").write_text(RUN)
        (folder / "run").chmod(0o755)
        self.processors(2)

    def processors(self, count: int) -> None:
        """Say how many processors there are."""
        (self.folder / "processors").write_text(f"{count}")

    def run(self, *bodies: str) -> str:
        """Run modules' tests and return what pytest prints."""
        for number, body in enumerate(bodies):
            (self.folder / f"test_{number}.py").write_text(HEAD + body)
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


def known(project: Project, **seconds: float) -> None:
    """Say what was learned of the files `test_0.py` and so on, given as `_0` and so on."""
    (project.folder / "known").write_text(json.dumps({f"test{file}.py": taken for file, taken in seconds.items()}))


TOGETHER = """
def test_a():
    mine, other = (pathlib.Path(f"there-{number}") for number in (%d, %d))
    mine.touch()
    until = time.monotonic() + 20
    while not other.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert other.exists()
"""


def test_long_files_have_machines_that_run_side_by_side(project: Project) -> None:
    """Each of the two waits for the other, which would not come after it."""
    known(project, _0=500, _1=400, _2=5)
    output = project.run(TOGETHER % (0, 1), TOGETHER % (1, 0), "def test_b(): pass\n")

    assert closing(output) == "3 passed"
    assert project.boots() == 2


def test_a_machine_runs_beside_the_tests_here(project: Project) -> None:
    """A test here waits for one that would else come after it."""
    (project.folder / "test_here.py").write_text("import pathlib, time\n" + TOGETHER % (1, 0))
    output = project.run("def test_a(): pathlib.Path('there-0').touch()\n")

    assert closing(output) == "2 passed"
    assert project.boots() == 1


def test_short_files_share_a_machine(project: Project) -> None:
    """Another boot would take longer than it spares."""
    known(project, _0=20, _1=20)
    output = project.run("def test_a(): pass\n", "def test_a(): pass\n")

    assert closing(output) == "2 passed"
    assert project.boots() == 1


def test_a_machine_that_crashes_leaves_those_beside_it_alone(project: Project) -> None:
    """Its own tests failed, the others' results count."""
    known(project, _0=500, _1=400)
    output = project.run("def test_a(): os._exit(125)\n", "def test_a(): pass\n")

    assert closing(output) == "1 failed, 1 passed"
    assert "the VM ended with status 125" in output


ALONE = """
    path = pathlib.Path('busy')
    path.touch(exist_ok=False)
    time.sleep(0.5)
    path.unlink()
"""


def test_machines_run_one_after_another_where_there_is_one_processor(project: Project) -> None:
    """The next boots when the one before is through; two at once would find each other's file."""
    project.processors(1)
    slow, fast = "@pytest.mark.boot(iops=1000)\n", "@pytest.mark.boot(iops=9000)\n"
    output = project.run(f"{slow}def test_a():{ALONE}{fast}def test_b():{ALONE}")

    assert closing(output) == "2 passed"
    assert project.boots() == 2


def test_what_measures_has_a_machine_when_the_others_are_gone(project: Project) -> None:
    """Whatever boot it wants, and however many processors there are."""
    project.processors(4)
    quiet = "@pytest.mark.quiet\n@pytest.mark.boot(iops=%d)\ndef test_%d(): assert not pathlib.Path('busy').exists()\n"
    output = project.run(f"def test_a():{ALONE}" + quiet % (1000, 1000) + quiet % (9000, 9000))

    assert closing(output) == "3 passed"
    assert project.boots() == 3


def test_what_runs_beside_others_has_one_processor(project: Project) -> None:
    """What measures has as many as a machine has by itself."""
    project.run("def test_a(): pass\n@pytest.mark.quiet\ndef test_b(): pass\n")
    boots = (project.folder / "boots").read_text().splitlines()

    assert ["--processors=1" in boot for boot in boots] == [True, False]
