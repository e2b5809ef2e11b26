"""The report: one HTML file with everything in it, to be read in ten seconds and checked in ten minutes."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from hack.demo import charts
from hack.demo.plan import DISK_IOPS, DISK_MIB, SETTLE_SECONDS, TRAINING_LATER, TRAINING_LIMIT, TRAINING_SHARE
from hack.demo.rows import training_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import plotly.graph_objects as go

    from hack.demo.figures import Measured
    from hack.demo.plan import Plan

SETUP = (
    f"A VM with a virtual disk that QEMU holds to {DISK_IOPS:,} IOPS and {DISK_MIB} MiB/s, {{pool}}, "
    "<code>sluice serve</code> on that; both volumes created, staged, published and modified over the "
    "CSI socket only. Load: fio, in one cgroup a volume under the limited ancestor; they stand in for pods."
)
POOLS = {"lvm": "a thin pool of LVM on it", "loop": "XFS on it, with image files"}
BESIDE = (
    f"Beside its class, training gets <code>writeBPS={TRAINING_LIMIT}</code>, later <code>{TRAINING_LATER}</code>, as "
    "a VolumeAttributesClass would: the tier's own ceilings are for disks of GiB/s, this one is small, and the demo "
    f"takes {TRAINING_SHARE} of it. Without limits both volumes are in the tier <code>standard</code>."
)
FILLED = "Files were written once before, so that no measured write allocates."
LATENCIES = (
    "Latencies are fio's, from submission to completion, of every single I/O. An emulated CPU adds milliseconds of "
    "its own, more on a busy machine: compare the phases with each other, not with your disks."
)
CLEARLY = 3
"""Times by which one p99 must be below another before the headline calls it protection."""

STYLE = """
body { margin: 0; background: #f5f7fa; color: #1f2933; line-height: 1.5;
  font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 8px; }
