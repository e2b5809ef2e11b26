"""Controller and agents as sets of objects that share nothing but a Store, on every Store and on a hostile one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_driver.records import GIB
from csi_driver.store.hostile import HostileStore, Malice
from csi_driver.store.sqlite import SqliteStore
from tests.fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_driver.store.base import Store

ROUGH = Malice(delay=0.003, skip=0.3, repeat=0.3, silence=0.05)


@pytest.fixture(params=["sqlite", "hostile", "rough"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "sluice.db")
    return HostileStore(7, ROUGH if request.param == "rough" else Malice())


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    made = World(store, ("n1", "n2"), total=100 * GIB)
    yield made
    made.close()
