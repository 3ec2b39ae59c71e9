"""GPU utilisation: which readings count, what they prove, and when they prove nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pytest

from loadtests.recording import Recording
from slo_checks.verdict import Outcome, evaluate
from tests.unit.recordings import STARTED_AT, Row, answers, gpu_samples, heartbeats, recording, verdict_on

Pod: TypeAlias = tuple[str, str | None, int, int, list[float | None]]
"""Server, its GPU, the first and the last second of its life, what its GPU shows at each second of the run."""

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
SECONDS = 104
"""What the watcher sees of 100 s of load, read at second 0, 1, ... 103.

The last answer comes at second 100. So the counters of the server are known to have moved from second 0 to 100, and of
the last of these seconds nobody knows how much was idle: 99 readings count, those of second 1 to 99.
"""


def swinging(high: float, low: float, seconds: int = SECONDS) -> list[float | None]:
    """Readings that move as they do on a real device: `high` at odd seconds, `low` at even ones."""
    return [high if second % 2 else low for second in range(seconds)]


def of_two_servers() -> list[Row]:
    """Twenty answers a second by two servers in turn."""
    return [row | {"served_by": f"triton-{row['seq'] % 2}"} for row in answers(2_000, rate_per_s=20)]


def run_with(gpu: Sequence[Row], rows: Sequence[Row] | None = None, **fields: Any) -> Recording:
    load = answers(1_000, rate_per_s=10) if rows is None else rows
    return recording(load, must_pass=("gpu_utilisation",), gpu=gpu, **fields)


def verdict_of(gpu: Sequence[Row], rows: Sequence[Row] | None = None, **fields: Any) -> tuple[Outcome, str]:
    found = verdict_on(run_with(gpu, rows, **fields), "gpu_utilisation")
    return found.outcome, found.reason


def verdict_when(counters: Callable[[int, Row], Row]) -> tuple[Outcome, str]:
    """On two servers, one of them with an idle GPU and counters that are at each second as `counters` makes them."""
    gpu = [*gpu_samples(swinging(0.95, 0.9)), *gpu_samples(swinging(0.1, 0.05), server="triton-1", gpu="GPU-1")]
    triton = [
        sample | counters(int(sample["at"] - STARTED_AT), sample) if sample["server"] == "triton-1" else sample
        for sample in run_with(gpu, of_two_servers()).triton
    ]
    return verdict_of(gpu, of_two_servers(), triton=triton)


def run_of(*pods: Pod) -> Recording:
    """Pods that answer ten times a second while they live."""
    rows: list[Row] = []
    gpu: list[Row] = []
    for server, device, start, end, values in pods:
        count = 10 * (end - start)
        rows += answers(count, rate_per_s=10, first=len(rows), start_s=float(start), served_by=server)
        if device is not None:
            gpu += _within(gpu_samples(values, server=server, gpu=device), start, end)
    rows.sort(key=lambda row: row["intended_us"])
    lives = {server: (start, end) for server, _device, start, end, _values in pods}
    triton = [sample for sample in run_with(gpu, rows).triton if _within([sample], *lives[sample["server"]])]
    return run_with(gpu, rows, triton=triton)


def _within(samples: Sequence[Row], start: int, end: int) -> list[Row]:
    return [sample for sample in samples if start <= sample["at"] - STARTED_AT <= end]


class TestAGpuThatWasReadAllTheTime:
    def test_is_judged_by_the_mean_of_its_readings(self) -> None:
        found = verdict_on(run_with(gpu_samples(swinging(0.95, 0.75))), "gpu_utilisation")
        mean = (50 * 0.95 + 49 * 0.75) / 99
        assert found.outcome is PASS
        assert found.estimate.samples == 99
        assert (found.estimate.low, found.estimate.value, found.estimate.high) == pytest.approx((mean, mean, mean))

    def test_fails_below_the_bound(self) -> None:
        outcome, reason = verdict_of(gpu_samples(swinging(0.85, 0.7)))
        assert outcome is FAIL
        assert "misses at least 80 %: 77.576 %" in reason

    def test_counts_a_reading_for_as_long_as_it_stands(self) -> None:
        """Over one second until second 50, over two from there on."""
        readings = [0.95 if second % 2 else (0.7, 0.6)[second // 2 % 2] for second in range(SECONDS)]
        slower = [sample for second, sample in enumerate(gpu_samples(readings)) if second % 2 == 0 or second < 50]
        by_second = readings[:50] + [readings[second + second % 2] for second in range(50, 100)]
        value = verdict_on(run_with(slower), "gpu_utilisation").estimate.value
        assert value == pytest.approx(sum(by_second[1:100]) / 99)

    def test_prefers_the_engine_and_tells_when_the_two_readings_disagree(self) -> None:
        samples = [sample | {"util_ratio": 1.0} for sample in gpu_samples(swinging(0.8, 0.7))]
        found = verdict_on(run_with(samples), "gpu_utilisation")
        assert found.outcome is FAIL
        assert "far apart" in found.estimate.evidence[0]

    def test_falls_back_to_utilisation_without_the_engine(self) -> None:
        samples = [sample | {"engine_active_ratio": None} for sample in gpu_samples(swinging(0.95, 0.85))]
        assert verdict_of(samples)[0] is PASS

    def test_is_the_worst_of_several(self) -> None:
        busy, idle = gpu_samples(swinging(0.95, 0.9)), gpu_samples(swinging(0.5, 0.3), gpu="GPU-1")
        found = verdict_on(run_with([*busy, *idle]), "gpu_utilisation")
        assert found.outcome is FAIL
        assert found.estimate.evidence[0].startswith("GPU GPU-1 of triton-0: 40.1% busy")
        assert found.estimate.evidence[-1].startswith("mean over 2 GPUs")


class TestTimeThatCounts:
    def test_is_not_idle_time_between_loads(self) -> None:
        """An idle GPU is no waste while nobody asks for anything."""
        rows = [*answers(700, rate_per_s=10), *answers(700, rate_per_s=10, first=700, start_s=130.0)]
        readings = [
            0.0 if 69 < second < 132 else value for second, value in enumerate(swinging(0.95, 0.85, 204))
        ]  # fmt: skip
        assert verdict_of(gpu_samples(readings), rows)[0] is PASS

    def test_is_not_warm_up(self) -> None:
        phases = [
            {"name": "warm", "duration_s": 50.0, "warmup": True, "rate": {"requests_per_s": 10}},
            {"name": "steady", "duration_s": 100.0, "rate": {"requests_per_s": 10}},
        ]
        rows = [*answers(500, rate_per_s=10, phase="warm"), *answers(1_000, rate_per_s=10, first=500, start_s=50.0)]
        readings = [value if second > 50 else 0.1 for second, value in enumerate(swinging(0.95, 0.85, 154))]
        assert verdict_of(gpu_samples(readings), rows, phases=phases)[0] is PASS

    def test_has_to_be_a_minute(self) -> None:
        outcome, reason = verdict_of(gpu_samples(swinging(0.95, 0.9, 54)), answers(500, rate_per_s=10))
        assert outcome is INCONCLUSIVE
        assert "inferred for 50 s at most in the judged phases; 60 s are needed" in reason

    @pytest.mark.parametrize(("every_s", "response_s", "outcome"), [
        (10.0, 0.1, PASS),          # ten seconds in which it may have inferred: shown, not judged
        (1.5, 0.1, INCONCLUSIVE),   # every other second
        (4.0, 4.0, INCONCLUSIVE),   # all the time, though its counters move every four seconds
    ])  # fmt: skip
    def test_may_never_be_a_whole_second(self, every_s: float, response_s: float, outcome: Outcome) -> None:
        """A server that infers now and then is not excused by another one that does so all the time."""
        seldom = answers(
            int(100 / every_s), rate_per_s=1 / every_s, first=1_000, response_s=response_s, served_by="triton-1"
        )  # fmt: skip
        samples = [*gpu_samples(swinging(0.95, 0.9)), *gpu_samples(swinging(0.1, 0.05), server="triton-1", gpu="GPU-1")]
        found = verdict_on(run_with(samples, [*answers(1_000, rate_per_s=10), *seldom]), "gpu_utilisation")
        assert found.outcome is outcome
        assert ("GPU GPU-1: it inferred now and then" in str(found.estimate.reason)) is (outcome is INCONCLUSIVE)
        assert any("GPU GPU-1 of triton-1" in line for line in found.estimate.evidence)

    def test_counts_as_idle_and_as_busy_where_nobody_looked(self) -> None:
        """A hole widens the interval to both sides, so it never proves what the readings around it do not."""
        readings: list[float | None] = swinging(0.85, 0.8)
        readings[40:46] = [None] * 6
        found = verdict_on(run_with(gpu_samples(readings)), "gpu_utilisation")
        assert found.outcome is INCONCLUSIVE
        busy_s = sum(value for value in readings[1:100] if value is not None)
        assert (found.estimate.low, found.estimate.high) == pytest.approx((busy_s / 99, (busy_s + 6) / 99))
        assert verdict_of(gpu_samples(swinging(0.85, 0.8)))[0] is PASS

    def test_may_have_a_small_hole(self) -> None:
        readings: list[float | None] = swinging(0.95, 0.9)
        readings[40:46] = [None] * 6
        assert verdict_of(gpu_samples(readings))[0] is PASS

    @pytest.mark.parametrize("nothing", [None, float("nan"), 1e15, -0.1, 1.5])
    def test_has_to_be_covered_by_readings_that_can_be_true(self, nothing: float | None) -> None:
        readings: list[float | None] = swinging(0.95, 0.9)
        readings[40:55] = [nothing] * 15
        outcome, reason = verdict_of(gpu_samples(readings))
        assert outcome is INCONCLUSIVE
        assert "valid readings for 84.8% of its inferring time; 90% are needed" in reason

    def test_has_to_be_covered_without_long_steps(self) -> None:
        samples = [sample for second, sample in enumerate(gpu_samples(swinging(0.95, 0.9))) if not 40 <= second < 55]
        assert verdict_of(samples)[0] is INCONCLUSIVE


class TestAGpuOfSeveralServers:
    """Pods come and go; a GPU stays what it is."""

    WELL = ("triton-0", "GPU-0", 0, 110, swinging(0.95, 0.9, 114))

    def test_is_judged_by_all_its_time(self) -> None:
        """Neither of its pods inferred for a minute."""
        idle = swinging(0.1, 0.05, 114)
        run = run_of(self.WELL, ("triton-1", "GPU-1", 0, 55, idle), ("triton-2", "GPU-1", 55, 110, idle))
        found = verdict_on(run, "gpu_utilisation")
        assert found.outcome is FAIL
        assert found.estimate.value == pytest.approx(0.075, abs=0.001)
        assert found.estimate.evidence[0].startswith("GPU GPU-1 of triton-1, triton-2: 7.5% busy")

    def test_passes_by_all_its_time(self) -> None:
        found = verdict_on(
            run_of(
                *(("triton-" + str(start), "GPU-0", start, start + 40, swinging(0.9, 0.8, 84)) for start in (0, 40))
            ),
            "gpu_utilisation",
        )
        assert (found.outcome, found.estimate.samples) == (PASS, 80)

    def test_is_another_one_where_only_its_number_is_the_same(self) -> None:
        """Without a UUID, GPU 0 of one server is not GPU 0 of another one."""
        run = run_of(
            ("triton-0", "0", 0, 110, swinging(0.99, 0.95, 114)), ("triton-1", "0", 0, 110, swinging(0.7, 0.68, 114))
        )
        found = verdict_on(run, "gpu_utilisation")
        assert found.outcome is FAIL
        assert found.estimate.evidence[0].startswith("GPU triton-1/0 of triton-1: 69.0% busy")

    def test_is_shown_and_not_judged_when_all_its_time_is_short(self) -> None:
        run = run_of(
            self.WELL,
            ("triton-1", "GPU-1", 0, 25, swinging(0.1, 0.05)),
            ("triton-2", "GPU-1", 30, 55, swinging(0.1, 0.05)),
        )
        found = verdict_on(run, "gpu_utilisation")
        assert found.outcome is PASS
        assert found.estimate.evidence[-1].startswith(
            "not judged, having inferred for 50 s at most: GPU GPU-1 of triton-1, triton-2: 7.6% busy"
        )

    @pytest.mark.parametrize("lives", [((0, 25), (25, 50), (50, 75), (75, 100)), ((0, 100), (0, 20))])
    def test_keeps_its_frozen_sensor(self, lives: Sequence[tuple[int, int]]) -> None:
        """Four pods in turn, none of which reads one value for 30 s; and two at a time."""
        pods: list[Pod] = [(f"triton-{n}", "GPU-0", *life, [0.9] * SECONDS) for n, life in enumerate(lives)]
        found = verdict_on(run_of(*pods), "gpu_utilisation")
        assert found.outcome is INCONCLUSIVE
        assert "valid readings for 0.0%" in found.reason

    @pytest.mark.parametrize(("seconds", "outcome"), [(25, PASS), (40, INCONCLUSIVE)])
    def test_may_be_unread(self, seconds: int, outcome: Outcome) -> None:
        """Two pods in turn whose GPU nobody read: it may be one and the same."""
        blind: list[Pod] = [(f"triton-{start}", None, start, start + seconds, []) for start in (10, 60)]
        found = verdict_on(run_of(self.WELL, *blind), "gpu_utilisation")
        assert found.outcome is outcome
        assert any(f"{seconds} s at most: no GPU sample of triton-60" in line for line in found.estimate.evidence)

    def test_that_cannot_be_believed_excuses_no_other_one(self) -> None:
        frozen = gpu_samples([0.95] * SECONDS, server="triton-1", gpu="GPU-1")
        outcome, reason = verdict_of([*gpu_samples(swinging(0.5, 0.4)), *frozen], of_two_servers())
        assert outcome is FAIL
        assert "(at most 45.051 %)" in reason


class TestASensorThatStandsStill:
    def test_proves_nothing(self) -> None:
        outcome, reason = verdict_of(gpu_samples([0.95] * SECONDS))
        assert outcome is INCONCLUSIVE
        assert "valid readings for 0.0%" in reason

    def test_proves_no_fail_either(self) -> None:
        assert verdict_of(gpu_samples([0.2] * SECONDS))[0] is INCONCLUSIVE

    def test_is_believed_at_saturation_while_its_power_moves(self) -> None:
        assert verdict_of(gpu_samples([1.0] * SECONDS))[0] is PASS

    def test_is_not_believed_at_saturation_when_its_power_stands_still_too(self) -> None:
        samples = [sample | {"power_watts": 250.0} for sample in gpu_samples([1.0] * SECONDS)]
        assert verdict_of(samples)[0] is INCONCLUSIVE

    def test_is_not_believed_at_saturation_once_its_power_stands_still_too(self) -> None:
        """An exporter that died after ten seconds."""
        samples = gpu_samples([1.0] * SECONDS)
        dead = [sample if second < 10 else samples[10] | {"at": sample["at"]} for second, sample in enumerate(samples)]
        assert verdict_of(dead)[0] is INCONCLUSIVE

    @pytest.mark.parametrize("column", ["engine_active_ratio", "power_watts"])
    @pytest.mark.parametrize("value", [0.9, 1.0])
    def test_is_no_better_for_being_absent_now_and_then(self, value: float, column: str) -> None:
        samples = [
            sample | {"util_ratio": None, "power_watts": 250.0} | ({column: None} if second % 25 == 24 else {})
            for second, sample in enumerate(gpu_samples([value] * SECONDS))
        ]
        assert verdict_of(samples)[0] is INCONCLUSIVE


class TestAnExporterThatRepeatsItself:
    def test_has_measured_only_what_moved(self) -> None:
        """Read every second, it measures every 20 s; its power says nothing about the age of the reading beside it."""
        found = verdict_on(
            run_with(gpu_samples([(0.85, 0.9)[second // 20 % 2] for second in range(SECONDS)])), "gpu_utilisation"
        )
        assert (found.outcome, found.estimate.samples) == (INCONCLUSIVE, 5)
        assert "too few: 5 of 20 samples" in found.reason

    @pytest.mark.parametrize("absent", [False, True])
    def test_has_measured_at_saturation_what_its_power_says(self, *, absent: bool) -> None:
        samples = [
            sample | {"power_watts": None if absent and second % 2 else (200.0, 210.0)[second // 20 % 2]}
            for second, sample in enumerate(gpu_samples([1.0] * SECONDS))
        ]
        found = verdict_on(run_with(samples), "gpu_utilisation")
        assert (found.outcome, found.estimate.samples) == (INCONCLUSIVE, 5)
        assert verdict_on(run_with(gpu_samples([1.0] * SECONDS)), "gpu_utilisation").estimate.samples == 99


class TestAnEmulatedDevice:
    def test_is_named_wherever_its_number_is(self) -> None:
        run = run_with(gpu_samples([0.9] * SECONDS, emulated=True, busy=[0.9] * SECONDS))
        found = verdict_on(run, "gpu_utilisation")
        assert (found.outcome, found.estimate.emulated, evaluate(run).emulated) == (PASS, True, True)
        assert found.reason.endswith("emulated")

    def test_may_miss_a_sample(self) -> None:
        samples = gpu_samples([0.9] * SECONDS, emulated=True, busy=[0.9] * SECONDS)
        samples[50] |= {"util_ratio": None, "engine_active_ratio": None, "busy_s": None}
        assert verdict_of(samples)[0] is PASS

    def test_measures_as_often_as_its_exact_busy_time_moves(self) -> None:
        samples = gpu_samples([0.9] * SECONDS, emulated=True, busy=[0.9] * SECONDS)
        found = verdict_on(run_with([sample | {"power_watts": None} for sample in samples]), "gpu_utilisation")
        assert (found.outcome, found.estimate.samples) == (PASS, 99)

    def test_is_not_believed_against_its_exact_busy_time(self) -> None:
        outcome, reason = verdict_of(gpu_samples([0.9] * SECONDS, emulated=True, busy=[0.7] * SECONDS))
        assert outcome is INCONCLUSIVE
        assert "readings say 90.0%, the exact busy time says 70.0%" in reason

    def test_is_not_believed_without_its_exact_busy_time(self) -> None:
        outcome, reason = verdict_of(gpu_samples(swinging(0.95, 0.9), emulated=True))
        assert outcome is INCONCLUSIVE
        assert "without its exact busy time" in reason

    def test_makes_the_whole_run_emulated_by_its_target_alone(self) -> None:
        assert evaluate(recording(answers(100), target={"name": "cpu", "emulated": True})).emulated
        assert not evaluate(recording(answers(100))).emulated


class TestWhatNobodySaw:
    def test_without_gpu_samples(self) -> None:
        assert verdict_of(())[0] is INCONCLUSIVE

    def test_without_server_counters(self) -> None:
        outcome, reason = verdict_of(gpu_samples(swinging(0.95, 0.9)), triton=())
        assert outcome is INCONCLUSIVE
        assert "nothing tells when the GPUs inferred" in reason

    def test_of_one_server_among_two(self) -> None:
        outcome, reason = verdict_of(gpu_samples(swinging(0.95, 0.9)), of_two_servers())
        assert outcome is INCONCLUSIVE
        assert "no GPU sample of triton-1, which inferred" in reason

    def test_of_a_server_that_only_its_gpu_knows(self) -> None:
        """Nothing tells whether it inferred, perhaps for others."""
        samples = [*gpu_samples(swinging(0.95, 0.9)), *gpu_samples(swinging(0.1, 0.05), server="triton-1", gpu="GPU-1")]
        outcome, reason = verdict_of(samples)
        assert outcome is INCONCLUSIVE
        assert "GPU GPU-1: valid readings for 0.0%" in reason

    @pytest.mark.parametrize("left", [(), ("radstream_classifier", "radstream_encoder")])
    @pytest.mark.parametrize("when", [range(SECONDS), range(40, 60)])
    def test_of_counters_that_are_absent(self, when: range, left: Sequence[str]) -> None:
        """A counter that is absent does not stand still: a server that may have inferred is judged."""

        def counters(second: int, sample: Row) -> Row:
            counts: Row = sample["inference"]
            return {"inference": {model: counts[model] for model in left} or None} if second in when else {}

        outcome, reason = verdict_when(counters)
        assert outcome is INCONCLUSIVE
        assert "GPU GPU-1: valid readings for" in reason

    @pytest.mark.parametrize("model", ["radstream_ensemble", "radstream_preprocess"])
    def test_of_a_server_that_counts_nothing_on_its_gpu(self, model: str) -> None:
        def counters(_: int, sample: Row) -> Row:
            return {counter: {model: sample[counter][model]} for counter in ("inference", "success")}

        assert verdict_when(counters)[0] is INCONCLUSIVE
        assert verdict_when(lambda *_: {})[0] is FAIL

    @pytest.mark.parametrize("watch", [(), heartbeats(range(50))])
    def test_because_the_watcher_slept(self, watch: Sequence[Row]) -> None:
        assert verdict_of(gpu_samples(swinging(0.95, 0.9)), watch=watch)[0] is INCONCLUSIVE

    def test_under_a_load_that_left_late(self) -> None:
        """A GPU may idle because the generator gave it nothing to do."""
        run = run_with(gpu_samples(swinging(0.5, 0.4)), answers(1_000, rate_per_s=10, lag_s=0.05))
        assert verdict_on(run, "gpu_utilisation").outcome is INCONCLUSIVE

    @pytest.mark.parametrize("name", ["pod_start", "scale_out"])
    def test_of_pods(self, name: str) -> None:
        found = verdict_on(recording(answers(100), must_pass=(name,)), name)
        assert found.outcome is INCONCLUSIVE
        assert "nothing observed pods" in found.reason
