"""A rig that leaves no loop device."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.loops.rig import Rig, soon

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sluice-loop-") as folder:
        made = Rig(Path(folder))
        yield made
        made.kernel.refuse.clear()
        for attached in made.loops.list(made.folder):
            made.loops.detach(attached, soon())
        assert made.loops.list(made.folder) == ()
