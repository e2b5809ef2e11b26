"""Records as rows of the database: the statements, and their values."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from csi_driver.records import Snapshot
from csi_driver.store import codec

if TYPE_CHECKING:
    from csi_driver.records import Record

COLUMNS = "id, spec, status, version, generation, deleting"
GET = f"SELECT {COLUMNS} FROM records WHERE kind = ? AND id = ?"  # noqa: S608 - constants of ours
LIST = f"SELECT {COLUMNS} FROM records WHERE kind = ? AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
LIST_BY_SOURCE = (
    f"SELECT {COLUMNS} FROM records WHERE kind = ? AND source = ? AND source <> '' AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
)
# The values of both are those of `values`, in its order.
INSERT = (
    "INSERT INTO records (spec, status, version, generation, deleting, source, kind, id)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
UPDATE = (
    "UPDATE records SET spec = ?, status = ?, version = ?, generation = ?, deleting = ?, source = ?"
    " WHERE kind = ? AND id = ? AND version = ?"
)
DELETE = "DELETE FROM records WHERE kind = ? AND id = ? AND version = ?"


def new_version() -> str:
    """Return a version that no record ever had: of 2^63 numbers, one at random."""
    return str(secrets.randbits(63))


def values(record: Record) -> tuple[str | int, ...]:
    """Return what a record is kept as. Raises TooLarge."""
    spec, status = codec.encode(record)
    source = record.spec.volume if isinstance(record, Snapshot) else ""
    version = int(record.version)
    return (spec.decode(), status.decode(), version, record.generation, record.deleting, source, *codec.key_of(record))
