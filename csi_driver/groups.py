"""Group snapshots as records: cuts of several volumes of one pool, all of one instant.

The group is one record, and its agent makes all of its members in one go. When they are cut, each becomes a record like
that of any other snapshot, which names its group. The pool's ledger knows the group alone.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - the stores' codec reads the fields' types at run time
from dataclasses import dataclass, field
from typing import ClassVar

from csi_driver.ids import is_id
from csi_driver.records import History, Offer, Record, Status


@dataclass(frozen=True, slots=True)
class Member:
    """Name a member of a group: the id of the snapshot, and the volume that it is a cut of."""

    id: str
    volume: str


@dataclass(frozen=True, slots=True)
class GroupHistory(History):
    """Hold what happened to the bytes of a group's members. `size` is that of all of them.

    members  the histories that the members have from the cut on, in their order; written with `made`
    held_ms  for how long the cut held back whoever used the volumes, in milliseconds
    """

    members: tuple[History, ...] = ()
    held_ms: int = 0


@dataclass(frozen=True, slots=True)
class GroupStatus(Status):
    """Join the two parts of what an agent writes about a group."""

    history: GroupHistory = GroupHistory()


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """Say what a group must be: a cut of each of these volumes, in the order of their ids. `size` in bytes, of all."""

    name: str
    size: int
    members: tuple[Member, ...]
    offer: Offer | None = None
    absent: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupSnapshot(Record):
    """Remember one group of snapshots."""

    KIND: ClassVar[str] = "groupsnapshot"

    spec: GroupSpec
    status: GroupStatus = GroupStatus()


def member_name(group_id: str, volume_id: str) -> str:
    """Return the CSI name of a member. No caller's snapshot gets a name of this form."""
    return f"{group_id}/{volume_id}"


def group_of(name: str) -> str:
    """Return the id of the group whose member has this name, "" for the name of any other snapshot."""
    group_id, _, volume_id = name.partition("/")
    return group_id if is_id(group_id) and is_id(volume_id) else ""
