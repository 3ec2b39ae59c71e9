"""Request rows -> arrays in the units of the figures and tables [pure]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from loadtests.recording import OK
from reports.bins import FloatArray, IntArray

UNSTAMPED: Final = "unstamped"
"""Takes the place of ``ok`` where the time of the answer is not known: nothing proves that it came, or came in time."""
_US_PER_S: Final = 1e6


@dataclass(frozen=True, slots=True)
class RequestColumns:
    """Request rows as arrays in the units of the figures; NaN where the row has null.

    ``status`` holds the name that belongs to each ``status_code``; a name may be there without a row.
    """

    intended_s: FloatArray
    sent_s: FloatArray
    done_s: FloatArray
    status: npt.NDArray[np.object_]
    status_code: IntArray
    server: npt.NDArray[np.object_]
    server_code: IntArray

    @property
    def settled_s(self) -> FloatArray:
        """When the outcome came about; what never had an outcome is put where it was due."""
        return np.where(np.isnan(self.done_s), self.intended_s, self.done_s)

    @property
    def lag_ms(self) -> FloatArray:
        """How late the generator itself was; NaN if the request was never sent."""
        return (self.sent_s - self.intended_s) * 1e3

    @property
    def response_ms(self) -> FloatArray:
        """What a caller waits; infinite without a good answer."""
        return np.where(self.having(OK), (self.done_s - self.intended_s) * 1e3, np.inf)

    def having(self, status: str) -> npt.NDArray[np.bool_]:
        places = np.flatnonzero(self.status == status)
        return np.asarray(self.status_code == (places[0] if places.size else -2))


def request_columns(rows: pd.DataFrame) -> RequestColumns:
    status_code, status = pd.factorize(rows["status"])
    server_code, server = pd.factorize(rows["served_by"])
    done_s = _seconds(rows["done_us"])
    unstamped = np.isnan(done_s) & np.isin(status_code, np.flatnonzero(status == OK))
    return RequestColumns(
        intended_s=_seconds(rows["intended_us"]),
        sent_s=_seconds(rows["sent_us"]),
        done_s=done_s,
        status=np.append(np.asarray(status, dtype=object), UNSTAMPED),
        status_code=np.where(unstamped, len(status), status_code),
        server=np.asarray(server, dtype=object),
        server_code=np.asarray(server_code, dtype=np.int64),
    )


def _seconds(column: pd.Series[Any]) -> FloatArray:
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan) / _US_PER_S)
