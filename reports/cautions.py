"""What a reader has to know before any number, the same in page, summary and console [pure]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from loadtests.recording import Recording
from slo_checks.objectives import ObjectiveError, objectives_of
from slo_checks.verdict import RunVerdict


@dataclass(frozen=True, slots=True)
class Caution:
    """A heading of two words, and a sentence without its full stop."""

    label: str
    text: str


def cautions(recording: Recording, verdict: RunVerdict) -> tuple[Caution, ...]:
    return tuple(_cautions(recording, verdict))


def judged_by_others(recording: Recording, verdict: RunVerdict) -> bool:
    """Whether the objectives were not those of the recording's plan."""
    try:
        return objectives_of(recording) != verdict.objectives
    except ObjectiveError:
        return True


def _cautions(recording: Recording, verdict: RunVerdict) -> Iterator[Caution]:
    manifest = recording.manifest
    if verdict.emulated:
        yield Caution(
            "Emulated device",
            "Triton, the network and the requests were real; the time that the models take on a GPU, and its "
            "utilisation, were emulated, and neither tells anything about hardware",
        )
    if recording.requests.empty:
        yield Caution("No data", "the recording holds no request rows: nothing says whether the service is good or bad")
    if manifest is None:
        yield Caution("Not sealed", "the run left no manifest: it did not finish, and rows may be missing")
    elif manifest.ended == "interrupted":
        yield Caution("Interrupted", f"{manifest.end_reason}; numbers tell only of the time until then")
    if judged_by_others(recording, verdict):
        yield Caution(
            "Other objectives", "the run was judged by a file of objectives, not by those that it was planned with"
        )
