"""Find records as callers may see them: made, and not being deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from csi_driver.errors import Invalid, NotFound, Unsupported
from csi_driver.ids import is_id
from csi_driver.records import Snapshot, Volume

if TYPE_CHECKING:
    from csi_driver.groups import GroupSnapshot
    from csi_driver.records import Source
    from csi_driver.store.base import Store

A = TypeVar("A", Volume, Snapshot)

SOURCES: dict[str, type[Volume | Snapshot]] = {Volume.KIND: Volume, Snapshot.KIND: Snapshot}


def there(record: Volume | Snapshot | GroupSnapshot) -> bool:
    """Return whether a caller may see the record: it is whole, and its deletion has not begun."""
    history = record.status.history
    return bool(history.made) and not history.condemned


def find(store: Store, kind: type[A], record_id: str) -> A:
    """Return a record that is there. Raises NotFound naming the field and its value."""
    record = store.get(kind, record_id) if is_id(record_id) else None
    if record is None or not there(record):
        raise NotFound(f"{kind.KIND}_id: there is no {kind.KIND} {record_id[:128]!r}")
    return record


def source_record(store: Store, source: Source) -> Volume | Snapshot:
    """Return what a volume is to be made from. Raises NotFound."""
    return find(store, Snapshot, source.id) if source.kind == Snapshot.KIND else find(store, Volume, source.id)


def check_shareable(record: Volume | Snapshot) -> None:
    """Raise Unsupported for a thick volume: its bytes are its own, so that no copy can share them."""
    if isinstance(record, Volume) and record.spec.thick:
        raise Unsupported(
            f"volume {record.id} is thick, as its tier {record.spec.qos.tier} made it: it has no snapshots and no "
            "clones; copy its files to a volume of another tier"
        )


def page(store: Store, kind: type[A], after: str, limit: int, source: str = "") -> tuple[list[A], str]:
    """Return up to `limit` records (0: all) behind the token `after`, and the next token, "" at the end.

    A token is the id that a page ended with: pages stay right while records come and go. Raises BadToken.
    """
    if after and not is_id(after):
        raise BadToken(f"starting_token: {after[:128]!r} is not one that was given out; list from the start")
    found: list[A] = []
    while True:
        batch = store.list(kind, after=after, limit=limit + 1 if limit else None, source=source)
        found += [record for record in batch if there(record)]
        if not limit or len(batch) <= limit:
            break
        if len(found) > limit:
            break
        after = batch[-1].id
    more = bool(limit) and len(found) > limit
    return (found[:limit], found[limit - 1].id) if more else (found, "")


class BadToken(Invalid):
    """Say that a paging token is not one of ours; CSI wants ABORTED for it."""
