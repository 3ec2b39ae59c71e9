"""A scenario that cannot be used says so in one line per problem: file, field, what is wrong, what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scenarios.scenario import ScenarioError, load_scenario

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
name: good
purpose: a test
expected_verdict: none
seed: 7
phases:
  - name: warm-up
    duration_s: 5
    warmup: true
    rate: {requests_per_s: 2}
  - name: main
    duration_s: 20
    rate: {requests_per_s: 2}
payloads:
  - {id: chest-jpeg-20kb}
objectives:
  must_pass: [latency_p95]
"""

ONE_EDIT = {
    "misspelt key": (
        "seed: 7",
        "sead: 7",
        (
            "unknown key 'sead': did you mean 'seed'? allowed are name, purpose, expected_verdict, seed, phases, mix, "
            "payloads, with_text_ratio, deadline_s, in_flight_cap, drain_s, objectives"
        ),
    ),
    "misspelt key further in": (
        "warmup: true",
        "warm_up: true",
        (
            "phases[0]: unknown key 'warm_up': did you mean 'warmup'? allowed are name, duration_s, warmup, rate, "
            "gaps, users, think_time_s, users_per_s"
        ),
    ),
    "misspelt unit": (
        "  - name: main\n    duration_s: 20\n    rate: {requests_per_s: 2}",
        "  - name: main\n    duration_s: 20\n    rate: {request_per_s: 2}",
        (
            "phases[1].rate: unknown key 'request_per_s': did you mean 'requests_per_s'? allowed are requests_per_s, "
            "studies_per_min, capacity_ratio, ramp, steps, spike"
        ),
    ),
    "key of the models, not of the file": (
        "duration_s: 20\n    rate: {requests_per_s: 2}",
        "duration_s: 20\n    rate: {ramp: {from_: {requests_per_s: 2}, to: {requests_per_s: 3}}}",
        "phases[1].rate.ramp: unknown key 'from_': did you mean 'from'? allowed are from, to",
    ),
    "misspelt kind": (
        "seed: 7",
        "mix: {clasifier: 1}",
        "mix: unknown key 'clasifier': did you mean 'classifier'? allowed are classifier, detector, encoder, ensemble",
    ),
    "missing field": ("purpose: a test\n", "", "purpose: is missing"),
    "empty field": ("purpose: a test", "purpose:", "purpose: should be a valid string, but is empty"),
    "negative duration": (
        "duration_s: 20",
        "duration_s: -3",
        "phases[1].duration_s: should be greater than or equal to 0.001, but is -3",
    ),
    "number in quotes": (
        "duration_s: 20",
        "duration_s: '20'",
        "phases[1].duration_s: should be a valid number, but is '20'",
    ),
    "infinite duration": (
        "duration_s: 20",
        "duration_s: .inf",
        "phases[1].duration_s: should be a finite number, but is inf",
    ),
    "fractional seed": ("seed: 7", "seed: 7.5", "seed: should be a valid integer, but is 7.5"),
    "word for a switch": ("warmup: true", "warmup: yes", "phases[0].warmup: should be a valid boolean, but is 'yes'"),
    "unknown choice": (
        "duration_s: 20\n",
        "duration_s: 20\n    gaps: regular\n",
        "phases[1].gaps: should be 'poisson' or 'constant', but is 'regular'",
    ),
    "two rates at once": (
        "duration_s: 20\n    rate: {requests_per_s: 2}",
        "duration_s: 20\n    rate: {requests_per_s: 2, studies_per_min: 5}",
        (
            "phases[1].rate: give exactly one of requests_per_s, studies_per_min, capacity_ratio, ramp, steps, spike; "
            "found requests_per_s and studies_per_min"
        ),
    ),
    "no rate": (
        "duration_s: 20\n    rate: {requests_per_s: 2}",
        "duration_s: 20\n    rate: {}",
        (
            "phases[1].rate: give exactly one of requests_per_s, studies_per_min, capacity_ratio, ramp, steps, spike; "
            "found none"
        ),
    ),
    "bare rate": (
        "duration_s: 20\n    rate: {requests_per_s: 2}",
        "duration_s: 20\n    rate: 2",
        "phases[1].rate: should be a group of named values, but is 2",
    ),
    "no load": (
        "duration_s: 20\n    rate: {requests_per_s: 2}",
        "duration_s: 20",
        "phases[1]: give exactly one load: `rate` (open loop) or `users` (closed loop)",
    ),
    "both loads": (
        "duration_s: 20\n",
        "duration_s: 20\n    users: 3\n    think_time_s: 1\n",
        "phases[1]: give exactly one load: `rate` (open loop) or `users` (closed loop)",
    ),
    "open loop with think time": (
        "duration_s: 20\n",
        "duration_s: 20\n    think_time_s: 1\n",
        "phases[1]: think_time_s has no meaning with `rate`",
    ),
    "users without think time": (
        "duration_s: 20\n    rate: {requests_per_s: 2}",
        "duration_s: 20\n    users: 3",
        "phases[1]: `users` needs think_time_s, how long each pauses after an answer; 0 is allowed",
    ),
    "open and closed phases": (
        "duration_s: 20\n    rate: {requests_per_s: 2}",
        "duration_s: 20\n    users: 3\n    think_time_s: 1",
        "phases: some have `rate` and some `users`; a scenario is open loop or closed loop",
    ),
    "spike that outlasts its phase": (
        "duration_s: 20\n    rate: {requests_per_s: 2}",
        (
            "duration_s: 20\n    rate:\n      spike: {base: {requests_per_s: 1}, peak: {requests_per_s: 9}, "
            "at_s: 15, width_s: 6}"
        ),
        "phases[1]: the spike ends 21 s into a phase of 20 s",
    ),
    "one step": (
        "duration_s: 20\n    rate: {requests_per_s: 2}",
        "duration_s: 20\n    rate: {steps: [{requests_per_s: 1}]}",
        ("phases[1].rate.steps: should have entries, at least 2, but is [{'requests_per_s': 1}]"),
    ),
    "two phases of one name": ("name: main", "name: warm-up", "phase named more than once: warm-up"),
    "warm-up only": (
        "duration_s: 20\n",
        "duration_s: 20\n    warmup: true\n",
        "phases: all are warm-up, so nothing would be judged; leave warmup out of one",
    ),
    "phases not a list": (
        GOOD[GOOD.index("phases:") : GOOD.index("payloads:")],
        "phases: 3\n",
        "phases: should be a list, but is 3",
    ),
    "deadline that crashes Triton": (
        "seed: 7",
        "deadline_s: 5",
        "deadline_s: should be greater than or equal to 10, but is 5",
    ),
    "nobody asked": (
        "seed: 7",
        "mix: {ensemble: 0}",
        "mix: all weights are 0; give one of classifier, detector, encoder, ensemble a weight above 0",
    ),
    "objective both ways": (
        "must_pass: [latency_p95]",
        "must_pass: [latency_p95]\n  must_not_fail: [latency_p95]",
        "objectives: objective named more than once: latency_p95",
    ),
    "nothing to prove": (
        "must_pass: [latency_p95]",
        "must_pass: []",
        "objectives.must_pass: should have entries, at least 1, but is []",
    ),
    "image twice": (
        "  - {id: chest-jpeg-20kb}",
        "  - {id: chest-jpeg-20kb}\n  - {id: chest-jpeg-20kb}",
        "payloads: image named more than once: chest-jpeg-20kb",
    ),
    "duplicate key": (
        "seed: 7",
        "seed: 7\nseed: 8",
        'line 5: not valid YAML: found duplicate key "seed" with value "8" (original value: "7")',
    ),
    "YAML syntax": (
        "payloads:\n",
        "payloads: [\n",
        "line 14: not valid YAML: expected the node content, but found '-'",
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), ONE_EDIT.values(), ids=ONE_EDIT)
def test_one_mistake_is_one_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    assert GOOD.count(old) == 1
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(ScenarioError) as raised:
        load_scenario(path)
    assert str(raised.value) == f"{path}: {expected}"


