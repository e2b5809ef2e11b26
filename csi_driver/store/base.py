"""The contract of a Store. It promises what the weakest store can: a Kubernetes API server.

- A swap covers one record: its spec or its status, never both, never two records.
- `get` reads the newest version; `list` may be stale.
- A watch may skip, repeat, reorder and break. It wakes who waits; it never informs. Who waits looks for itself, and
  looks from time to time without being woken.
- Removal is a mark first: a record that others may still need is seen with `deleting` set until it is removed.
- A record is at most 256 KiB.
- `durable=False` saves a flush where a Store has one to save. A power cut may then lose this write, but never one that
  came before it in the same Store: the next durable write takes it along.
- `lend=True` says that the writer would only wait for what follows. Who watches may then work in the writer's thread,
  and the write returns when that is done. A Store may ignore it, and so may who watches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from csi_driver.errors import Unready
from csi_driver.groups import GroupSnapshot
from csi_driver.records import Record, Snapshot, Status, Volume

R = TypeVar("R", bound=Record)
A = TypeVar("A", bound=Volume | Snapshot | GroupSnapshot)
Key = tuple[str, str]
"""Kind and id of a record."""
Wake = Callable[[Key | None], None]
"""Called with a key that may have changed, or None: anything may have, look again."""

LARGEST = 256 * 1024


class Stale(Exception):
    """Say that a record changed, went or came since it was read. Read again and decide again."""


class TooLarge(Exception):
    """Say that a record is larger than a Store takes."""


class StoreUnready(Unready):
    """Say that a Store can't be reached, or that it is not known whether a write landed."""


class Watch(Protocol):
    """Stand for a subscription."""

    def close(self) -> None:
        """End it. No call comes after this returns."""


class Store(Protocol):
    """Keep records."""

    def create(self, record: R, *, durable: bool = True, lend: bool = False) -> R:
        """Add a record at generation 1 and return it with its version. Raises Stale when the id is taken."""

    def get(self, kind: type[R], record_id: str) -> R | None:
        """Return the newest version, or None."""

    def all(self, kind: type[R]) -> list[R]:
        """Return every record, none of them stale: what a ledger is folded from. Slow in a large cluster."""

    def list(self, kind: type[R], *, after: str = "", limit: int | None = None, source: str = "") -> list[R]:
        """Return records sorted by id, beginning behind `after`; may be stale.

        With `source`, only snapshots whose `spec.volume` it is.
        """

    def put_spec(self, record: R, *, durable: bool = True, lend: bool = False) -> R:
        """Swap the spec, raise the generation, return the new record. Raises Stale."""

    def put_status(self, record: R, *, durable: bool = True, wake: bool = True) -> R:
        """Swap the status, return the new record. Raises Stale.

        `durable=False` is for a status of which nothing but `seen` changed; `wake=False` for a step in the middle of
        one's work, which nobody waits for: watches may hear nothing of it.
        """

    def mark(self, record: R) -> R:
        """Set `deleting`, which nothing takes back. Raises Stale."""

    def remove(self, record: R, *, durable: bool = True) -> None:
        """Forget a record. Raises Stale when it changed. A cut removal leaves it marked, or as it was."""

    def watch(self, wake: Wake, work: Wake | None = None) -> Watch:
        """Call `wake` quickly after a change, from any thread, the writer's own too. It must not block nor raise.

        Where the writer lends its thread `work` may be called instead: it may take its time, but not raise either.
        """

    def close(self) -> None:
        """Let go of files and threads."""


def change_status(store: Store, kind: type[A], record_id: str, change: Callable[[A], Status], *, durable: bool) -> A:
    """Apply a change to the newest status until the swap succeeds, and return the record.

    Only for who holds the volume's lock: then only a spec can have come between. Raises Stale when the record is gone.
    """
    while (record := store.get(kind, record_id)) is not None:
        status: Any = change(record)
        if status == record.status:
            return record
        try:
            return store.put_status(dataclasses.replace(record, status=status), durable=durable)
        except Stale:
            continue
    raise Stale(f"{kind.KIND} {record_id} is gone")
