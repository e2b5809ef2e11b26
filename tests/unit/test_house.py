"""The house's own rules: who may import whom, how long files and functions are, what a TODO needs."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("csi_driver", "qos")
GENERATED = re.compile(r"csi_pb2(_grpc)?\.pyi?$")
LINES_OF_A_FILE = 300
LINES_OF_A_FUNCTION = 40

SOURCES = sorted(
    path
    for folder in (*PACKAGES, "hack")
    for path in (CHECKOUT / folder).rglob("*.py")
    if not GENERATED.search(path.name)
)
ALL = sorted((CHECKOUT / "tests").rglob("*.py")) + SOURCES


class House:
    """A copy of the packages, in which a wrong import harms nobody."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for package in PACKAGES:
            shutil.copytree(CHECKOUT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(CHECKOUT / "setup.cfg", folder)

    def broken(self, file: str = "", line: str = "") -> list[str]:
        """Return the contracts that break when a line is added to a file, which is made if need be."""
        path = self._folder / file
        before = path.read_text() if path.is_file() else None
        if file:
            path.write_text(f"{before or ''}\n{line}\n")
        try:
            return self._lint()
        finally:
            if before is not None:
                path.write_text(before)
            elif file:
                path.unlink()

    def _lint(self) -> list[str]:
        lint = Path(sys.executable).with_name("lint-imports")
        done = subprocess.run(
            [lint, "--no-cache", "--no-logo"], cwd=self._folder, capture_output=True, text=True, check=False
        )
        broken = re.findall(r"^(.*\S) BROKEN", done.stdout, re.MULTILINE)
        assert (done.returncode == 0) == (broken == []), done.stdout + done.stderr
        return broken


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Give a house to break."""
    return House(tmp_path_factory.mktemp("house"))


def test_the_house_as_it_stands_breaks_no_contract(house: House) -> None:
    """So that a contract that breaks below was broken there."""
    assert house.broken() == []


LAYERS = "cli > rpc > controller | agent | node > backends > host"
MACHINE = "Only host, qos.ancestor, qos.calibrate and qos.meter touch the machine"
GRPC = "Only rpc knows grpc and protobuf"


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("csi_driver/host/run.py", "import csi_driver.backends.base", LAYERS),
        ("csi_driver/backends/loop.py", "import csi_driver.agent.agent", LAYERS),
        ("csi_driver/agent/agent.py", "import csi_driver.controller.volumes", LAYERS),
        ("csi_driver/controller/volumes.py", "import csi_driver.node", LAYERS),
        ("csi_driver/node.py", "import csi_driver.rpc.status", LAYERS),
        ("csi_driver/rpc/server.py", "import csi_driver.cli.serve", LAYERS),
        ("csi_driver/rpc/server.py", "import csi_driver.assemble", LAYERS),
        ("csi_driver/records.py", "import csi_driver.store.base", LAYERS),
        ("csi_driver/store/sqlite.py", "import csi_driver.backends.base", LAYERS),
        ("csi_driver/roomless.py", "", LAYERS),
        ("csi_driver/backends/lvm.py", "import csi_driver.backends.loop", "Backends don't know each other"),
        ("csi_driver/backends/base.py", "import csi_driver.backends.loop", "Backends don't know each other"),
        ("qos/plan.py", "import csi_driver.errors", "qos knows nothing of csi_driver"),
        ("csi_driver/node.py", "import subprocess", MACHINE),
        ("csi_driver/assemble.py", "import fcntl", MACHINE),
        ("csi_driver/backends/loop.py", "import ctypes", MACHINE),
        ("qos/enforce.py", "import subprocess", MACHINE),
        ("csi_driver/cli/serve.py", "import grpc", GRPC),
        ("csi_driver/controller/volumes.py", "import google.protobuf.message", GRPC),
        ("csi_driver/store/sqlite.py", "import kubernetes", "Only store.kube knows kubernetes"),
    ],
)
def test_a_wrong_import_breaks_its_contract(house: House, file: str, line: str, contract: str) -> None:
    """One line in the wrong room, and the check fails by the contract's name."""
    assert contract in house.broken(file, line)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("csi_driver/host/mounts.py", "import ctypes"),
        ("csi_driver/rpc/status.py", "import google.protobuf.message"),
        ("csi_driver/store/kube.py", "import kubernetes"),
        ("qos/meter.py", "import fcntl"),
    ],
)
def test_who_may_import_may(house: House, file: str, line: str) -> None:
    """The same imports in their own rooms break nothing."""
    assert house.broken(file, line) == []


def test_files_are_short() -> None:
    """A file that is longer owns more than one thing."""
    lengths = {str(path.relative_to(CHECKOUT)): len(path.read_text().splitlines()) for path in ALL}

    assert {name: length for name, length in lengths.items() if length > LINES_OF_A_FILE} == {}


def test_functions_are_short() -> None:
    """A function fits on a screen, its docstring and its signature apart."""
    lengths = {
        f"{path.relative_to(CHECKOUT)}:{function.lineno} {function.name}": _lines(function)
        for path in SOURCES
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert {name: length for name, length in lengths.items() if length > LINES_OF_A_FUNCTION} == {}


def test_every_todo_names_a_decision_that_exists() -> None:
    """What is left for later is decided, in spec/decisions, or it is done now."""
    marker = re.compile(r"# .*\b(TO" r"DO|FIX" r"ME)\b(.*)")
    decisions = {path.name[:4] for path in (CHECKOUT / "spec/decisions").glob("[0-9]*.md")}
    found = [(path, match[2]) for path in ALL for match in marker.finditer(path.read_text())]
    without = [f"{path}:{text}" for path, text in found if not decisions & set(re.findall(r"[0-9]{4}", text))]

    assert without == []


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("name", ["pydantic", "psutil", "pygments", "rich"])
def test_a_server_starts_without_what_it_does_not_need(name: str) -> None:
    """Each of them is many milliseconds of every start, and mebibytes for as long as it serves."""
    words = f"import csi_driver.cli.app, csi_driver.cli.serve, sys; sys.exit({name!r} in sys.modules)"

    assert subprocess.run([sys.executable, "-c", words], cwd=CHECKOUT, check=False).returncode == 0
