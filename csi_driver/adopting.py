"""Rebuild records from the passports on the bytes, when the database was lost: a plan first, then one step a record.

What has a record is left alone, what has no passport that makes sense is told and never touched. A step that was cut is
finished by doing it again: a record without an offer is one that was begun here, and nobody acts on it.

A group snapshot is rebuilt when all of its members are there; its agent gives these their records. Else those that are
there become snapshots that stand alone.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csi_driver import parameters
from csi_driver.errors import Invalid
from csi_driver.groups import GroupSnapshot, group_of
from csi_driver.ids import is_id, new_id
from csi_driver.records import Offer, Snapshot, SnapshotSpec, Source, Status, Volume, VolumeSpec
from csi_driver.shelves import Left, checked, history_of, whole_groups
from csi_driver.store.base import Stale

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from csi_driver.backends.base import Found, Passport
    from csi_driver.shelves import Shelf
    from csi_driver.store.base import Key, Store
    from qos.tiers import Tier

Thing = Volume | Snapshot | GroupSnapshot


class Action(enum.StrEnum):
    """Say what is done with bytes."""

    ADOPT = "adopt"  # there is no record: write it
    FINISH = "finish"  # the record was begun by an adoption that was cut
    KNOWN = "known"  # there is a record
    LEAVE = "leave"  # `note` says why; a person must look


@dataclass(frozen=True, slots=True)
class Step:
    """Say what is done with the bytes under one id.

    `record` is what they get, None unless they get one; members of a group have that of the group in common.
    """

    action: Action
    pool: str
    found: Found
    record: Thing | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """Hold what the records follow from, beside the bytes.

    `scope` is what the driver makes ids in. `missing_tier` is taken where a passport names a tier that is not in
    `tiers`; "" takes none: such a volume is left, since it would run without the limits that it was promised.
    """

    scope: str
    tiers: Mapping[str, Tier]
    missing_tier: str = ""


def known_records(store: Store) -> dict[Key, Thing]:
    """Return all volumes, snapshots and groups of a Store."""
    kinds: tuple[type[Thing], ...] = (Volume, Snapshot, GroupSnapshot)
    return {(kind.KIND, record.id): record for kind in kinds for record in store.list(kind)}


def plan(shelves: Iterable[Shelf], known: Mapping[Key, Thing], rules: Rules) -> list[Step]:
    """Return a step for all that stands in the pools. Pure."""
    pairs = [(shelf, found) for shelf in shelves for found in shelf.found]
    times = Counter(found.id for _, found in pairs)
    kinds = {record.id: record.KIND for record in known.values()} | {
        found.id: found.passport.kind for _, found in pairs if found.passport
    }
    groups = {member.id: group for group in whole_groups(pairs, times, known) for member in group.spec.members}
    return [
        _in_group(shelf, found, group, known)
        if (group := groups.get(found.id)) is not None
        else _step(shelf, found, known, rules, kinds, times[found.id])
        for shelf, found in pairs
    ]


def _in_group(shelf: Shelf, found: Found, group: GroupSnapshot, known: Mapping[Key, Thing]) -> Step:
    mine = known.get((GroupSnapshot.KIND, group.id))
    if mine is not None and not _begun(mine):
        return Step(Action.KNOWN, shelf.pool, found)
    note = f"a member of group snapshot {group.spec.name}"
    return Step(Action.FINISH if mine else Action.ADOPT, shelf.pool, found, group, note)


def _step(
    shelf: Shelf,
    found: Found,
    known: Mapping[Key, Thing],
    rules: Rules,
    kinds: Mapping[str, str],
    times: int,
) -> Step:
    mine = next((known[kind, found.id] for kind in (Volume.KIND, Snapshot.KIND) if (kind, found.id) in known), None)
    if mine is not None and not _begun(mine):
        return Step(Action.KNOWN, shelf.pool, found, note=_elsewhere(mine, shelf))
    try:
        passport = checked(found, times)
        if (GroupSnapshot.KIND, group_of(passport.name)) in known:
            return Step(Action.KNOWN, shelf.pool, found, note="its group snapshot has a record, and goes on with it")
        record, note = _record(shelf, found, passport, rules, kinds)
    except Left as reason:
        return Step(Action.LEAVE, shelf.pool, found, note=str(reason))
    return Step(Action.FINISH if mine else Action.ADOPT, shelf.pool, found, record, note)


def _begun(record: Thing) -> bool:
    """Return whether an adoption that was cut left this record: all but members were born with an offer."""
    if isinstance(record, Snapshot) and record.spec.group:
        return False
    return record.spec.offer is None and not record.deleting and not record.spec.absent


def _elsewhere(record: Thing, shelf: Shelf) -> str:
    offer = record.status.history.accepted or record.spec.offer
    if offer is None or offer.pool == shelf.pool_id:
        return ""
    return f"its record says another pool, on node {offer.node}: these bytes are a copy, or were moved by hand"


def _record(
    shelf: Shelf, found: Found, passport: Passport, rules: Rules, kinds: Mapping[str, str]
) -> tuple[Volume | Snapshot, str]:
    """Return the whole record of bytes, and what a person should know of it. Raises Left."""
    offer = Offer(1, shelf.node, shelf.pool_id)
    history = history_of(found, passport, offer)
    notes = []
    if new_id(rules.scope, passport.kind, passport.name) != found.id:
        notes.append("made under another driver name or cluster id")
    if passport.kind == Snapshot.KIND:
        if not is_id(passport.parent):
            raise Left(f"its passport names no volume that it was cut from, but {passport.parent!r}")
        if passport.group:
            notes.append(f"alone: not all of the {passport.group_size} members of group {passport.group} are here")
        cut = SnapshotSpec(name=passport.name, size=found.size, volume=passport.parent, offer=offer)
        return Snapshot(found.id, cut, Status(history)), "; ".join(notes)
    spec, said = _volume(found, passport, rules)
    source = None
    if passport.parent in kinds:
        source = Source(kinds[passport.parent], passport.parent)
    elif passport.parent:
        notes.append(f"made from {passport.parent}, which is gone")
    spec = dataclasses.replace(spec, offer=offer, source=source)
    # It had been promised; what a disk can't give any more shows in its ledger.
    history = dataclasses.replace(history, floor=spec.qos.floor)
    return Volume(found.id, spec, Status(history)), "; ".join([*notes, *said])


def _volume(found: Found, passport: Passport, rules: Rules) -> tuple[VolumeSpec, list[str]]:
    """Return what a volume is to be, its limits reckoned anew from its tier. Raises Left."""
    notes, tier = [], passport.tier
    if tier not in rules.tiers:
        if not rules.missing_tier:
            raise Left(
                f"its tier {tier!r} is not known: give the file that has it by --tiers, or a tier to take instead by "
                "--missing-tier"
            )
        notes.append(f"tier {tier!r} is not known, {rules.missing_tier} is taken: check its limits")
        tier = rules.missing_tier
    made_by = {key: value for key, value in passport.parameters.items() if key not in parameters.QOS_KEYS}
    asked = {**made_by, "tier": tier, **passport.overrides}
    if passport.format_done:
        asked["fsType"] = passport.format_done
    try:
        want = parameters.wanted(rules.tiers, found.size, asked, {})
    except Invalid as error:
        raise Left(f"its passport can't be followed: {error}") from error
    spec = VolumeSpec(
        name=passport.name,
        size=found.size,
        sector_size=passport.sector_size,
        qos=want.qos,
        file_system=want.file_system,
        parameters=dict(passport.parameters),
        claim=passport.claim,
        thick=passport.thick,
    )
    return spec, notes


def carry_out(store: Store, steps: Sequence[Step]) -> Iterable[Step]:
    """Write the records of a plan, and yield each step that was done. Raises StoreUnready: run it again then."""
    for step in steps:
        if step.record is not None and write(store, step.record):
            yield step


def write(store: Store, record: Thing) -> bool:
    """Write one record. False: it is there, and not one that an adoption began.

    The offer comes last: until then no agent acts on the record. With an offer and no history it would be made anew,
    and bytes whose source is gone would be undone.
    """
    while True:
        now: Thing | None = store.get(type(record), record.id)
        try:
            if now is None:
                born: Any = type(record.status)()
                now = store.create(dataclasses.replace(record.with_spec(offer=None), status=born))
            if not _begun(now):
                return False
            if not now.status.history.made:
                status: Any = record.status
                now = store.put_status(dataclasses.replace(now, status=status))
            store.put_spec(dataclasses.replace(record, version=now.version))
        except Stale:
            continue
        return True
