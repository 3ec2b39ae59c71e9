"""A run on one time axis -> a figure [pure]. What is drawn was computed elsewhere; here are only ink and places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Final, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from reports import wording
from reports.bins import FloatArray
from reports.events import Mark
from reports.ink import LEAST_MS, WIDTH_IN, legend, literal, log_scale, percent_axis, plain, say, steps, title
from reports.limits import Limit, Limits
from reports.palette import SERIES_COLOURS, STATUS_COLOURS, light
from reports.series import PhaseSpan, Timeline

PANEL_IN: Final = 1.25
MOST_LANES: Final = 4
MOST_TICKS: Final = 12
TICK_STEPS_S: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)
_LEFT, _RIGHT = 0.062, 0.825
_LETTER_IN: Final = 0.067
_INNER_IN: Final = WIDTH_IN * (_RIGHT - _LEFT)

_Draw: TypeAlias = Callable[[Axes, Timeline], None]


def timeline_figure(timeline: Timeline, limits: Limits) -> Figure:
    """All that changed during the run, panel above panel on one time axis."""
    panels = _panels(timeline, limits)
    lanes = _event_lanes(timeline)
    heights = [0.3 + 0.17 * (max(lanes.values(), default=-1) + 1), *(PANEL_IN for _ in panels)]
    # Margins and gaps are given in inches, so that more panels make a longer figure, not finer ones.
    height_in = sum(heights) + 0.42 * len(panels) + 0.55
    figure = Figure(figsize=(WIDTH_IN, height_in), facecolor=light("paper"))
    axes: Sequence[Axes] = figure.subplots(
        len(heights), 1, sharex=True, height_ratios=heights, gridspec_kw={"hspace": 0.42 / float(np.mean(heights))}
    )
    figure.subplots_adjust(left=_LEFT, right=_RIGHT, top=1 - 0.1 / height_in, bottom=0.45 / height_in)
    _strip(axes[0], timeline, lanes)
    for axis, draw in zip(axes[1:], panels, strict=True):
        plain(axis)
        _shade(axis, timeline)
        draw(axis, timeline)
    axes[-1].tick_params(labelbottom=True)
    axes[-1].set_xlabel("time since the run's start", color=light("muted"), fontsize=9)
    axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.seconds(value) if value else "0"))
    axes[-1].xaxis.set_major_locator(FixedLocator(_time_ticks(timeline.end_s)))
    axes[-1].set_xlim(0, timeline.end_s)
    return figure


def _panels(timeline: Timeline, limits: Limits) -> list[_Draw]:
    panels: list[_Draw] = [_rates, partial(_latency, limits=limits.latency), _failures, _in_flight]
    if timeline.answers_per_s:
        panels.append(_servers)
    if _seen(timeline.lag_worst_ms):
        panels.append(partial(_lag, limit=limits.lag))
    if _seen(timeline.client_cpu_ratio):
        panels.append(_client_cpu)
    if timeline.gpu_busy_ratio:
        panels.append(_gpu)
    return panels


def _rates(axis: Axes, shown: Timeline) -> None:
    title(axis, "Requests per second")
    axis.stairs(shown.served_per_s, shown.edges_s, fill=True, color=light("green"), alpha=0.35, label="served well")
    axis.stairs(shown.served_per_s, shown.edges_s, color=light("green"), baseline=None, linewidth=1.0)
    axis.stairs(
        shown.offered_per_s, shown.edges_s, color=light("ink"), baseline=None, linewidth=1.1, label="offered (due)"
    )
    axis.set_ylim(bottom=0)
    legend(axis)


def _latency(axis: Axes, shown: Timeline, limits: Sequence[Limit]) -> None:
    title(axis, "Response time, counted from when due (log)")
    styles = {"p50": ("sky", 1.0), "p95": ("blue", 1.4), "p99": ("purple", 1.0)}
    for name, (colour, width) in styles.items():
        steps(axis, shown.edges_s, np.maximum(shown.response_ms[name], LEAST_MS), colour, name, width)
    lost = np.isinf(shown.response_ms["p95"])
    if lost.any():
        middles = (shown.edges_s[:-1] + shown.edges_s[1:]) / 2
        axis.plot(
            middles[lost], np.full(int(lost.sum()), 0.95), "^", transform=axis.get_xaxis_transform(), markersize=4,
            color=light("vermilion"), linestyle="none", label="p95 never:\n> 5 % failed",
        )  # fmt: skip
    for limit in limits:
        _limit(axis, limit)
    log_scale(axis, "y", [*shown.response_ms.values(), [limit.ms for limit in limits]])
    legend(axis)


def _failures(axis: Axes, shown: Timeline) -> None:
    title(axis, "Failures per second, by class")
    if not shown.failed_per_s:
        say(axis, "no failures")
        axis.set_yticks([])
        return
    named = {wording.STATUS_WORDS[status]: rates for status, rates in shown.failed_per_s.items()}
    _stack(axis, shown.edges_s, named, [STATUS_COLOURS[status] for status in shown.failed_per_s])


def _in_flight(axis: Axes, shown: Timeline) -> None:
    title(axis, "Under way at once (most in each step)")
    steps(axis, shown.edges_s, shown.in_flight, "blue", "in flight", 1.2)
    if _seen(shown.queued):
        steps(axis, shown.edges_s, shown.queued, "orange", "in a server's\nqueues", 1.2)
    axis.set_ylim(bottom=0)
    legend(axis)


def _servers(axis: Axes, shown: Timeline) -> None:
    title(axis, "Answers per second, by server")
    _stack(axis, shown.edges_s, shown.answers_per_s, SERIES_COLOURS)


def _lag(axis: Axes, shown: Timeline, limit: Limit) -> None:
    title(axis, "Generator lag: how late we sent (log)")
    steps(axis, shown.edges_s, np.maximum(shown.lag_worst_ms, LEAST_MS), "grey", "worst", 0.9)
    steps(axis, shown.edges_s, np.maximum(shown.lag_p99_ms, LEAST_MS), "blue", "p99", 1.3)
    _limit(axis, limit)
    log_scale(axis, "y", [shown.lag_worst_ms, shown.lag_p99_ms, [limit.ms]])
    legend(axis)


def _client_cpu(axis: Axes, shown: Timeline) -> None:
    title(axis, "CPU of the busiest load process")
    steps(axis, shown.edges_s, shown.client_cpu_ratio, "blue", "1 core = 100 %", 1.2)
    percent_axis(axis, float(np.nanmax(shown.client_cpu_ratio)))
    legend(axis)


def _gpu(axis: Axes, shown: Timeline) -> None:
    title(axis, "GPU utilisation" + (", EMULATED DEVICE" if shown.gpu_emulated else ""))
    for (device, busy), colour in zip(shown.gpu_busy_ratio.items(), cycle(SERIES_COLOURS), strict=False):
        steps(axis, shown.edges_s, busy, colour, literal(wording.name(device)), 1.2)
    percent_axis(axis, 1.0)
    legend(axis)


def _strip(axis: Axes, shown: Timeline, lanes: Mapping[int, int]) -> None:
    """Names of the phases as a bar, and under it those of the events."""
    deepest = max(lanes.values(), default=-1) + 1
    axis.set_ylim(-0.17 * deepest - 0.02, 0.28)
    axis.axis("off")
    for place, phase in enumerate(_visible(shown)):
        end_s = min(phase.end_s, shown.end_s)
        colour = light("wash") if place % 2 else light("rule")
        axis.fill_between(
            [phase.start_s, end_s], 0.05, 0.28, facecolor=colour, edgecolor=light("grey"), linewidth=0,
            hatch="////" if phase.warm_up else None,
        )  # fmt: skip
        room = int((end_s - phase.start_s) / shown.end_s * _INNER_IN / _LETTER_IN)
        name = f"{phase.name} (warm-up)" if phase.warm_up and "warm" not in phase.name else phase.name
        if room >= 3:  # noqa: PLR2004 - fewer letters than this tell nothing
            axis.text(
                (phase.start_s + end_s) / 2, 0.165, literal(wording.shortened(name, room)), ha="center", va="center",
                fontsize=8.5, color=light("ink"),
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5} if phase.warm_up else None,
            )  # fmt: skip
    for place, lane in lanes.items():
        mark = shown.marks[place]
        right = mark.at_s > 0.8 * shown.end_s
        label = f"{_event_words(mark)} ▾" if right else f"▾ {_event_words(mark)}"
        axis.text(
            mark.at_s, -0.17 * (lane + 0.5), label, ha="right" if right else "left", va="center", fontsize=8,
            color=light("vermilion"),
        )  # fmt: skip


def _shade(axis: Axes, shown: Timeline) -> None:
    """Phases as ground, warm-up hatched, events as lines."""
    for place, phase in enumerate(_visible(shown)):
        if phase.warm_up:
            axis.axvspan(
                phase.start_s, min(phase.end_s, shown.end_s), facecolor="none", edgecolor=light("rule"), hatch="///",
                linewidth=0, zorder=0,
            )  # fmt: skip
        elif place % 2:
            axis.axvspan(phase.start_s, min(phase.end_s, shown.end_s), color=light("wash"), linewidth=0, zorder=0)
    for mark in shown.marks:
        axis.axvline(mark.at_s, color=light("vermilion"), linewidth=0.9, linestyle=(0, (3, 2)), zorder=3)


def _stack(axis: Axes, edges_s: FloatArray, named: Mapping[str, FloatArray], colours: Sequence[str]) -> None:
    below = np.zeros(edges_s.size - 1)
    for (name, rates), colour in zip(named.items(), colours, strict=False):
        top, label = below + rates, literal(wording.name(name))
        axis.stairs(top, edges_s, baseline=below, fill=True, color=light(colour), linewidth=0, label=label)
        below = top
    axis.set_ylim(bottom=0)
    legend(axis)


def _limit(axis: Axes, limit: Limit) -> None:
    axis.axhline(
        limit.ms, color=light("vermilion"), linewidth=1.1, linestyle=(0, (6, 3)),
        label=f"limit of {limit.percentile} {wording.milliseconds(limit.ms)}", zorder=2,
    )  # fmt: skip


def _visible(shown: Timeline) -> list[PhaseSpan]:
    return [phase for phase in shown.phases if phase.start_s < shown.end_s]


def _time_ticks(end_s: float) -> list[float]:
    """At most twelve places on the time axis, whole seconds, minutes or hours apart."""
    step = next((step for step in TICK_STEPS_S if end_s / step <= MOST_TICKS), end_s / MOST_TICKS)
    return [place * step for place in range(int(end_s / step) + 1)]


def _event_words(mark: Mark) -> str:
    return literal(wording.name(mark.event.replace("_", " ")))


def _event_lanes(shown: Timeline) -> dict[int, int]:
    """A lane for each event's label, so that no two labels lie on each other; events beyond the lanes go unlabelled."""
    free_from = [-1.0] * MOST_LANES
    lanes: dict[int, int] = {}
    for place, mark in enumerate(shown.marks):
        width_s = (len(_event_words(mark)) + 3) * _LETTER_IN / _INNER_IN * shown.end_s
        start_s = mark.at_s - width_s if mark.at_s > 0.8 * shown.end_s else mark.at_s
        lane = next((lane for lane, free in enumerate(free_from) if free <= start_s), None)
        if lane is not None:
            lanes[place] = lane
            free_from[lane] = start_s + width_s
    return lanes


def _seen(values: FloatArray) -> bool:
    return bool(np.isfinite(values).any())