def test_the_unedited_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    assert load_scenario(str(path)).seed == 7


def test_a_ramp_of_users_has_to_end_within_its_phase(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    calm = "rate: {requests_per_s: 2}"
    assert GOOD.count(calm) == 2
    closed = GOOD.replace(calm, "users: 5\n    think_time_s: 1", 1)
    closed = closed.replace(calm, "users: 100\n    think_time_s: 1\n    users_per_s: 4")
    path.write_text(closed, encoding="utf-8")
    with pytest.raises(ScenarioError) as raised:
        load_scenario(path)
    expected = "phases[1].users_per_s: from 5 to 100 users takes 23.75 s, but the phase lasts 20 s"
    assert str(raised.value) == f"{path}: {expected}"


def test_several_mistakes_are_listed_one_line_each(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    bad = GOOD.replace("seed: 7", "seed: -1").replace("duration_s: 20", "duration_s: soon")
    path.write_text(bad.replace("[latency_p95]", "[95]").replace("name: good", "name: Good one"), encoding="utf-8")
    with pytest.raises(ScenarioError) as raised:
        load_scenario(path)
    assert str(raised.value).splitlines() == [
        f"{path}: name: should be made of lower-case letters, digits, '-' and '_', at most 60, but is 'Good one'",
        f"{path}: seed: should be greater than or equal to 0, but is -1",
        f"{path}: phases[1].duration_s: should be a valid number, but is 'soon'",
        f"{path}: objectives.must_pass[0]: should be a valid string, but is 95",
    ]


@pytest.mark.parametrize("content", ["", "# only a comment\n", "- a list\n", "42\n", "null\n"])
def test_a_file_without_a_scenario(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ScenarioError, match="holds no scenario; it should begin with `name:`"):
        load_scenario(path)


@pytest.mark.parametrize(
    "content", [b"name: \xff\xfe", b"name: \x00", b"name: [", b"a: 1\n---\nb: 2\n", b"a: *b", b"\ta: 1"]
)
def test_a_file_that_is_not_yaml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "not.yaml"
    path.write_bytes(content)
    with pytest.raises(ScenarioError) as raised:
        load_scenario(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"absent\.yaml: cannot be read: No such file or directory"):
        load_scenario(tmp_path / "absent.yaml")
    with pytest.raises(ScenarioError, match="cannot be read: Is a directory"):
        load_scenario(tmp_path)


def test_an_unknown_bare_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ScenarioError) as raised:
        load_scenario("smok")
    assert str(raised.value).startswith("unknown scenario 'smok': did you mean 'smoke'? allowed are ")
    assert str(raised.value).endswith(", or the path of a YAML file")
