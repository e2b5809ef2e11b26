"""`sluice top`: what two looks make, how it is sorted and shown, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from csi_driver.assemble import DATABASE, Machine
from csi_driver.cli import activity, top
from csi_driver.cli.activity import Look, Looking, between
from csi_driver.errors import Invalid
from csi_driver.records import Qos, Seen, Status, Volume, VolumeSpec
from csi_driver.store.sqlite import SqliteStore
from qos.iofiles import IoStat
from qos.limits import DevNo, Limits
from qos.meter import BOUNDS_NS, Counted
from tests.serving import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1 << 20
EMPTY = (0,) * (len(BOUNDS_NS) + 1)


def volume(name: str, tier: str = "standard", device: str = "") -> Volume:
    """Return a staged volume's record."""
    status = Status(seen=Seen(device=device))
    return Volume(name, VolumeSpec(name, 4096, qos=Qos(tier), claim=f"team/{name}"), status)


def histogram(*counts: int) -> tuple[int, ...]:
    """Return a histogram whose first buckets hold something."""
    return (*counts, *EMPTY[len(counts) :])


INFERENCE, TRAINING, NEW = volume("model", "inference"), volume("run", "training"), volume("new")
A, B, C = DevNo(253, 1), DevNo(253, 2), DevNo(253, 3)
STAGED = {"model": (INFERENCE, A), "run": (TRAINING, B)}
LIMITS = {A: Limits(riops=1000), B: Limits(wbps=10 * MIB, wiops=1000)}
BEFORE = Look(
    100.0,
    STAGED,
    {A: Counted(reads=10, reads_ns=10**6, buckets=histogram(10))},
    {A: IoStat(rbytes=MIB, rios=256), B: IoStat()},
    LIMITS,
)
AFTER = Look(
    102.0,
    {**STAGED, "new": (NEW, C)},
    {A: Counted(reads=410, reads_ns=10**6 + 4 * 10**8, buckets=histogram(10, 0, 0, 400))},
    {A: IoStat(rbytes=2 * MIB, rios=656), B: IoStat(wbytes=20 * MIB, wios=20), C: IoStat(rios=5)},
    LIMITS,
)


def test_two_looks_give_rates_percentiles_and_the_nearest_limit() -> None:
    """Of the interval alone, whatever was counted before; a volume that has just been staged has none yet."""
    model, run, new = (one.as_dict() for one in between(BEFORE, AFTER))

    assert model["rates"] == {"riops": 200.0, "wiops": 0.0, "rbps": MIB / 2, "wbps": 0.0}
    assert model["nearest"] == {"key": "riops", "share": 0.2}
    assert isinstance(model["seconds"], dict)
    assert BOUNDS_NS[2] / 1e9 < model["seconds"]["p50"] < model["seconds"]["p999"] < BOUNDS_NS[3] / 1e9
    assert (model["seconds"]["read"], model["seconds"]["write"]) == (0.001, None)
    assert (run["nearest"], run["throttled"]) == ({"key": "wbps", "share": 1.0}, True)
    assert run["seconds"] == dict.fromkeys(("p50", "p95", "p99", "p999", "read", "write"))
    assert (new["rates"], new["nearest"], new["throttled"]) == (None, None, False)


def test_a_volume_that_was_staged_anew_has_no_interval_yet() -> None:
    """Its old device's counters are another's."""
    moved = Look(102.0, {"model": (INFERENCE, B)}, AFTER.counted, AFTER.io, LIMITS)
    (one,) = between(BEFORE, moved)

    assert (one.rates, one.counted) == (None, None)


def test_where_limits_cant_be_looked_at_rates_are_those_of_the_device() -> None:
    """They are the histogram's own; of a volume without one nothing is known."""
    before, after = (
        Look(at, STAGED, {A: Counted(reads=reads, wbytes=reads * 4096, buckets=EMPTY)}, None, None)
        for at, reads in ((100.0, 10), (102.0, 30))
    )
    model, run = between(before, after)

    assert model.rates is not None
    assert (model.rates.riops, model.rates.wbps, model.nearest, model.limits) == (10.0, 40960.0, None, None)
    assert run.rates is None


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("name", ["team/model", "team/new", "team/run"]),
        ("tier", ["team/model", "team/new", "team/run"]),
        ("wbps", ["team/run", "team/model", "team/new"]),
        ("p99", ["team/model", "team/new", "team/run"]),
        ("limit", ["team/run", "team/model", "team/new"]),
    ],
)
def test_the_largest_comes_first_and_what_isnt_known_last(by: str, expected: list[str]) -> None:
    """Names and tiers begin at A; what is alike is sorted by name."""
    assert [one.name for one in top.ordered(between(BEFORE, AFTER), by)] == expected


