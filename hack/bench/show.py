"""Tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from hack.bench.targets import targets

if TYPE_CHECKING:
    from rich.console import Console

PERCENTILES = ("p50", "p95", "p99")


def print_result(console: Console, result: dict[str, Any]) -> None:
    """Print everything that was measured."""
    if calls := result.get("calls"):
        console.print(_calls("One caller: milliseconds", calls))
    for callers, found in result.get("parallel", {}).items():
        console.print(_calls(f"{callers} callers: milliseconds", found))
    if others := result.get("others"):
        console.print(_calls("Other calls, one caller: milliseconds", others))
    if result.keys() & {"creates", "cost", "start"}:
        console.print(_rest(result))
    if growth := result.get("growth"):
        console.print(_growth(growth))
    if failures := _failures(result):
        console.print(f"FAILURES: {failures}", style="bold red", markup=False)


def print_targets(console: Console, result: dict[str, Any]) -> bool:
    """Print wanted against measured; return whether all of it is met."""
    found = targets(result)
    shown = table("Targets", "what", "wanted", "measured", "met", "that is")
    for target in found:
        sign = ">=" if target.at_least else "<="
        style = "green" if target.met else "bold red"
        words = (f"{sign} {number(target.wanted)} {target.unit}", f"{number(target.measured)} {target.unit}")
        shown.add_row(target.name, *words, f"[{style}]{'yes' if target.met else 'NO'}[/]", target.why)
    if found:
        console.print(shown)
    return all(target.met for target in found)


def print_beside(console: Console, one: dict[str, Any], other: dict[str, Any]) -> None:
    """Print two results side by side: medians of the quietest rounds."""
    names = (one["machine"]["driver"], other["machine"]["driver"])
    if names[0] == names[1]:
        names = (f"{names[0]} now", f"{names[1]} before")
    shown = table("Side by side", "what", *names, "ratio")
    mine, others = dict(flat(one)), dict(flat(other))
    for name, value in mine.items():
        if name in others:
            ratio = f"{value / others[name]:.2f}" if others[name] else ""
            shown.add_row(name, number(value), number(others[name]), ratio)
    console.print(shown)


def flat(result: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the figures worth comparing, by name."""
    found: list[tuple[str, float]] = []
    sections = {"1 caller": result.get("calls", {}), "others": result.get("others", {})}
    sections |= {f"{callers} callers": value for callers, value in result.get("parallel", {}).items()}
    for section, kinds in sections.items():
        for kind in ("ours", "raw", "null"):
            ms = kinds.get(kind, {}).get("ms", {})
            shown = "" if kind == "ours" else f" ({kind})"
            found += [(f"{section}: {name}{shown}, ms", of["quietest"]) for name, of in ms.items()]
        if best := max(kinds.get("ours", {}).get("lives_per_second", [0])):
            found.append((f"{section}: whole lives/s", best))
    if creates := result.get("creates"):
        found.append(("8 callers: CreateVolume/s", max(creates["created_per_second"])))
    if cost := result.get("cost"):
        found.append(("processor seconds of 100 lives", cost["cpu_seconds_per_100_lives"]))
    if start := result.get("start"):
        found += [("exec to first Probe, s", start["best_seconds"]), ("resident idle, MiB", start["resident_idle_mib"])]
    for level in result.get("growth", []):
        at = f"at {level['volumes']:,}"
        found.append((f"{at}: CreateVolume, ms", level["create_ms"]["quietest"]))
        found += [(f"{at}: {name[:-3]}, ms", value) for name, value in level.items() if name.endswith(" ms")]
        found.append((f"{at}: resident, MiB", level["resident_mib"]))
    return [(name, float(value)) for name, value in found if value is not None]


def _calls(title: str, kinds: dict[str, Any]) -> Table:
    columns = [f"{kind} {percent}" for kind in kinds for percent in ("quietest", *PERCENTILES)]
    shown = table(f"{title}; quietest: p50 of the quietest round", "", *columns)
    for name in kinds["ours"]["ms"]:
        cells = []
        for kind in kinds.values():
            of = kind["ms"].get(name, {})
            cells += [number(of.get(key)) for key in ("quietest", *PERCENTILES)]
        shown.add_row(name, *cells)
    rates = [f"{max(kind['lives_per_second'] or [0]):.0f}/s" for kind in kinds.values()]
    if any(kind["lives_per_second"][0] for kind in kinds.values()):
        shown.add_row("best rate", *(cell for rate in rates for cell in (rate, "", "", "")))
    return shown


def _rest(result: dict[str, Any]) -> Table:
    shown = table("Rates, cost, size", "", "")
    if creates := result.get("creates"):
        for verb in ("created", "deleted"):
            shown.add_row(
                f"8 callers: {verb} a second", " ".join(f"{rate:.0f}" for rate in creates[f"{verb}_per_second"])
            )
    if cost := result.get("cost"):
        programs = ", ".join(f"{name} {count:g}" for name, count in cost["programs_per_life"].items()) or "none"
        shown.add_row("processor seconds of 100 lives", number(cost["cpu_seconds_per_100_lives"]))
        shown.add_row("programs in a life", programs if cost["programs_known"] else "the driver doesn't say")
    if start := result.get("start"):
        words = f"{start['best_seconds']:.3f}, median {start['median_seconds']:.3f}"
        shown.add_row("exec to first Probe, seconds: best", words)
        shown.add_row("resident idle, MiB", number(start["resident_idle_mib"]))
    return shown


def _growth(levels: list[dict[str, Any]]) -> Table:
    shown = table("Growth: milliseconds, MiB", "", *(f"{level['volumes']:,} volumes" for level in levels))
    shown.add_row("CreateVolume, quietest block", *(number(level["create_ms"]["quietest"]) for level in levels))
    if levels[0]["empty_create_ms"]:
        cells = (number(level["empty_create_ms"]["quietest"]) for level in levels)
        shown.add_row("the same, of an empty server", *cells)
    shown.add_row("CreateVolume p99", *(number(level["create_ms"]["p99"]) for level in levels))
    for name in [name for name in levels[0] if name.endswith(" ms") or name.startswith("resident")]:
        shown.add_row(name, *(number(level[name]) for level in levels))
    if started := levels[-1].get("start_seconds"):
        words = f"{started} s, {levels[-1]['resident_started_mib']} MiB"
        shown.add_row("started again: exec to Probe, resident", *[""] * (len(levels) - 1), words)
    shown.add_row("filled, volumes a second", *(number(level["filled_per_second"]) for level in levels))
    return shown


def _failures(result: dict[str, Any]) -> dict[str, int]:
    """Return every failure that any part met."""
    found: dict[str, int] = {}

    def collect(value: object) -> None:
        if isinstance(value, dict):
            found.update(value.get("failures") or {})
            for inner in value.values():
                collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)

    collect(result)
    return found


def table(title: str, first: str, *columns: str) -> Table:
    """Return an empty table."""
    empty = Table(title=f"\n{title}", title_justify="left", title_style="bold")
    empty.add_column(first)
    for column in columns:
        empty.add_column(column, justify="left" if column in {"that is", "met"} else "right")
    return empty


def number(value: float | None) -> str:
    """Return three digits that count."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004
