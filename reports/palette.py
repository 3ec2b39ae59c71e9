"""Colours of figures and page: one name, a value on light and one on dark ground.

The hues are Okabe and Ito's, which people with any kind of colour vision tell apart; no meaning rests on colour alone.
Figures are drawn in the light values. On the page each becomes a CSS variable, so that figures follow the reader's
colour scheme.
"""

from __future__ import annotations

from typing import Final

LIGHT: Final = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#5b6470",
    "rule": "#d6dbe2",
    "wash": "#f1f4f7",
    "blue": "#0072b2",
    "orange": "#d98e04",
    "green": "#00835f",
    "vermilion": "#c8500a",
    "purple": "#b0508a",
    "sky": "#3fa0dc",
    "brown": "#7a4b1e",
    "olive": "#8f8a00",
    "grey": "#8a929d",
}
DARK: Final = {
    "paper": "#14181d",
    "ink": "#e7eaee",
    "muted": "#a3adb9",
    "rule": "#38414c",
    "wash": "#1f252c",
    "blue": "#56b0ea",
    "orange": "#f2b63c",
    "green": "#3cc79c",
    "vermilion": "#ff8a4c",
    "purple": "#e08fc0",
    "sky": "#9ad5fa",
    "brown": "#d0a06c",
    "olive": "#d9d65c",
    "grey": "#8a95a2",
}

KIND_COLOURS: Final = {
    "classifier": "blue",
    "detector": "orange",
    "encoder": "green",
    "ensemble": "purple",
    "all kinds": "muted",
}
STATUS_COLOURS: Final = {
    "ok": "green",
    "shed": "orange",
    "draining": "sky",
    "transport": "vermilion",
    "deadline": "purple",
    "bad_input": "blue",
    "server_fault": "brown",
    "wrong_answer": "ink",
    "other": "muted",
    "in_flight": "grey",
    "not_sent": "olive",
    "unstamped": "muted",
    "unknown": "muted",
}
SERIES_COLOURS: Final = ("blue", "orange", "green", "purple", "sky", "vermilion", "brown", "grey")


def light(name: str) -> str:
    """The value that figures are drawn in."""
    return LIGHT[name]


def css_variables(scheme: dict[str, str]) -> str:
    """Declarations of the scheme's colours, for a CSS rule."""
    return " ".join(f"--{name}: {value};" for name, value in scheme.items())


def follow_scheme(svg: str) -> str:
    """Let every colour of a figure follow the page's variables."""
    for name, value in LIGHT.items():
        svg = svg.replace(value, f"var(--{name})")
    return svg
