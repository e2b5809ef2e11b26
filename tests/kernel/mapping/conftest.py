"""A rig that is taken down."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.mapping.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sluice-dm-") as folder:
        made = Rig(Path(folder))
        yield made
        made.take_down()
