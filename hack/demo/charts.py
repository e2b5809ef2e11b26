"""The report's charts, by plotly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hack.demo.plan import DISK_MIB, INFERENCE_IOPS, MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hack.demo.figures import Measured

COLORS = {"alone": "#64748b", "unlimited": "#c2412d", "limited": "#0f7b6c", "live": "#2563b0"}
TRAINING = "#b98a2f"
INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
GAP = 2
"""Seconds of nothing between two phases."""


def timeline(found: Sequence[Measured], seconds: int) -> go.Figure:
    """Return inference's p99 and training's rate over time, one below the other."""
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.13,
        row_heights=[0.58, 0.42],
        subplot_titles=("Inference: p99 latency of each second, ms (log scale)", "Training: MiB/s, and its limit"),
    )
    for number, each in enumerate(found):
        begin = number * (seconds + GAP)
        _phase(figure, each, begin, seconds)
        _training(figure, each, begin, seconds)
    highest = max((point.value for each in found for point in each.p99s), default=1000)
    figure.update_yaxes(type="log", tickvals=TICKS, ticktext=[f"{tick:,}" for tick in TICKS], row=1, col=1)
    figure.update_yaxes(range=[-0.1, math.log10(max(highest, 50) * 9)], row=1, col=1)
    figure.update_yaxes(range=[0, DISK_MIB * 1.25], dtick=10, row=2, col=1)
    figure.update_xaxes(title_text="seconds", dtick=10, row=2, col=1)
    return _styled(figure, 560)


def _phase(figure: go.Figure, each: Measured, begin: int, seconds: int) -> None:
    color = COLORS[each.key]
    for row in (1, 2):
        figure.add_vrect(x0=begin, x1=begin + seconds, fillcolor=color, opacity=0.06, line_width=0, row=row, col=1)
    figure.add_trace(
        go.Scatter(
            x=[begin + point.at for point in each.p99s],
            y=[point.value for point in each.p99s],
            mode="lines+markers",
            line={"color": color, "width": 2.5},
            marker={"size": 5},
            name=each.title,
            hovertemplate="%{y:.1f} ms at %{x:.0f} s<extra>" + each.title + "</extra>",
        ),
        row=1,
        col=1,
    )
    figure.add_annotation(
        x=begin + seconds / 2,
        y=1.0,
        yref="y domain",
        yanchor="top",
        text=f"<b>{each.title}</b><br>p99 {each.inference.p99:,.0f} ms, {each.inference.iops:.0f} IOPS",
        showarrow=False,
        font={"color": color, "size": 13},
        row=1,
        col=1,
    )


def _training(figure: go.Figure, each: Measured, begin: int, seconds: int) -> None:
    if not each.rates:
        figure.add_annotation(
            x=begin + seconds / 2,
            y=DISK_MIB / 2,
            text="not running",
            showarrow=False,
            font={"color": FAINT},
            row=2,
            col=1,
        )
        return
    figure.add_trace(
        go.Bar(
            x=[begin + point.at for point in each.rates],
            y=[point.value for point in each.rates],
            width=0.8,
            marker={"color": TRAINING},
            name="training",
            hovertemplate="%{y:.1f} MiB/s at %{x:.0f} s<extra>training</extra>",
        ),
        row=2,
        col=1,
    )
    for limit in _limits(each, seconds):
        _limit_line(figure, begin, limit)


def _limits(each: Measured, seconds: int) -> list[tuple[float, float, float]]:
    """Return begin, end and MiB/s of each limit that the kernel showed in a phase."""
    cut = each.change if each.change is not None else float(seconds)
    found = []
    for side, begin, end in (("limits", 0.0, cut), ("limits_after", cut, float(seconds))):
        applied = each.raw[side]["training"]["applied"]
        if begin < end and applied and applied["wbps"]:
            found.append((begin, end, applied["wbps"] / MIB))
    return found


def _limit_line(figure: go.Figure, offset: int, limit: tuple[float, float, float]) -> None:
    begin, end, mib = limit
    figure.add_shape(
        type="line",
        x0=offset + begin,
        x1=offset + end,
        y0=mib,
        y1=mib,
        line={"color": INK, "width": 2, "dash": "dot"},
        row=2,
        col=1,
    )
    text = f"limit {mib:g}"
    figure.add_annotation(
        x=offset + (begin + end) / 2,
        y=mib + 5,
        text=text,
        showarrow=False,
        font={"color": INK, "size": 12},
        row=2,
        col=1,
    )


def bars(found: Sequence[Measured]) -> go.Figure:
    """Return p50, p95 and p99 by phase."""
    figure = go.Figure()
    for each in found:
        values = (each.inference.p50, each.inference.p95, each.inference.p99)
        figure.add_trace(
            go.Bar(
                x=["p50", "p95", "p99"],
                y=values,
                name=each.title,
                marker={"color": COLORS[each.key]},
                text=[f"{value:,.0f}" if value >= 10 else f"{value:.1f}" for value in values],  # noqa: PLR2004
                textposition="outside",
                hovertemplate="%{y:.1f} ms<extra>" + each.title + "</extra>",
            )
        )
    highest = max(each.inference.p99 for each in found)
    figure.update_yaxes(
        title_text="ms (log scale)",
        type="log",
        range=[-0.5, math.log10(highest * 3)],
        tickvals=TICKS,
        ticktext=[f"{tick:,}" for tick in TICKS],
    )
    _styled(figure, 340)
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.2, "x": 0}, bargap=0.25)
    figure.update_xaxes(showgrid=False)
    return figure


def shares(found: Sequence[Measured]) -> go.Figure:
    """Return how much of what inference asked for it got, by phase."""
    figure = go.Figure(
        go.Bar(
            x=[_broken(each.title) for each in found],
            y=[each.inference.iops for each in found],
            marker={"color": [COLORS[each.key] for each in found]},
            text=[f"{each.inference.iops:.0f}" for each in found],
            textposition="outside",
            hovertemplate="%{y:.0f} IOPS<extra>%{x}</extra>",
        )
    )
    asked = f"asked for: {INFERENCE_IOPS}"
    figure.add_hline(y=INFERENCE_IOPS, line={"color": INK, "width": 1.5, "dash": "dot"})
    figure.add_annotation(x=1, xref="paper", y=INFERENCE_IOPS * 1.17, xanchor="right", text=asked, showarrow=False)
    figure.update_yaxes(title_text="IOPS", range=[0, INFERENCE_IOPS * 1.3])
    _styled(figure, 340)
    figure.update_layout(bargap=0.45)
    figure.update_xaxes(tickangle=0, showgrid=False)
    return figure


def _broken(title: str) -> str:
    """Return a phase's title in lines short enough to stand below a bar."""
    return "<br>".join(title.replace("Both, ", "Both,|").replace("Sluice's ", "Sluice's|").replace(" ", "|").split("|"))


def _styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        height=height,
        template="plotly_white",
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 60, "r": 20, "t": 40, "b": 45},
        paper_bgcolor="white",
        plot_bgcolor="white",
        showlegend=False,
        hoverlabel={"font": {"family": FONT}},
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    for note in figure.layout.annotations[:2] if figure.layout.annotations else ():
        if note.xanchor == "center" and note.yref == "paper":
            note.update(x=0, xanchor="left", font={"size": 14, "color": INK})
    return figure
