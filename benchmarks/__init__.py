"""What our own client, recorder and verdicts cost, and whether our latencies are true: ``make bench``.

Every figure is a ratio or a difference taken within one run on one machine; the absolute numbers beside it are only
there to show where it comes from.
"""

from pathlib import Path
from typing import Final

BUILD: Final = Path(__file__).resolve().parents[1] / "build"
