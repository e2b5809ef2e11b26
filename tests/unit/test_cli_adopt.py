"""Records are rebuilt from passports: the plan, and its execution on stores that may fail anywhere."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from csi_driver import adopting
from csi_driver.adopting import Action, Rules, Step
from csi_driver.backends.base import Found, Passport
from csi_driver.ids import new_id
from csi_driver.records import Offer, Snapshot, Source, Volume, VolumeSpec
from csi_driver.shelves import Shelf
from csi_driver.store.base import Store, StoreUnready
from csi_driver.store.hostile import HostileStore, Malice
from csi_driver.store.sqlite import SqliteStore
from qos.tiers import load

if TYPE_CHECKING:
    from pathlib import Path

SCOPE = "local/csi.sluice.dev"
TIERS = load()
RULES = Rules(SCOPE, TIERS)
SIZE = 100 << 30
MADE = "2026-11-20T14:00:00+00:00"


def passport(name: str = "pvc-a", kind: str = "volume", **changes: Any) -> Passport:  # noqa: ANN401 - dataclasses.replace is typed so
    return dataclasses.replace(
        Passport(new_id(SCOPE, kind, name), kind, name, tier="" if kind == "snapshot" else "standard", made=MADE),
        **changes,
    )


def found(of: Passport | None, record_id: str = "", size: int = SIZE) -> Found:
    return Found(record_id or (of.id if of else new_id(SCOPE, "volume", "x")), of.kind if of else "", size, 4096, of)


def shelf(*bytes_found: Found, pool: str = "fast") -> Shelf:
    return Shelf(f"id-of-{pool}", pool, "n1", bytes_found)


def only(steps: list[Step]) -> Step:
    (step,) = steps
    return step


def newest(store: Store) -> dict[str, Volume | Snapshot]:
    """Read by `get`: a list may be stale."""
    kinds: tuple[type[Volume | Snapshot], ...] = (Volume, Snapshot)
    got = [store.get(kind, each.id) for each in all_kinds().found for kind in kinds]
    return {record.id: record for record in got if record}


def test_a_volume_gets_the_record_that_it_had() -> None:
    """Everything that a passport and a file tell is in the record, so that `serve` takes the volume as made."""
    asked = {"tier": "standard", "pool": "fast", "readAheadKiB": "64"}
    mine = passport(
        claim="ml/ckpt",
        tier="training",
        overrides={"writeBPS": "9Mi"},
        parameters=asked,
        sector_size=512,
        format_done="xfs",
    )

    record = only(adopting.plan([shelf(found(mine))], {}, RULES)).record

    assert isinstance(record, Volume)
    history, spec = record.status.history, record.spec
    assert history.accepted == spec.offer == Offer(1, "n1", "id-of-fast")
    assert (history.made, history.size, history.sector_size) == (MADE, SIZE, 512)
    assert (history.format_done, spec.file_system.type) == ("xfs", "xfs")
    assert (spec.name, spec.claim, spec.size) == ("pvc-a", "ml/ckpt", SIZE)
    assert spec.parameters == asked, "or a repeated CreateVolume would be a conflict"
    assert spec.file_system.read_ahead_kib == 64
    assert spec.qos.limits.wbps == 9 << 20
    assert spec.qos.limits.rbps == 100 << 20
    assert spec.qos.required


def test_thick_is_what_the_bytes_are_and_not_what_the_tier_would_make() -> None:
    """A thick volume may have moved to a thin tier, a thin one to `scratch`."""
    moved = passport("pvc-a", tier="training", thick=True), passport("pvc-b", tier="scratch")
    records = [step.record for step in adopting.plan([shelf(*map(found, moved))], {}, RULES)]

    assert [record.spec.thick for record in records if isinstance(record, Volume)] == [True, False]


def test_a_snapshot_and_its_restore_know_their_sources() -> None:
    """A parent that stands in a pool, or has a record, says itself whether it is a volume or a snapshot."""
    origin, cut = passport("pvc-a"), passport("snap-a", "snapshot", parent=new_id(SCOPE, "volume", "pvc-a"))
    restored = passport("pvc-b", parent=cut.id)

    steps = adopting.plan([shelf(found(origin), found(cut), found(restored))], {}, RULES)

    snapshot, volume = steps[1].record, steps[2].record
    assert isinstance(snapshot, Snapshot)
    assert isinstance(volume, Volume)
    assert snapshot.spec.volume == origin.id
    assert volume.spec.source == Source("snapshot", cut.id)


def test_a_source_that_is_gone_is_told() -> None:
    """A volume lives without its source; that it had one is said."""
    step = only(adopting.plan([shelf(found(passport(parent=new_id(SCOPE, "volume", "old"))))], {}, RULES))

    assert isinstance(step.record, Volume)
    assert step.record.spec.source is None
    assert "which is gone" in step.note


@pytest.mark.parametrize(
    ("bytes_found", "reason"),
    [
        (found(None), "no passport"),
        (found(passport(), record_id=new_id(SCOPE, "volume", "copy")), "copy made by hand"),
        (found(passport(kind="group")), "kind 'group'"),
        (found(passport(sector_size=1000)), "sectors of 1000"),
        (found(passport(), size=SIZE + 1), "no multiple"),
        (found(passport(), size=0), "no multiple"),
        (found(passport(made="yesterday")), "no time"),
        (found(passport(made="2026-11-20T14:00:00")), "no time"),
        (found(passport("s", "snapshot")), "names no volume"),
        (found(passport(tier="gold")), "--missing-tier"),
        (found(passport(overrides={"writeBPS": "fast"})), "writeBPS"),
    ],
)
def test_what_makes_no_sense_is_left_with_its_reason(bytes_found: Found, reason: str) -> None:
    """No record is guessed, and none that would run without its limits is written in silence."""
    step = only(adopting.plan([shelf(bytes_found)], {}, RULES))

    assert step.action is Action.LEAVE
    assert step.record is None
    assert reason in step.note


def test_a_missing_tier_is_replaced_only_when_told_so() -> None:
    """The person names the tier, and the plan says that it was taken."""
    rules = dataclasses.replace(RULES, missing_tier="training")

    step = only(adopting.plan([shelf(found(passport(tier="gold")))], {}, rules))

    assert isinstance(step.record, Volume)
    assert step.record.spec.qos.tier == "training"
    assert "'gold' is not known" in step.note


def test_an_id_in_two_pools_is_nobodys() -> None:
    """Which of the two is the volume, only a person can say."""
    twice = found(passport())

    steps = adopting.plan([shelf(twice), shelf(twice, pool="slow")], {}, RULES)

    assert [step.action for step in steps] == [Action.LEAVE, Action.LEAVE]


def test_a_record_that_exists_is_left_alone() -> None:
    """Also when its pool is another: that is said, and nothing is done."""
    mine = passport()
    known = Volume(mine.id, VolumeSpec("pvc-a", SIZE, offer=Offer(1, "n2", "id-of-other")))

    step = only(adopting.plan([shelf(found(mine))], {("volume", mine.id): known}, RULES))

    assert step.action is Action.KNOWN
    assert "on node n2" in step.note


def test_another_driver_name_is_told() -> None:
    """Under another name a repeated CreateVolume would not find its volume: the person may have forgotten a flag."""
    step = only(adopting.plan([shelf(found(passport()))], {}, dataclasses.replace(RULES, scope="local/other")))

    assert step.action is Action.ADOPT
    assert "another driver name" in step.note


def all_kinds() -> Shelf:
    origin = passport("pvc-a", tier="inference", format_done="ext4")
    cut = passport("snap-a", "snapshot", parent=origin.id)
    return shelf(found(origin), found(cut), found(passport("pvc-b", parent=cut.id)))


def test_adoption_on_a_database_can_be_done_again(tmp_path: Path) -> None:
    """The second run finds that everything has its record, and writes nothing."""
    store = SqliteStore(tmp_path / "sluice.db")
    steps = adopting.plan([all_kinds()], {}, RULES)

    first = list(adopting.carry_out(store, steps))
    before = newest(store)
    again = adopting.plan([all_kinds()], adopting.known_records(store), RULES)
    second = list(adopting.carry_out(store, again))
    after = newest(store)
    store.close()

    assert len(first) == 3
    assert second == []
    assert {step.action for step in again} == {Action.KNOWN}
    assert before == after


@pytest.mark.parametrize("seed", range(20))
def test_a_cut_anywhere_is_finished_by_the_next_run(seed: int) -> None:
    """Whether a write landed may be unknown; in between no record has an offer without its history."""
    store = HostileStore(seed, Malice(unknown=0.3, delay=0.0))
    for _ in range(100):
        plan = adopting.plan([all_kinds()], adopting.known_records(store), RULES)
        try:
            list(adopting.carry_out(store, plan))
        except StoreUnready:
            half = [record for record in newest(store).values() if record.spec.offer]
            assert all(record.status.history.made for record in half)
            continue
        if all(step.action is Action.KNOWN for step in plan):
            break

    records = newest(store)
    wanted = {step.found.id: step.record for step in adopting.plan([all_kinds()], {}, RULES)}
    assert records.keys() == wanted.keys()
    for record_id, record in records.items():
        expected = wanted[record_id]
        assert expected is not None
        assert (record.spec, record.status.history) == (expected.spec, expected.status.history)
