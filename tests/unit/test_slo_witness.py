"""Server counters as a witness where their metrics addresses do not say which server is behind them."""

from __future__ import annotations

from typing import Any

from loadtests.recording import Recording
from slo_checks.validity import ValidityCheck
from slo_checks.verdict import Outcome, evaluate
from tests.unit.recordings import answers, counters, recording

ROWS = [row | {"served_by": f"pod-{row['seq'] % 2}"} for row in answers(3000)]
ADDRESSES = {"pod-0": "10.0.0.1:8002", "pod-1": "10.0.0.2:8002"}
SECONDS = range(35)


def by_address(rows: list[dict[str, Any]], addresses: dict[str, str] | None = None) -> list[dict[str, Any]]:
    names = addresses or ADDRESSES
    return [sample | {"server": names[sample["server"]]} for sample in counters(rows, SECONDS)]


def servers_agree(run: Recording) -> ValidityCheck:
    return next(check for check in evaluate(run).validity if check.name == "servers_agree")


def test_counters_without_names_are_compared_by_their_sum() -> None:
    run = recording(ROWS, triton=by_address(ROWS))
    assert servers_agree(run).ok is True
    assert evaluate(run).outcome is Outcome.PASS


def test_a_sum_that_differs_voids_every_pass() -> None:
    run = recording(ROWS, triton=by_address(ROWS[:-100]))
    assert servers_agree(run).ok is False
    assert evaluate(run).outcome is Outcome.INCONCLUSIVE


def test_answers_of_more_servers_than_there_are_counters_have_no_witness() -> None:
    run = recording(ROWS, triton=by_address(ROWS[::2]))
    assert servers_agree(run).ok is None


def test_one_address_before_several_servers_is_no_witness() -> None:
    """A service's address shows now this server's counter, now that one's."""
    mixed = by_address(ROWS, dict.fromkeys(ADDRESSES, "triton:8002"))
    assert servers_agree(recording(ROWS, triton=mixed)).ok is not True
