"""Let the checks of the state machine say what they compared."""

from __future__ import annotations

import pytest

from csi_driver.agent import agent
from csi_driver.controller import waiting

pytest.register_assert_rewrite("tests.states.checks", "tests.states.frame", "tests.states.calls")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and publish more often than a server does, since a hostile Store's watch may skip."""
    monkeypatch.setattr(waiting, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(agent, "PUBLISH_SECONDS", 0.001)
