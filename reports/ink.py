"""How axes look in every figure: rules, titles, ticks, legends, lines of steps."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports import wording
from reports.bins import FloatArray
from reports.palette import light

WIDTH_IN: Final = 11.0
LEAST_MS: Final = 0.01
SHORT_LOG_AXIS: Final = 200


def literal(text: str) -> str:
    """``text`` so that Matplotlib draws it as it stands: as no formula, and hidden from no legend."""
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    escaped = printable.replace("$", r"\$") or "(no name)"
    return f" {escaped}" if escaped.startswith("_") else escaped


@contextmanager
def any_letters() -> Iterator[None]:
    """Save figures in here: a letter that Matplotlib's font lacks is no matter, for on the page the reader's has it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing")
        yield


def steps(axis: Axes, edges_s: FloatArray, values: FloatArray, colour: str, label: str, width: float) -> None:
    """A line of steps with gaps where nothing, or nothing finite, is known."""
    finite = np.where(np.isfinite(values), values, np.nan)
    axis.stairs(finite, edges_s, baseline=None, color=light(colour), linewidth=width, label=label)


def log_scale(axis: Axes, along: Literal["x", "y"], shown_ms: Iterable[npt.ArrayLike]) -> None:
    """Room for all times that are known, and labels at 1, 10, 100 ms..., where that is too few at 2 and 5 of each."""
    known_ms = np.concatenate([np.asarray(times_ms, dtype=np.float64).ravel() for times_ms in shown_ms])
    known_ms = np.maximum(known_ms[np.isfinite(known_ms)], LEAST_MS)
    least_ms, most_ms = (float(known_ms.min()), float(known_ms.max())) if known_ms.size else (1.0, 1.0)
    least_ms, most_ms = least_ms / 1.5, most_ms * 2
    axis.set(**{f"{along}scale": "log", f"{along}lim": (least_ms, most_ms)})
    scale = axis.xaxis if along == "x" else axis.yaxis
    subs = (1.0, 2.0, 5.0) if most_ms / least_ms < SHORT_LOG_AXIS else (1.0,)
    scale.set_major_locator(LogLocator(subs=subs))
    scale.set_major_formatter(FuncFormatter(lambda value, _: wording.milliseconds(value)))
    scale.set_minor_formatter(NullFormatter())


def percent_axis(axis: Axes, greatest: float) -> None:
    axis.set_ylim(0, max(1.0, greatest) * 1.05)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.percent(value, 0)))


def plain(axis: Axes) -> None:
    axis.set_facecolor("none")
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(light("rule"))
    axis.tick_params(which="both", colors=light("muted"), labelsize=8, length=3, width=0.6)
    axis.tick_params(which="minor", length=1.5)
    axis.grid(axis="y", color=light("rule"), linewidth=0.6)
    axis.set_axisbelow(True)


def title(axis: Axes, text: str, above_pt: float = 4) -> None:
    axis.set_title(literal(text), loc="left", fontsize=9.5, color=light("ink"), fontweight="bold", pad=above_pt)


def legend(axis: Axes) -> None:
    axis.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.06), frameon=False, fontsize=8, labelcolor=light("ink"),
        handlelength=1.4, labelspacing=0.35, borderpad=0, reverse=True,
    )  # fmt: skip


def say(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=light("muted"), fontsize=9)
