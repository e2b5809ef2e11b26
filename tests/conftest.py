"""What all suites share: where the tests of each kind run."""

from __future__ import annotations

import os

import pytest

from tests.vm.relay import Relay, in_vm


def pytest_configure(config: pytest.Config) -> None:
    """Run the tests marked `kernel` in the VM, unless this is the VM."""
    if not in_vm():
        config.pluginmanager.register(Relay())


@pytest.fixture(autouse=True)
def _root(request: pytest.FixtureRequest) -> None:
    """Say in one line why a native test can't run."""
    if request.node.get_closest_marker("native") and os.geteuid() != 0:
        pytest.fail("needs root: run make test as root, or only make check", pytrace=False)
