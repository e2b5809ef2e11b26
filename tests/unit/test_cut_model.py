"""What the power cut tests judge by: the workers' plans, the comparison with what there is, and the log's replay."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from csi_driver.records import Volume
from tests.kernel.logged import DISCARD, ENTRY, FLUSH, FUA, MAGIC, MARK, SIZES, SUPER, Copy, Log
from tests.vm.caller import Seen, meant, wrong
from tests.vm.plan import SIZE, Op, Thing, applied, around, plan

if TYPE_CHECKING:
    from pathlib import Path

SECTOR = 512
EMPTY = Thing(Volume.KIND, SIZE)
FULL = Thing(Volume.KIND, SIZE, "a")
CREATE, FILL, EXPAND, DELETE = (
    Op("create", "a", size=SIZE),
    Op("fill", "a"),
    Op("expand", "a", size=99),
    Op("delete", "a"),
)


def test_a_plan_is_known_from_its_seed_and_never_ends() -> None:
    """Two readers of it agree, and each call is possible after those before."""
    calls = list(itertools.islice(plan("1-0"), 300))
    before, after, op = around("1-0", 299)

    assert calls == list(itertools.islice(plan("1-0"), 300))
    assert calls != list(itertools.islice(plan("1-1"), 300))
    assert {op.verb for op in calls} == {"create", "fill", "expand", "cut", "restore", "delete"}
    assert (op, after) == (calls[-1], applied(before, calls[-1]))


@pytest.mark.parametrize("op", [CREATE, FILL, EXPAND, DELETE])
def test_what_a_cut_call_may_leave_is_all_or_nothing(op: Op) -> None:
    """Both are right while it is cut; only the one is right once it is acknowledged."""
    before = {} if op is CREATE else {"a": EMPTY}
    after = applied(before, op)
    left = [{name: meant(thing) for name, thing in state.items()} for state in (before, after)]

    assert [wrong(seen, before, after, [op]) for seen in left] == [[], []]
    assert [len(wrong(seen, after, after)) for seen in left] == [1, 0]


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {"a": meant(EMPTY)},
        {"a": meant(FULL)._replace(size=SIZE // 2)},
        {"a": meant(FULL)._replace(kind="snapshot")},
        {"a": meant(FULL), "b": meant(EMPTY)},
        {"a": Seen(Volume.KIND, SIZE, "")},
    ],
    ids=["gone", "content lost", "shorter", "a snapshot", "one too many", "no bytes"],
)
def test_whatever_else_is_there_is_wrong(seen: dict[str, Seen]) -> None:
    """Also while a call is cut that has nothing to do with it."""
    state = {"a": FULL}
    other = Op("create", "c", size=SIZE)

    assert wrong({"a": meant(FULL)}, state, applied(state, other), [other]) == []
    assert len(wrong(seen, state, applied(state, other), [other])) == 1


def test_bytes_that_are_gone_are_wrong_even_while_they_are_written() -> None:
    """A cut write may leave anything in its place, but the volume is there and as long as it was."""
    cut = [FILL]

    assert wrong({"a": Seen(Volume.KIND, SIZE, "anything")}, {"a": EMPTY}, {"a": FULL}, cut) == []
    assert len(wrong({"a": Seen(Volume.KIND, SIZE, "")}, {"a": EMPTY}, {"a": FULL}, cut)) == 1


def test_a_log_is_replayed_write_by_write_onto_both_parts(tmp_path: Path) -> None:
    """Bytes go where they went, what was discarded is zeros, and marks and flushes are where they were."""
    state = SIZES["state"] // SECTOR
    writes = [(1, 2, 0, b"a" * 1024, b""), (0, 0, FLUSH, b"", b""), (0, 0, MARK, b"", b"done:0:1")]
    writes += [(state + 3, 1, FUA, b"b" * SECTOR, b""), (2, 1, DISCARD, b"", b"")]
    raw = SUPER.pack(MAGIC, 1, len(writes), SECTOR).ljust(SECTOR, b"\0")
    for sector, count, flags, data, mark in writes:
        raw += (ENTRY.pack(sector, count, flags, len(mark)) + mark).ljust(SECTOR, b"\0") + data
    (tmp_path / "log").write_bytes(raw)
    files = {name: tmp_path / name for name in SIZES}
    for file in files.values():
        file.touch()
    entries, copy = Log(tmp_path / "log").entries(), Copy(tmp_path / "log", files)
    for entry in entries:
        copy.apply(entry)

    assert [entry.durable for entry in entries] == [False, True, False, True, False]
    assert [entry.mark for entry in entries if entry.mark] == ["done:0:1"]
    assert files["state"].read_bytes() == bytes(SECTOR) + b"a" * SECTOR + bytes(SECTOR)
    assert files["pool"].read_bytes() == bytes(3 * SECTOR) + b"b" * SECTOR
