"""The demo's arithmetic, and that its report says no more than the figures show."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from csi_driver.errors import NotFound
from hack.demo import figures, report, rows
from hack.demo.classes import parameters
from hack.demo.figures import Io, Latency, Measured
from hack.demo.plan import MIB, Plan, phases

CLASSES = Path(__file__).resolve().parents[2] / "deploy/classes"


def limits(wbps: int | None) -> dict[str, Any]:
    return {"training": {"wanted": {"wbps": wbps}, "applied": {"wbps": wbps}}}


def phase(key: str, p99: float, training: float | None, wbps: int | None, *, live: bool = False) -> Measured:
    after = limits(20 * MIB if live else wbps)
    raw = {"limits": limits(wbps), "limits_after": after, "changed": [{"took": 0.1}] if live else []}
    windows = (("37 MiB/s", 36.9), ("20 MiB/s", 19.9)) if live else ()
    points = (figures.Point(0.5, p99),)
    busy = (figures.Point(0.5, training),) if training is not None else ()
    got = Latency(200.0, 1.0, p99 / 2, p99)
    return Measured(key, f"phase {key}", got, training, points, busy, 0.5 if live else None, windows, raw)


def run(held: float) -> list[Measured]:
    return [
        phase("alone", 4.6, None, None),
        phase("unlimited", 169.0, 50.0, None),
        phase("limited", held, 37.0, 37 * MIB),
        phase("live", held, 28.0, 37 * MIB, live=True),
    ]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """The nearest rank, and nothing of nothing."""
    assert figures.percentile(range(1, 101), 99) == 99
    assert figures.percentile([7.0], 50) == 7.0
    assert math.isnan(figures.percentile([], 99))


def test_rates_count_what_ended_in_the_window() -> None:
    """Two of four 1 MiB writes end within the two seconds."""
    ios = [Io(at, 1.0, MIB) for at in (0.5, 1.0, 2.9, 3.0)]

    assert figures.rate(ios, 1, 3) == 1.0
    assert figures.latency(ios, 1, 3).iops == 1.0


def test_fios_log_is_read_as_it_is_written(tmp_path: Path) -> None:
    """Milliseconds, nanoseconds, direction, bytes; whatever else follows."""
    log = tmp_path / "a_lat.1.log"
    log.write_text("1500, 2000000, 0, 4096, 0\n1501, 500000, 0, 4096, 8192, 0\n")

    assert figures.read_log(log) == [Io(1.5, 2.0, 4096), Io(1.501, 0.5, 4096)]


def test_a_live_change_has_two_rows() -> None:
    """Limit wanted, applied and measured, before and after."""
    assert rows.training_rows(run(6.0)[3]) == [
        ("37 MiB/s", "37 MiB/s", "36.9 MiB/s"),
        ("20 MiB/s", "20 MiB/s", "19.9 MiB/s"),
    ]


@pytest.mark.parametrize(("held", "claims"), [(6.0, True), (150.0, False), (400.0, False)])
def test_the_headline_claims_protection_only_where_it_was_measured(held: float, claims: bool) -> None:
    """A run that shows nothing says so."""
    said = report.headline({each.key: each for each in run(held)})

    assert ("with Sluice's limits" in said) is claims


def test_the_report_needs_nothing_from_outside(tmp_path: Path) -> None:
    """One file: no script, style or picture from elsewhere; classes and limits are in it."""
    facts = dict.fromkeys(
        ("kernel", "fio", "cpus", "accelerator", "host_cpu", "host_cpus", "host_kernel", "seconds"), 1
    )
    plan = Plan({"training": {"tier": "training"}}, phases())

    story = rows.told({"promised": 630 << 30, "taken": 3 << 28, "snapshot_seconds": 0.61, "clone_seconds": 0.52})
    report.write(tmp_path / "report.html", plan, run(6.0), facts, story)

    text = (tmp_path / "report.html").read_text()
    assert "630 GiB promised, 0.75 GiB taken" in text
    assert 'src="http' not in text
    assert "<link" not in text
    assert "tier=training" in text


@pytest.mark.parametrize("role", ["inference", "training"])
def test_the_demos_classes_are_those_of_the_repository(role: str) -> None:
    """What the demo shows is what a cluster would get."""
    assert parameters(CLASSES, f"sluice-{role}")["tier"] == role


def test_a_class_that_is_not_there_is_named(tmp_path: Path) -> None:
    """And what to look at."""
    with pytest.raises(NotFound, match="sluice-training"):
        parameters(tmp_path, "sluice-training")
