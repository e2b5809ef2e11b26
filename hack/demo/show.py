"""The demo from end to end: prepare, run, reckon, print, write the report."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from csi_driver.errors import Invalid, Unready
from hack.clock import Clock
from hack.demo import machine, plan
from hack.demo.classes import parameters
from hack.demo.figures import measured
from hack.demo.rows import told, training_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hack.demo.figures import Measured
    from hack.demo.machine import Told


class Teller(Clock):
    """Tell what the demo's parts say of themselves."""

    def __call__(self, told: Told) -> None:
        """Print what was told."""
        about = f" (about {told.seconds:.0f} s)" if told.seconds else ""
        self.step(f"{told.text}{about}", "bold" if told.step else "dim")
        if told.step:
            self.now(told.text)


def main(checkout: Path, classes: Path, out: Path, *, backend: str, buffered: bool) -> int:
    """Run the demo and print where its report is. Raises StorageError."""
    if backend not in plan.BACKENDS:
        raise Invalid(f"--backend: {backend!r} is none of {', '.join(plan.BACKENDS)}")
    console = Console(width=None if os.isatty(1) else 140)
    began = time.monotonic()
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    wanted = plan.Plan(
        classes={role: parameters(classes, f"sluice-{role}") for role in ("inference", "training")},
        phases=plan.phases(),
        backend=backend,
        buffered=buffered,
    )
    file = out / "plan.json"
    file.write_text(json.dumps(wanted.as_json(), indent=2))
    _introduce(console, wanted)
    raw = out / "raw"
    with Teller(console) as tell:
        accelerator = machine.run(checkout, file, raw, tell)
        tell(machine.Told("reckoning, drawing the report", 5, step=True))
        inside = json.loads((raw / "inside.json").read_text())
        facts = {**inside["machine"], **_here(accelerator), "seconds": round(time.monotonic() - began)}
        found = [measured(phase, raw, wanted.seconds, plan.SETTLE_SECONDS) for phase in inside["phases"]]
        (out / "result.json").write_text(json.dumps(_result(wanted, found, facts), indent=2))
        story = told(inside["story"])
        report = _report(out / "report.html", wanted, found, facts, story)
    print_tables(console, found)
    for line in ("", *story):
        console.print(line, highlight=False, markup=False)
    console.print(f"\nReport: [bold]{report}[/bold]   figures: {out / 'result.json'}", highlight=False)
    console.print(f"It took {time.monotonic() - began:.0f} s.", highlight=False)
    return 0


def _introduce(console: Console, wanted: plan.Plan) -> None:
    console.print(
        f"A disk of {plan.DISK_IOPS:,} IOPS and {plan.DISK_MIB} MiB/s. Inference reads 4 KiB at random,"
        f" {wanted.inference_iops} times a second; training writes checkpoints as fast as it may"
        f" ({'through the page cache' if wanted.buffered else 'direct, 16 x 1 MiB in flight'}).",
        highlight=False,
    )
    for role, given in wanted.classes.items():
        console.print(f"  StorageClass sluice-{role}: {_words(given)}", highlight=False, markup=False)
    console.print(
        f"  pool: {'a thin pool of LVM' if wanted.backend == 'lvm' else 'image files on XFS'}; training's volume: "
        f"{wanted.sizes['training'] >> 30} GiB, for three checkpoints of 70 billion parameters (`sluice size`)",
        highlight=False,
        markup=False,
    )
    console.print(
        f"  with limits, as a VolumeAttributesClass would, for a disk so small: training writeBPS={plan.TRAINING_LIMIT}"
        f" ({plan.TRAINING_SHARE} of it), later {plan.TRAINING_LATER}",
        highlight=False,
        markup=False,
    )
    console.print()


def _words(given: object) -> str:
    return ", ".join(f"{key}={value}" for key, value in dict(given).items()) or "no parameters"  # type: ignore[call-overload]


def _here(accelerator: str) -> dict[str, object]:
    model = "unknown"
    with contextlib.suppress(OSError, IndexError), open("/proc/cpuinfo", encoding="utf-8") as info:  # noqa: PTH123
        model = next(line.split(": ", 1)[1].strip() for line in info if line.startswith("model name"))
    return {
        "accelerator": accelerator,
        "host_cpu": model,
        "host_cpus": os.cpu_count(),
        "host_kernel": platform.release(),
    }


def _result(wanted: plan.Plan, found: Sequence[Measured], facts: dict[str, object]) -> dict[str, object]:
    return {
        "disk": {"iops": plan.DISK_IOPS, "mib_per_s": plan.DISK_MIB},
        "machine": facts,
        "plan": wanted.as_json(),
        "phases": [dataclasses.asdict(each) for each in found],
    }


def _report(
    path: Path, wanted: plan.Plan, found: Sequence[Measured], facts: dict[str, object], story: Sequence[str]
) -> Path:
    try:
        from hack.demo import report  # noqa: PLC0415 - plotly is needed from here on only
    except ImportError as error:
        raise Unready(f"the report needs {error.name}: run `make venv`, or pip install 'sluice[demo]'") from error
    report.write(path, wanted, found, facts, story)
    return path


def print_tables(console: Console, found: Sequence[Measured]) -> None:
    """Print inference's figures and training's limits by phase."""
    table = Table(title="\nWhat inference got, and what training was held to", title_justify="left", title_style="bold")
    for column in ("phase", "IOPS", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for column in ("training limit: wanted", "applied (io.max)", "measured"):
        table.add_column(column, justify="right")
    for each in found:
        got = each.inference
        cells = [each.title, f"{got.iops:.0f}", *(f"{value:.1f}" for value in (got.p50, got.p95, got.p99))]
        for limits in training_rows(each):
            table.add_row(*cells, *limits)
            cells = [""] * len(cells)
    console.print(table)
