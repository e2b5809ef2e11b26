"""Rebuild records from the passports on the bytes, when the database was lost: a plan first, then one step a record.

What has a record is left alone, what has no passport that makes sense is told and never touched. A step that was cut is
finished by doing it again: a record without an offer is one that was begun here, and nobody acts on it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from csi_driver import parameters
from csi_driver.errors import Invalid
from csi_driver.ids import is_id, new_id
from csi_driver.records import SIZE_STEP, History, Offer, Snapshot, SnapshotSpec, Source, Status, Volume, VolumeSpec
from csi_driver.store.base import Stale

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from csi_driver.backends.base import Found, Passport
    from csi_driver.store.base import Key, Store
    from qos.tiers import Tier


class Action(enum.StrEnum):
    """Say what is done with bytes."""

    ADOPT = "adopt"  # there is no record: write it
    FINISH = "finish"  # the record was begun by an adoption that was cut
    KNOWN = "known"  # there is a record
    LEAVE = "leave"  # `note` says why; a person must look


@dataclass(frozen=True, slots=True)
class Shelf:
    """Hold what stands in one pool."""

    pool_id: str
    pool: str
    node: str
    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """Say what is done with the bytes under one id. `record` is what they get, None unless they get one."""

    action: Action
    pool: str
    found: Found
    record: Volume | Snapshot | None = None
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


class _Left(Exception):
    """Say why bytes get no record."""


def known_records(store: Store) -> dict[Key, Volume | Snapshot]:
    """Return all volumes and snapshots of a Store."""
    kinds: tuple[type[Volume | Snapshot], ...] = (Volume, Snapshot)
    return {(kind.KIND, record.id): record for kind in kinds for record in store.list(kind)}


def plan(shelves: Iterable[Shelf], known: Mapping[Key, Volume | Snapshot], rules: Rules) -> list[Step]:
    """Return a step for all that stands in the pools. Pure."""
    pairs = [(shelf, found) for shelf in shelves for found in shelf.found]
    times = Counter(found.id for _, found in pairs)
    kinds = {record.id: record.KIND for record in known.values()} | {
        found.id: found.passport.kind for _, found in pairs if found.passport
    }
    return [_step(shelf, found, known, rules, kinds, times[found.id]) for shelf, found in pairs]


def _step(
    shelf: Shelf,
    found: Found,
    known: Mapping[Key, Volume | Snapshot],
    rules: Rules,
    kinds: Mapping[str, str],
    times: int,
) -> Step:
    mine = next((known[kind, found.id] for kind in (Volume.KIND, Snapshot.KIND) if (kind, found.id) in known), None)
    if mine is not None and not _begun(mine):
        return Step(Action.KNOWN, shelf.pool, found, note=_elsewhere(mine, shelf))
    try:
        passport = _checked(found, times)
        record, note = _record(shelf, found, passport, rules, kinds)
    except _Left as reason:
        return Step(Action.LEAVE, shelf.pool, found, note=str(reason))
    return Step(Action.FINISH if mine else Action.ADOPT, shelf.pool, found, record, note)


def _begun(record: Volume | Snapshot) -> bool:
    """Return whether an adoption that was cut left this record: every other one was born with an offer."""
    return record.spec.offer is None and not record.deleting and not record.spec.absent


def _elsewhere(record: Volume | Snapshot, shelf: Shelf) -> str:
    offer = record.status.history.accepted or record.spec.offer
    if offer is None or offer.pool == shelf.pool_id:
        return ""
    return f"its record says another pool, on node {offer.node}: these bytes are a copy, or were moved by hand"


def _checked(found: Found, times: int) -> Passport:
    """Return the passport if it makes sense for bytes that are found so many times. Raises _Left."""
    if times > 1:
        raise _Left("two pools hold this id: remove the copy that is not the volume, then run this again")
    passport = found.passport
    if passport is None:
        raise _Left("no passport that can be read: nobody can say what these bytes are")
    if passport.id != found.id:
        raise _Left(f"its passport is that of {passport.id}: these bytes are a copy made by hand")
    if passport.kind not in (Volume.KIND, Snapshot.KIND) or not passport.name:
        raise _Left(
            f"its passport says kind {passport.kind!r}, name {passport.name!r}: that is no volume and no snapshot"
        )
    if passport.sector_size not in parameters.SECTOR_SIZES:
        raise _Left(f"its passport says sectors of {passport.sector_size} bytes; they are 512 or 4096")
    if found.size <= 0 or found.size % SIZE_STEP:
        raise _Left(f"it has {found.size} bytes, no multiple of {SIZE_STEP}: it was cut short")
    try:
        made = datetime.fromisoformat(passport.made)
    except ValueError:
        made = None
    if made is None or made.tzinfo is None:
        raise _Left(f"its passport says it was made at {passport.made!r}, which is no time")
    return passport


def _record(
    shelf: Shelf, found: Found, passport: Passport, rules: Rules, kinds: Mapping[str, str]
) -> tuple[Volume | Snapshot, str]:
    """Return the whole record of bytes, and what a person should know of it. Raises _Left."""
    offer = Offer(1, shelf.node, shelf.pool_id)
    history = History(
        accepted=offer,
        size=found.size,
        sector_size=passport.sector_size,
        made=passport.made,
        format_begun=passport.format_done,
        format_done=passport.format_done,
    )
    notes = []
    if new_id(rules.scope, passport.kind, passport.name) != found.id:
        notes.append("made under another driver name or cluster id")
    if passport.kind == Snapshot.KIND:
        if not is_id(passport.parent):
            raise _Left(f"its passport names no volume that it was cut from, but {passport.parent!r}")
        cut = SnapshotSpec(name=passport.name, size=found.size, volume=passport.parent, offer=offer)
        return Snapshot(found.id, cut, Status(history)), "; ".join(notes)
    spec, said = _volume(found, passport, rules)
    source = None
    if passport.parent in kinds:
        source = Source(kinds[passport.parent], passport.parent)
    elif passport.parent:
        notes.append(f"made from {passport.parent}, which is gone")
    spec = dataclasses.replace(spec, offer=offer, source=source)
    return Volume(found.id, spec, Status(history)), "; ".join([*notes, *said])


def _volume(found: Found, passport: Passport, rules: Rules) -> tuple[VolumeSpec, list[str]]:
    """Return what a volume is to be, its limits reckoned anew from its tier. Raises _Left."""
    notes, tier = [], passport.tier
    if tier not in rules.tiers:
        if not rules.missing_tier:
            raise _Left(
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
        raise _Left(f"its passport can't be followed: {error}") from error
    spec = VolumeSpec(
        name=passport.name,
        size=found.size,
        sector_size=passport.sector_size,
        qos=want.qos,
        file_system=want.file_system,
        parameters=dict(passport.parameters),
        claim=passport.claim,
    )
    return spec, notes


def carry_out(store: Store, steps: Sequence[Step]) -> Iterable[Step]:
    """Write the records of a plan, and yield each step that was done. Raises StoreUnready: run it again then."""
    for step in steps:
        if step.record is not None and write(store, step.record):
            yield step


def write(store: Store, record: Volume | Snapshot) -> bool:
    """Write one record. False: it is there, and not one that an adoption began.

    The offer comes last: until then no agent acts on the record. With an offer and no history it would be made anew,
    and bytes whose source is gone would be undone.
    """
    while True:
        now: Volume | Snapshot | None = store.get(type(record), record.id)
        try:
            if now is None:
                now = store.create(dataclasses.replace(record.with_spec(offer=None), status=Status()))
            if not _begun(now):
                return False
            if not now.status.history.made:
                now = store.put_status(dataclasses.replace(now, status=record.status))
            store.put_spec(dataclasses.replace(record, status=now.status, version=now.version))
        except Stale:
            continue
        return True
