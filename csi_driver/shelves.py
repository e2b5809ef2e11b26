"""What stands in the pools, and what it says of itself by its passports."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from csi_driver import parameters
from csi_driver.groups import GroupHistory, GroupSnapshot, GroupSpec, GroupStatus, Member, group_of
from csi_driver.ids import is_id
from csi_driver.records import SIZE_STEP, History, Offer, Snapshot, Volume

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from csi_driver.backends.base import Found, Passport
    from csi_driver.records import Record
    from csi_driver.store.base import Key

    _Cut = tuple["Shelf", Found, Passport]


@dataclass(frozen=True, slots=True)
class Shelf:
    """Hold what stands in one pool."""

    pool_id: str
    pool: str
    node: str
    found: tuple[Found, ...]


class Left(Exception):
    """Say why bytes get no record."""


def checked(found: Found, times: int) -> Passport:
    """Return the passport if it makes sense for bytes that are found so many times. Raises Left."""
    if times > 1:
        raise Left("two pools hold this id: remove the copy that is not the volume, then run this again")
    passport = found.passport
    if passport is None:
        raise Left("no passport that can be read: nobody can say what these bytes are")
    if passport.id != found.id:
        raise Left(f"its passport is that of {passport.id}: these bytes are a copy made by hand")
    if passport.kind not in (Volume.KIND, Snapshot.KIND) or not passport.name:
        raise Left(
            f"its passport says kind {passport.kind!r}, name {passport.name!r}: that is no volume and no snapshot"
        )
    if passport.sector_size not in parameters.SECTOR_SIZES:
        raise Left(f"its passport says sectors of {passport.sector_size} bytes; they are 512 or 4096")
    if found.size <= 0 or found.size % SIZE_STEP:
        raise Left(f"it has {found.size} bytes, no multiple of {SIZE_STEP}: it was cut short")
    try:
        made = datetime.fromisoformat(passport.made)
    except ValueError:
        made = None
    if made is None or made.tzinfo is None:
        raise Left(f"its passport says it was made at {passport.made!r}, which is no time")
    return passport


def history_of(found: Found, passport: Passport, offer: Offer) -> History:
    """Return the history that bytes must have had."""
    return History(
        accepted=offer,
        size=found.size,
        sector_size=passport.sector_size,
        made=passport.made,
        format_begun=passport.format_done,
        format_done=passport.format_done,
    )


def whole_groups(
    pairs: Iterable[tuple[Shelf, Found]], times: Mapping[str, int], known: Mapping[Key, Record]
) -> Iterator[GroupSnapshot]:
    """Yield the groups of which every member stands in one pool, and none has a record that stands alone."""
    cuts: dict[tuple[str, str], list[_Cut]] = {}
    for shelf, found in pairs:
        passport = found.passport
        if passport and passport.group and is_id(passport.parent) and (group_id := group_of(passport.name)):
            cuts.setdefault((group_id, shelf.pool_id), []).append((shelf, found, passport))
    for (group_id, _), members in cuts.items():
        records = [known.get((Snapshot.KIND, found.id)) for _, found, _ in members]
        alone = any(record is not None and not record.spec.group for record in records)
        if not alone and _are_whole(members, times):
            yield _group(group_id, members)


def _are_whole(members: Sequence[_Cut], times: Mapping[str, int]) -> bool:
    try:
        for _, found, _ in members:
            checked(found, times[found.id])
    except Left:
        return False
    said = {(passport.group, passport.group_size, passport.made) for _, _, passport in members}
    return said == {(members[0][2].group, len(members), members[0][2].made)}


def _group(group_id: str, members: Sequence[_Cut]) -> GroupSnapshot:
    ordered = sorted(members, key=lambda one: one[2].parent)
    shelf, _, passport = ordered[0]
    offer = Offer(1, shelf.node, shelf.pool_id)
    histories = tuple(history_of(found, passport, offer) for _, found, passport in ordered)
    spec = GroupSpec(
        name=passport.group,
        size=sum(history.size for history in histories),
        members=tuple(Member(found.id, passport.parent) for _, found, passport in ordered),
        offer=offer,
        parameters=dict(passport.parameters),
    )
    history = GroupHistory(accepted=offer, size=spec.size, made=passport.made, members=histories)
    return GroupSnapshot(group_id, spec, GroupStatus(history))
