"""Every Store, empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from csi_driver.store.hostile import HostileStore
from csi_driver.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_driver.store.base import Store
    from tests.contract.store.samples import OpenStore


@pytest.fixture(params=["sqlite", "hostile"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Return a function that makes a Store of each sort, empty. Stores are closed at the end."""
    opened: list[Store] = []

    def make(**options: Any) -> Store:  # noqa: ANN401 - each Store has its own
        made: Store
        if request.param == "sqlite":
            made = SqliteStore(tmp_path / f"{len(opened)}" / "sluice.db", **options)
        else:
            made = HostileStore(seed=len(opened), **options)
        opened.append(made)
        return made

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    """Return an empty Store."""
    return open_store()
