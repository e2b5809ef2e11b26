"""What all suites share: where the tests of each kind run, how long a suite may take, and where figures go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.budgets import Budgets, parse
from tests.figures import Figures
from tests.leftovers import AT_START, Leftovers
from tests.torture import TORTURE
from tests.vm.relay import Relay, in_vm
from tests.vm.seconds import Learner

# Checks outside of test files say what they compared, too. Here, since several suites import them.
pytest.register_assert_rewrite("tests.states.checks", "tests.states.frame", "tests.states.calls")
pytest.register_assert_rewrite("tests.kernel.clean_cuts", "tests.kernel.rounds", "tests.storm.storming")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the Makefile says to pytest."""
    group = parser.getgroup("sluice")
    group.addoption("--budget", action="append", default=[], metavar="SUITE=SECONDS", help="fail when it takes longer")
    group.addoption("--learn", action="store_true", help="write what each file takes, by which machines are shared out")
    group.addoption("--figures", type=Path, metavar="FILE", help="write the figures of tests between its marks")


def pytest_configure(config: pytest.Config) -> None:
    """Run the tests marked `kernel` in the VM, unless this is the VM."""
    if not in_vm():
        config.stash[AT_START] = Leftovers.now()
        config.pluginmanager.register(Relay())
        config.pluginmanager.register(Budgets(parse(config.getoption("budget"))))
        if config.getoption("learn"):
            config.pluginmanager.register(Learner())
        if document := config.getoption("figures"):
            config.pluginmanager.register(Figures(document, config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only runs at full length."""
    left_out = [item for item in items if item.get_closest_marker("torture") and not TORTURE]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def _root(request: pytest.FixtureRequest) -> None:
    """Say in one line why a native test can't run."""
    if request.node.get_closest_marker("native") and os.geteuid() != 0:
        pytest.fail("needs root: run make test as root, or only make check", pytrace=False)