h2 { font-size: 19px; margin: 0 0 4px; }
p { margin: 0 0 12px; max-width: 85ch; }
.lead { font-size: 17px; color: #3e4c59; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 16px; margin: 20px 0; }
.tile { background: white; border-radius: 8px; padding: 14px 18px; border-top: 5px solid; }
.tile b { display: block; font-size: 30px; line-height: 1.2; font-weight: 650; }
.tile span { color: #52606d; font-size: 14px; }
.tile .name { color: #1f2933; font-weight: 600; font-size: 15px; }
section { background: white; border-radius: 8px; padding: 20px 24px; margin: 16px 0; }
.two { display: grid; grid-template-columns: 3fr 2fr; gap: 16px; }
.two section { margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: right; color: #52606d; font-weight: 600; padding: 6px 10px; border-bottom: 2px solid #cbd2d9; }
td { text-align: right; padding: 6px 10px; border-bottom: 1px solid #e4e7eb; }
th:first-child, td:first-child { text-align: left; }
.note { color: #52606d; font-size: 14px; }
code { background: #f0f2f5; border-radius: 4px; padding: 1px 5px; font-size: 13px; }
li { margin-bottom: 4px; }
@media (max-width: 800px) { .tiles, .two { grid-template-columns: 1fr 1fr; } .two { display: block; } }
"""


def write(
    path: Path, wanted: Plan, found: Sequence[Measured], facts: Mapping[str, object], story: Sequence[str]
) -> None:
    """Write the report. `story` says what volumes take, and how long copies do."""
    by_key = {each.key: each for each in found}
    title = headline(by_key)
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="lead">{_lead(wanted)}</p>',
        _tiles(found),
        f"<section><h2>{html.escape(_timeline_title(by_key))}</h2>",
        _chart(charts.timeline(found, wanted.seconds), first=True),
        "</section>",
        _bars(by_key, found),
        _table(found),
        _story(story),
        _honest(wanted),
        _method(wanted, facts),
    ]
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{html.escape(title)}</title>"
    text = f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body><main>"
    path.write_text(text + "\n".join(body) + "</main></body></html>\n")


def headline(by_key: Mapping[str, Measured]) -> str:
    """Return what was found, in one sentence; it claims protection only where the figures show it."""
    bare, held = by_key["unlimited"].inference.p99, by_key["limited"].inference.p99
    if held * CLEARLY < bare:
        return f"Beside training, inference waits {_ms(held)} at p99 with Sluice's limits, {_ms(bare)} without"
    return f"Beside this training, limits left inference's p99 at {_ms(held)} ({_ms(bare)} without)"


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"  # noqa: PLR2004 - one digit says enough above


def _lead(wanted: Plan) -> str:
    return (
        f"One disk of {DISK_IOPS:,} IOPS and {DISK_MIB} MiB/s serves two volumes. Inference reads 4 KiB at random, "
        f"{wanted.inference_iops} times a second; training writes checkpoints as fast as it may"
        f"{' through the page cache' if wanted.buffered else ''}. Sluice holds training's volume to a ceiling."
    )


def _tiles(found: Sequence[Measured]) -> str:
    tiles = []
    for each in found:
        color = charts.COLORS[each.key]
        training = f"training {each.training:.0f} MiB/s" if each.training is not None else "no training"
        if each.windows:
            training = "training " + " then ".join(f"{rate:.0f}" for _, rate in each.windows) + " MiB/s"
        tiles.append(
            f'<div class="tile" style="border-color:{color}"><span class="name">{html.escape(each.title)}</span>'
            f'<b style="color:{color}">{_ms(each.inference.p99)}</b>'
            f"<span>inference p99<br>{each.inference.iops:.0f} IOPS, {training}</span></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _timeline_title(by_key: Mapping[str, Measured]) -> str:
    live = by_key["live"]
    if not live.windows:
        return "What happened, second by second"
    took = live.raw["changed"][0]["took"]
    before, after = (limit for limit, _ in live.windows)
    return f"Second by second; under load, a limit of {before} became one of {after} in {took:.1f} s"


def _bars(by_key: Mapping[str, Measured], found: Sequence[Measured]) -> str:
    alone, bare, held = (by_key[key].inference for key in ("alone", "unlimited", "limited"))
    title = f"p99: {_ms(alone.p99)} alone, {_ms(bare.p99)} without limits, {_ms(held.p99)} with them"
    got = f"Inference got {bare.iops:.0f} IOPS without limits, {held.iops:.0f} with them"
    return (
        f'<div class="two"><section><h2>{title}</h2>{_chart(charts.bars(found))}</section>'
        f"<section><h2>{got}</h2>{_chart(charts.shares(found))}</section></div>"
    )


def _table(found: Sequence[Measured]) -> str:
    rows = []
    for each in found:
        got = each.inference
        cells = [html.escape(each.title), f"{got.iops:.0f}", *(f"{value:.1f}" for value in (got.p50, got.p95, got.p99))]
        for limits in training_rows(each):
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in (*cells, *limits)) + "</tr>")
            cells = [""] * len(cells)
    names = ("phase", "IOPS", "p50 ms", "p95 ms", "p99 ms", "limit wanted", "applied (io.max)", "measured")
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        "<section><h2>All figures</h2>"
        "<p class=note>Left: inference. Right: training's limit as the class asks for it, as the kernel shows it in "
        "<code>io.max</code>, and what fio wrote. In the last phase the limit is changed while training runs.</p>"
        f"<table><tr>{head}</tr>{''.join(rows)}</table></section>"
    )


def _story(story: Sequence[str]) -> str:
    said = "".join(f"<p>{html.escape(line)}</p>" for line in story)
    return f"<section><h2>Thin, and copied in no time</h2>{said}</section>"


def _honest(wanted: Plan) -> str:
    said = (
        "This run was the hard case: checkpoints through the page cache. Their write-back comes in bursts, which a "
        "ceiling alone does not smooth. Training's rates are what fio handed to the page cache."
        if wanted.buffered
        else "Training here writes with direct I/O. Against checkpoints through the page cache a ceiling alone "
        "protects far less: try <code>sluice demo --buffered</code>."
    )
    return (
        "<section><h2>What this does not show</h2>"
        f"<p>This release sets ceilings (<code>io.max</code>): what training may take at most. {said} Floors, which "
        "reserve a minimum for inference whatever training does, come with a later release. A ceiling has its price, "
        "too: training stays below it even while inference leaves the disk idle.</p></section>"
    )


def _method(wanted: Plan, facts: Mapping[str, object]) -> str:
    load = (
        "1 MiB writes through the page cache, an fsync every 64 MiB"
        if wanted.buffered
        else "1 MiB sequential direct writes, 16 in flight"
    )
    classes = [f"StorageClass sluice-{role}: <code>{_words(given)}</code>" for role, given in wanted.classes.items()]
    points = [
        *classes,
        BESIDE,
        SETUP.format(pool=POOLS[wanted.backend]),
        f"Inference: {wanted.inference_iops} reads of 4 KiB a second, random, direct, Poisson arrivals.",
        f"Training: {load}. {FILLED}",
        f"{wanted.seconds} s a phase; the first {SETTLE_SECONDS} s are drawn but not counted. {LATENCIES}",
        f"Machine: {html.escape(_machine(facts))}",
    ]
    return "<section><h2>How it was run</h2><ul><li>" + "</li><li>".join(points) + "</li></ul></section>"


def _machine(facts: Mapping[str, object]) -> str:
    return (
        f"Linux {facts['kernel']}, {facts['fio']}, {facts['cpus']} CPUs in the VM ({facts['accelerator']}) on "
        f"{facts['host_cpu']}, {facts['host_cpus']} CPUs, Linux {facts['host_kernel']}; it took {facts['seconds']} s"
    )


def _words(given: Mapping[str, str]) -> str:
    return html.escape(", ".join(f"{key}={value}" for key, value in given.items()) or "no parameters")


def _chart(figure: go.Figure, *, first: bool = False) -> str:
    # The library goes in once, with the first chart: the file must need nothing from outside.
    config = {"displayModeBar": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=first, config=config))
