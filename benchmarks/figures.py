"""What a benchmark found: figures with their spread and limits, shown as a table or kept as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

NOT_MEASURED: Final = "not measured"


@dataclass(frozen=True, slots=True)
class Limit:
    """What a figure has to meet: at most, or at least, ``bound``."""

    side: Literal["at most", "at least"]
    bound: float

    def met_by(self, value: float) -> bool:
        return value <= self.bound if self.side == "at most" else value >= self.bound


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. ``value`` is a median where there are ``quartiles``, and None when it could not be measured."""

    name: str
    value: float | None
    unit: str
    quartiles: tuple[float, float] | None = None
    limit: Limit | None = None
    note: str = ""

    @property
    def meets(self) -> bool | None:
        """None without a limit or without a value."""
        return None if self.limit is None or self.value is None else self.limit.met_by(self.value)


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark's figures, and what they mean to somebody who reads them for the first time."""

    name: str
    meaning: str
    figures: tuple[Figure, ...]

    def to_json(self) -> dict[str, Any]:
        figures = [asdict(figure) | {"meets": figure.meets} for figure in self.figures]
        return {"name": self.name, "meaning": self.meaning, "figures": figures}


def median_of(name: str, values: Sequence[float], unit: str, limit: Limit | None = None, note: str = "") -> Figure:
    """The median of several measurements of the same thing, with their quartiles."""
    if len(values) < 2:
        return Figure(name, values[0], unit, None, limit, note)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Figure(name, middle, unit, (low, high), limit, note)


def paired_ratio(
    name: str, ours: Sequence[float], theirs: Sequence[float], limit: Limit | None = None, note: str = ""
) -> Figure:
    """The median of the ratios of pairs: what disturbs the machine for longer than a pair cancels out."""
    return median_of(name, [our / their for our, their in zip(ours, theirs, strict=True)], "x", limit, note)


def not_measured(name: str, why: str) -> Figure:
    return Figure(name, None, "", note=why)


def show(result: Result, console: Console) -> None:
    table = Table(title=result.name, caption=result.meaning, title_justify="left", caption_justify="left")
    for heading in ("figure", "value", "quartiles", "limit", "met", "note"):
        table.add_column(heading, justify="right" if heading in {"value", "quartiles"} else "left")
    for figure in result.figures:
        table.add_row(figure.name, *_cells(figure), figure.note)
    console.print(table)
    console.print()


def _cells(figure: Figure) -> tuple[str, str, str, str]:
    value = NOT_MEASURED if figure.value is None else f"{_number(figure.value)} {figure.unit}"
    spread = " to ".join(map(_number, figure.quartiles)) if figure.quartiles else ""
    limit = f"{figure.limit.side} {_number(figure.limit.bound)}" if figure.limit else ""
    met = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[figure.meets]
    return value, spread, limit, met


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
