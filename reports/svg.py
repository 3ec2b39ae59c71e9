"""Figure -> SVG that can stand inside a page, in the page's own fonts and colours."""

from __future__ import annotations

import html
import re
from io import StringIO
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from reports.ink import any_letters
from reports.palette import follow_scheme

_UNDATED: Final = {"Date": None, "Creator": None, "Format": None, "Type": None}
_OPENING: Final = re.compile(r"<svg[^>]*viewBox=\"([^\"]+)\"[^>]*>")
_FONT: Final = re.compile(r"'DejaVu Sans', [^;\"]*?(?=[;\"])")


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """``figure`` as an SVG element without outside references; ``name`` keeps its ids apart from another figure's.

    Texts stay texts, so that they can be searched, read aloud and enlarged.
    """
    drawn = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), any_letters():
        figure.savefig(drawn, format="svg", metadata=_UNDATED, transparent=True)
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(\bid=\"|href=\"#|url\(#)", rf"\g<1>{name}-", svg)
    svg = _FONT.sub("system-ui, sans-serif", svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    opening = rf'<svg viewBox="\1" role="img" aria-label="{html.escape(description)}">'
    return follow_scheme(_OPENING.sub(opening, svg, count=1))
