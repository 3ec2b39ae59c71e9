"""The options that ``locust`` and ``radslo run`` share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from loadtests.target import EMBEDDED

if TYPE_CHECKING:
    from argparse import ArgumentParser


TARGETS: Final = (
    "'embedded' (servers started here), 'local' (a cluster on this machine), 'k3s' (one in Docker, by 'radslo run' "
    "only), 'kubeconfig[:CONTEXT]' (a cluster of yours), HOST:PORT, dns:///NAME:PORT, or a file"
)


def add_options(parser: ArgumentParser) -> None:
    """Add this project's options to Locust's parser; none may be changed from the web UI."""

    def add(name: str, **settings: object) -> None:
        parser.add_argument(name, include_in_web_ui=False, **settings)  # type: ignore[arg-type]

    add("--scenario", default="", help="shipped scenario (smoke, baseline, ...) or a YAML file; headless: smoke")
    add("--target", default=EMBEDDED, help=TARGETS)
    add("--servers", type=int, default=1, help="embedded: how many Triton servers (default 1)")
    add("--device-times", default="", help="embedded: emulated service times, e.g. 'classifier=20+5,detector=60+10'")
    add("--metrics-url", action="append", help="Triton metrics of the target; may be given again")
    add("--gpu-metrics-url", action="append", help="DCGM exporter metrics of the target; may be given again")
    add("--capacity-per-s", type=float, default=0.0, help="the target's capacity, where it is known; else measured")
    add("--runs-dir", default=os.environ.get("RADSLO_RUNS_DIR", "runs"), help="where runs are recorded (default runs)")
    add("--recording", default="", help="directory of this recording (default <runs-dir>/<utc>-<scenario>)")
