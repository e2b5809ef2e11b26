"""A place for a database, and an empty Store at it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from csi_driver.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a database is to be, in a folder that isn't there yet."""
    return tmp_path / "state" / "sluice.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """Return an empty Store."""
    with contextlib.closing(SqliteStore(path)) as made:
        yield made
