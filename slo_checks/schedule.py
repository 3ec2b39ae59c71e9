"""Whether the rows tell of the requests that the seed had fixed beforehand: same times, same questions [pure]."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from loadtests.recording import Recording
from scenarios.arrivals import Arrivals, digest_of
from scenarios.scenario import Kind, Scenario
from slo_checks.asserted import column, completed

_PIECE_ROWS = 1_000_000


def as_scheduled(recording: Recording) -> tuple[bool | None, str]:
    """Compare the digest of the rows with the one that the plan took of the schedule before the run.

    A generator that moves its intended times along with its own delays, or puts a request into another phase, would
    make every other number of the run wrong without a trace.
    """
    plan = recording.plan
    if plan.loop == "closed":
        return True, "a closed loop has no schedule"
    if not completed(recording):
        return None, "only a schedule that was played to its end can be compared with its rows"
    if rows_digest(recording.requests, plan.scenario) != plan.schedule_digest:
        return False, "the rows are not the requests that were scheduled: their times, kinds, images or phases differ"
    return True, "the rows are the requests that were scheduled"


def rows_digest(requests: pd.DataFrame, scenario: Scenario) -> str:
    """What `scenarios.arrivals.schedule_digest` would be, had the schedule been these rows; they come by ``seq``."""
    return digest_of(_pieces(requests, scenario))


def _pieces(requests: pd.DataFrame, scenario: Scenario) -> Iterator[Arrivals]:
    payloads, phases = [each.id for each in scenario.payloads], [each.name for each in scenario.phases]
    for first in range(0, len(requests), _PIECE_ROWS):
        piece = requests.iloc[first : first + _PIECE_ROWS]
        yield Arrivals(
            seq=_integers(piece, "seq"),
            intended_us=_integers(piece, "intended_us"),
            kind=_places(piece, "kind", list(Kind)).astype(np.uint8),
            payload=_places(piece, "payload", payloads).astype(np.uint16),
            with_text=np.asarray(column(piece, "with_text").to_numpy(), dtype=np.bool_),
            phase=_places(piece, "phase", phases).astype(np.uint8),
        )


def _integers(requests: pd.DataFrame, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(column(requests, name).to_numpy(), dtype=np.int64)


def _places(requests: pd.DataFrame, name: str, known: list[str]) -> npt.NDArray[np.int64]:
    """The place of each value among the known ones; -1, which no schedule has, for any other."""
    found = pc.fill_null(pc.index_in(column(requests, name), pa.array(known, pa.string())), -1)
    return np.asarray(found.to_numpy(), dtype=np.int64)
