"""A database that can't be used: refused before anything is touched, with the way back, which is walked to its end."""

from __future__ import annotations

import os
import signal
import sqlite3
from typing import TYPE_CHECKING

import pytest

from csi_driver.assemble import DATABASE
from csi_driver.store.sqlite_file import SCHEMA
from tests.faults.rig import create, refused_start, sluice
from tests.serving import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.native

PAGE = 4096


@pytest.fixture
def server() -> Iterator[Server]:
    """Give a server."""
    with Server() as running:
        yield running


def truncate(database: Path) -> None:
    """Cut the file in the middle of a page."""
    os.truncate(database, PAGE * 3 // 2)


def overwrite(database: Path) -> None:
    """Write something else over all but the first page."""
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(PAGE)
        file.write(b"\xa5" * (size - PAGE))


def newer(database: Path) -> None:
    """Let it be of a version of Sluice that is yet to come."""
    db = sqlite3.connect(database)
    db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()


def contents(server: Server) -> dict[str, bytes]:
    """Return all bytes of the state folder, but those by which readers find their way in the log: it is no data."""
    paths = (server.folder / "state").iterdir()
    return {path.name: path.read_bytes() for path in paths if not path.name.endswith("-shm")}


def in_use(server: Server) -> Volume:
    """Make a volume that is published and holds something."""
    volume = create(server, "data", tier="inference").up()
    volume.fill(4 << 20)
    return volume


@pytest.mark.parametrize(
    ("spoil", "end"), [(truncate, signal.SIGTERM), (overwrite, signal.SIGKILL)], ids=["truncated", "overwritten"]
)
def test_a_damaged_database_is_refused_and_its_message_leads_back_to_every_volume(
    server: Server, spoil: Callable[[Path], None], end: signal.Signals
) -> None:
    """What the message says is done: then records, limits and data are there, of a volume in use all the while."""
    volume, database = in_use(server), server.folder / "state" / DATABASE
    data, (before,) = volume.file.read_bytes(), sluice(server, "volumes")
    server.stop(end)
    spoil(database)
    spoiled = contents(server)

    said = refused_start(server)
    left = contents(server)
    for path in database.parent.glob(f"{DATABASE}*"):
        path.rename(server.folder / path.name)
    sluice(server, "adopt", "--yes")
    server.start()
    (after,) = sluice(server, "volumes")
    kept = volume.file.read_bytes()
    volume.down()
    volume.up()

    assert f"the database {database} is damaged" in said
    assert f"move it, {DATABASE}-wal and {DATABASE}-shm away and run `sluice adopt`" in said
    assert left == spoiled
    assert after == {**before, "applied": after["applied"]}
    assert kept == volume.file.read_bytes() == data
    volume.down()
    volume.delete()


def test_a_database_of_a_newer_version_is_refused_and_not_touched(server: Server) -> None:
    """Not a byte of it; the version that wrote it goes on with all that there was."""
    volume, database = in_use(server), server.folder / "state" / DATABASE
    data = volume.file.read_bytes()
    server.stop()
    newer(database)
    before = contents(server)

    said = refused_start(server)
    after = contents(server)
    db = sqlite3.connect(database)
    db.execute(f"PRAGMA user_version = {SCHEMA}")
    db.close()
    server.start()

    assert f"the database {database} has schema {SCHEMA + 1}, this version of sluice knows {SCHEMA}" in said
    assert after == before
    assert volume.up().file.read_bytes() == data
    volume.down()
    volume.delete()