class Scripted(Looking):
    """Look at what a test says, again and again."""

    def __init__(self, *looks: Look) -> None:
        self._looks = list(looks)
        self.troubles = ["no limits: the cgroup is gone"]

    def look(self) -> Look:
        return self._looks.pop(0)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give a state folder with one record."""
    store = SqliteStore(tmp_path / DATABASE)
    store.create(volume("model", device="/dev/loop77"))
    store.close()
    return tmp_path


def run(state: Path, *words: str) -> Result:
    return CliRunner().invoke(top.app, ["--state", str(state), "--every", "0.1", *words])


def test_without_a_terminal_it_prints_a_table_and_ends(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what can't be seen, and why; what is held back is told in percent."""
    monkeypatch.setattr(top, "Looking", lambda *_: Scripted(BEFORE, AFTER))
    lines = run(state).stdout.splitlines()

    assert lines[0].split() == [
        *("CLAIM", "OR", "NAME", "TIER", "READS/s", "WRITES/s", "R", "MiB/s", "W", "MiB/s"),
        *("P50", "MS", "P95", "MS", "P99", "MS*", "NEAREST", "LIMIT"),
    ]
    assert [line.split() for line in lines[1:4]] == [
        ["team/model", "inference", "200", "0", "0.5", "0.0", "0.04", "0.05", "0.05", "20%", "reads/s"],
        ["team/new", "standard", *"-" * 8],
        ["team/run", "training", "0", "10", "0.0", "10", "-", "-", "-", "100%", "write", "B/s"],
    ]
    assert lines[4:] == ["no limits: the cgroup is gone"]


def test_json_is_one_look_in_order(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For programs."""
    monkeypatch.setattr(top, "Looking", lambda *_: Scripted(BEFORE, AFTER))
    said = json.loads(run(state, "--json", "--sort", "limit").stdout)

    assert [(one["claim"], one["tier"], one["throttled"]) for one in said] == [
        ("team/run", "training", True),
        ("team/model", "inference", False),
        ("team/new", "standard", False),
    ]


def test_so_many_looks_as_asked_for(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table each."""
    monkeypatch.setattr(top, "Looking", lambda *_: Scripted(BEFORE, AFTER, AFTER.__class__(104.0, {}, {}, {}, {})))
    shown = run(state, "-n", "2").stdout

    assert shown.count("CLAIM OR NAME") == 1
    assert shown.count("No volume is staged here.") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sort", "size"), "there is no column 'size'; write one of name, tier"),
        (("--every", "0"), "every: 0 is not between 0.1 and 3600 seconds"),
        (("--every", "nan"), "every: nan is not"),
        (("-n", "0"), "write 1 or more"),
    ],
)
def test_a_slip_is_answered_with_what_to_write(state: Path, words: tuple[str, ...], message: str) -> None:
    """Each is Invalid, which the command line prints as one line."""
    result = run(state, *words)

    assert isinstance(result.exception, Invalid)
    assert message in str(result.exception)


def test_a_real_look_finds_what_is_staged(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record whose device is another's by now isn't staged, whatever it says."""
    store = SqliteStore(state / DATABASE)
    looking = Looking(store, Machine(), "auto")
    monkeypatch.setattr(looking, "_no_mapper", "no device-mapper here")
    without = looking.look()
    monkeypatch.setattr(activity, "device_of", lambda _: A)
    found = looking.look()
    store.close()

    assert (without.staged, list(found.staged)) == ({}, ["model"])
    assert looking.troubles[0] == "no latencies: no device-mapper here"


def watched(monkeypatch: pytest.MonkeyPatch, key: Callable[[float], str], times: int | None) -> list[str]:
    """Watch nothing, and return by which column each screen was sorted."""
    columns: list[str] = []

    def screen(_: object, by: str, *_rest: object) -> str:
        columns.append(by)
        return ""

    monkeypatch.setattr(top, "screen", screen)
    top.watch(Scripted(*(Look(0.0, {}, {}, {}, {}) for _ in range(4))), key, "p99", 0.1, times)
    return columns


def test_keys_sort_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """`s` takes the next column at once, `q` ends; another key does nothing."""
    pressed = iter(["x", "s", "q"])

    assert watched(monkeypatch, lambda _: next(pressed), None) == ["p99", "limit"]


def test_it_shows_so_many_screens_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each for its whole time."""
    assert watched(monkeypatch, lambda _: "", 2) == ["p99", "p99"]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Give both ends of a terminal."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_a_key_is_had_without_the_return_key(terminal: tuple[int, int]) -> None:
    """And nothing when none is pressed; afterwards the terminal is as it was."""
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)
    with top.keys(theirs) as key:
        os.write(ours, b"sq")
        pressed = [key(5.0), key(5.0), key(0.01)]

    assert pressed == ["s", "q", ""]
    assert termios.tcgetattr(theirs) == before


def test_q_ends_a_real_one(state: Path, terminal: tuple[int, int]) -> None:
    """The whole command on a terminal: status 0, and the screen before is back."""
    ours, theirs = terminal
    argv = [sys.executable, "-m", "csi_driver", "top", "--state", str(state), "--every", "0.2"]
    process = subprocess.Popen(argv, cwd=CHECKOUT, stdin=theirs, stdout=theirs, stderr=theirs)
    said = bytearray()

    def follow() -> None:
        while b"No volume" not in said:
            said.extend(os.read(ours, 4096))
        os.write(ours, b"q")

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    status = process.wait(60)
    reader.join(10)

    assert status == 0
    assert b"\x1b[?1049h" in said
