"""All kinds of records, by the names that Stores keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_driver.groups import GroupSnapshot
from csi_driver.records import Node, Pool, Record, Snapshot, Volume

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS: Mapping[str, type[Record]] = {kind.KIND: kind for kind in (Volume, Snapshot, GroupSnapshot, Pool, Node)}
