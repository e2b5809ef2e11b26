"""What runs at full length alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture import VARIABLE

CHECKOUT = Path(__file__).resolve().parent.parent.parent
ONLY_AT_LENGTH = "tests/kernel/test_sanity.py"


@pytest.mark.parametrize(("torture", "status"), [("0", pytest.ExitCode.NO_TESTS_COLLECTED), ("1", pytest.ExitCode.OK)])
def test_what_is_marked_runs_in_torture_alone(torture: str, status: pytest.ExitCode) -> None:
    """Of a file in which everything is, `make test` runs nothing."""
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", ONLY_AT_LENGTH]
    environment = {**os.environ, VARIABLE: torture}
    done = subprocess.run(argv, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == status, done.stdout
