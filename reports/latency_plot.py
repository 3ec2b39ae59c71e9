"""Distributions of response times -> a figure [pure]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from reports import wording
from reports.ink import LEAST_MS, WIDTH_IN, log_scale, plain, say, title
from reports.limits import Limit
from reports.palette import KIND_COLOURS, light
from reports.tables import KindLatency, needed_for

FEW: Final = 30


def latency_figure(kinds: Sequence[KindLatency], limits: Sequence[Limit]) -> Figure:
    """The distribution of response times of each kind: which share was answered within a time."""
    columns = min(2, len(kinds))
    lines = -(-len(kinds) // columns)
    height_in = 2.7 * lines + 0.4
    figure = Figure(figsize=(WIDTH_IN if columns > 1 else 6.5, height_in), facecolor=light("paper"))
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.075, right=0.98, top=1 - 0.48 / height_in, bottom=0.5 / height_in,
        hspace=0.42, wspace=0.08,
    )  # fmt: skip
    for axis, kind in zip(grid.flat, kinds, strict=False):
        plain(axis)
        _distribution(axis, kind, limits)
    # Shared by all.
    log_scale(grid.flat[0], "x", [*(kind.curve_ms for kind in kinds), [limit.ms for limit in limits]])
    for axis in list(grid.flat)[len(kinds) :]:
        axis.set_visible(False)
    for axis in list(grid.flat)[len(kinds) - columns : len(kinds)]:
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("response time, counted from when it was due", color=light("muted"), fontsize=9)
    return figure


def _distribution(axis: Axes, kind: KindLatency, limits: Sequence[Limit]) -> None:
    colour = light(KIND_COLOURS.get(kind.kind, "muted"))
    share = f", {wording.percent(kind.ok / kind.scheduled)} answered well" if kind.ok < kind.scheduled else ""
    title(axis, f"{kind.kind}: {wording.count(kind.scheduled)} requests{share}", above_pt=17)
    axis.annotate(
        " · ".join(_quantile_words(kind)), (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points",
        fontsize=8.5, color=light("muted"), annotation_clip=False,
    )  # fmt: skip
    axis.set_ylim(0, 1.04)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.percent(value, 0)))
    if kind.ok == 0:
        say(axis, "nothing was answered well")
        return
    few = kind.ok < FEW
    axis.step(
        np.maximum(kind.curve_ms, LEAST_MS), kind.curve_ratio, where="post", color=colour, linewidth=1.6,
        marker="o" if few else None, markersize=3,
    )  # fmt: skip
    for place, limit in enumerate(limits):
        _upright_limit(axis, limit, 0.04 + 0.3 * place)
    for name, ratio in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
        value = kind.quantiles_ms[name]
        if value is not None and np.isfinite(value):
            axis.plot([value], [ratio], "o", color=colour, markersize=4.5, markeredgecolor=light("paper"), zorder=5)


def _upright_limit(axis: Axes, limit: Limit, height: float) -> None:
    axis.axvline(limit.ms, color=light("vermilion"), linewidth=1.1, linestyle=(0, (6, 3)), zorder=2)
    axis.annotate(
        f"limit of {limit.percentile} {wording.milliseconds(limit.ms)}", (limit.ms, height), (-4, 0),
        textcoords="offset points", color=light("vermilion"), fontsize=8, rotation=90, ha="right", va="bottom",
    )  # fmt: skip


def _quantile_words(kind: KindLatency) -> list[str]:
    needs = {"p50": needed_for(0.50), "p95": needed_for(0.95), "p99": needed_for(0.99)}
    return [
        f"{name} needs {needs[name]}" if value is None else f"{name} {wording.milliseconds(value)}"
        for name, value in kind.quantiles_ms.items()
    ] + [f"slowest {wording.milliseconds(kind.worst_ms)}"]
