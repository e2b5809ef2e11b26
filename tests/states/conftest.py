"""What the tests of the state machine share: worlds that look often."""

from __future__ import annotations

import pytest

from csi_driver.agent import agent
from csi_driver.controller import waiting


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and publish more often than a server does, since a hostile Store's watch may skip."""
    monkeypatch.setattr(waiting, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(agent, "PUBLISH_SECONDS", 0.001)
