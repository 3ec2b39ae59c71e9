"""Request rows in the making: what was asked, what became of it, and the columns that both end in [pure].

The columns are those of `loadtests.recording.REQUEST_SCHEMA`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from loadtests import recording
from scenarios.scenario import Kind

_COLUMNS: Final = tuple(recording.REQUEST_SCHEMA.names)


@dataclass(slots=True)
class Question:
    """One request on its way, before its outcome is known."""

    seq: int
    phase: str
    kind: Kind
    payload: str
    with_text: bool
    intended_us: int
    sent_us: int | None = None


@dataclass(slots=True)
class Outcome:
    """What became of a request."""

    status: str
    done_us: int | None = None
    error: str | None = None
    served_by: str | None = None
    peer: str | None = None
    response_bytes: int | None = None
    checked: str | None = None


def _no_rows() -> dict[str, list[Any]]:
    return {name: [] for name in _COLUMNS}


@dataclass(slots=True)
class Rows:
    """Rows of one load process in columns, until they are taken away."""

    worker: int
    _columns: dict[str, list[Any]] = field(default_factory=_no_rows)

    def __len__(self) -> int:
        return len(self._columns["seq"])

    def add(self, question: Question, outcome: Outcome) -> None:
        columns = self._columns
        columns["seq"].append(question.seq)
        columns["worker"].append(self.worker)
        columns["phase"].append(question.phase)
        columns["kind"].append(question.kind.value)
        columns["payload"].append(question.payload)
        columns["with_text"].append(question.with_text)
        columns["intended_us"].append(question.intended_us)
        columns["sent_us"].append(question.sent_us)
        columns["done_us"].append(outcome.done_us)
        columns["status"].append(outcome.status)
        columns["error"].append(outcome.error)
        columns["served_by"].append(outcome.served_by)
        columns["peer"].append(outcome.peer)
        columns["response_bytes"].append(outcome.response_bytes)
        columns["checked"].append(outcome.checked)

    def take(self) -> dict[str, list[Any]]:
        taken, self._columns = self._columns, _no_rows()
        return taken
