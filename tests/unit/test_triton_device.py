"""The emulated device: service times, the queue's arithmetic, and what its metrics say."""

import re
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "triton"))

from radstream import RadstreamError
from radstream.device import IDLE, Device
from radstream.gpu_metrics import Reading, busy_ratio, device_labels, exposition, samples
from radstream.service_time import MODELS, ServiceTime, parse_device_times, parse_service_time

TRITON = Path(__file__).resolve().parents[2] / "triton"
MS = 1_000_000
FIVE_MS_AN_ITEM = IDLE.with_times({"detector": ServiceTime(0, 5), "classifier": ServiceTime(20, 1)})


def test_service_time_is_a_fixed_part_and_a_part_an_item() -> None:
    assert parse_service_time("20+5") == ServiceTime(fixed_ms=20, per_item_ms=5)
    assert ServiceTime(20, 5).batch_ns(8) == 60 * MS
    assert parse_service_time(str(ServiceTime(0.5, 2.25))) == ServiceTime(0.5, 2.25)


def test_device_times_name_the_models_that_change() -> None:
    assert parse_device_times("classifier=20+5, detector=0+10") == {
        "classifier": ServiceTime(20, 5),
        "detector": ServiceTime(0, 10),
    }
    assert parse_device_times("") == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("detectr=1+2", "'detectr=1+2' is not MODEL=a+b with MODEL one of classifier, detector, encoder"),
        ("detector", "'detector' is not MODEL=a+b"),
        ("detector=5", "'5' is not a+b in milliseconds; write for example 20+5"),
        ("detector=-1+5", "'-1+5' is not a+b"),
        ("detector=nan+5", "'nan+5' is not a+b"),
        ("detector=1+90000", "longer than 60000 ms"),
        ("detector=1+2,detector=3+4", "detector is given twice"),
    ],
)
def test_wrong_device_times_are_refused_with_what_is_right(text: str, reason: str) -> None:
    with pytest.raises(RadstreamError, match=re.escape(reason)):
        parse_device_times(text)


def test_a_batch_waits_for_those_before_it_whichever_model_they_are_of() -> None:
    first = FIVE_MS_AN_ITEM.submit("detector", 4, now_ns=100 * MS)
    assert first.busy_until_ns == 120 * MS
    second = first.submit("classifier", 2, now_ns=105 * MS)
    assert second.busy_until_ns == 142 * MS
    late = second.submit("detector", 1, now_ns=200 * MS)
    assert late.busy_until_ns == 205 * MS
    assert (late.batches, late.items, late.busy_total_ns) == (3, 7, 47 * MS)


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["detector", "classifier"]), st.integers(1, 8))))
def test_elapsed_busy_time_is_exact_at_every_instant(gaps: list[tuple[int, str, int]]) -> None:
    """Against a device simulated millisecond by millisecond."""
    state, now_ms, backlog_ms, busy_ms = FIVE_MS_AN_ITEM, 0, 0, 0
    for gap_ms, model, items in [*gaps, (400, "detector", 1)]:
        for _ in range(gap_ms):
            busy_ms += backlog_ms > 0
            backlog_ms = max(0, backlog_ms - 1)
            now_ms += 1
            assert state.elapsed_busy_ns(now_ms * MS) == busy_ms * MS
        backlog_ms += 5 * items if model == "detector" else 20 + items
        state = state.submit(model, items, now_ms * MS)


def submitting(device: Path, model: str) -> subprocess.Popen[str]:
    """A process that has the device open, waits for a line, and then submits 5,000 batches of two."""
    program = (
        "import sys; from pathlib import Path; from radstream.device import Device\n"
        "device = Device(Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "for _ in range(5_000): device.submit(sys.argv[2], 2)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(device), model],
        cwd=TRITON, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1, text=True,
    )  # fmt: skip


def test_two_processes_share_one_device_and_lose_nothing(tmp_path: Path) -> None:
    times = {"detector": ServiceTime(0.25, 0), "encoder": ServiceTime(0, 0.125)}
    began_ns = time.monotonic_ns()
    with closing(Device.create(tmp_path / "device", times)) as device:
        with submitting(tmp_path / "device", "detector") as one, submitting(tmp_path / "device", "encoder") as two:
            for child in (one, two):
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
            for child in (one, two):
                assert child.stdin is not None
                child.stdin.write("go\n")
        assert (one.returncode, two.returncode) == (0, 0)
        state = device.read()
    assert (state.batches, state.items, state.busy_total_ns) == (10_000, 20_000, 2_500 * MS)
    assert state.busy_until_ns >= began_ns + 2_500 * MS


def test_a_time_given_at_the_start_wins_over_the_configured_one(tmp_path: Path) -> None:
    with closing(Device.create(tmp_path / "device", {"detector": ServiceTime(1, 2)})) as device:
        device.set_default_time("detector", ServiceTime(7, 7))
        device.set_default_time("encoder", ServiceTime(3, 4))
        assert device.read().times == (None, ServiceTime(1, 2), ServiceTime(3, 4))
        with pytest.raises(RadstreamError, match="no emulated device time for classifier"):
            device.submit("classifier", 1)


def test_times_can_change_while_the_device_works(tmp_path: Path) -> None:
    with closing(Device.create(tmp_path / "device", {"detector": ServiceTime(1000, 0)})) as device:
        ends_ns = device.submit("detector", 1)
        shown = subprocess.run(
            [sys.executable, "-m", "radstream.device", tmp_path / "device", "detector=60000+0"],
            cwd=TRITON,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "detector=60000+0" in shown.stdout
        assert device.submit("detector", 1) >= ends_ns + 60_000 * MS


def test_a_file_that_is_no_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RadstreamError, match=r"serve\.py creates it"):
        Device(tmp_path / "none")
    (tmp_path / "other").write_bytes(bytes(88))
    with pytest.raises(RadstreamError, match="not an emulated device file"):
        Device(tmp_path / "other")


def test_utilisation_is_the_busy_part_of_the_interval() -> None:
    state = FIVE_MS_AN_ITEM.submit("detector", 8, now_ns=1000 * MS)  # busy from 1000 to 1040 ms
    assert busy_ratio(Reading(900 * MS, FIVE_MS_AN_ITEM), Reading(1100 * MS, state)) == pytest.approx(0.2)
    assert busy_ratio(Reading(1010 * MS, state), Reading(1030 * MS, state)) == 1
    assert busy_ratio(Reading(1040 * MS, state), Reading(1050 * MS, state)) == 0


def test_metrics_read_like_those_of_dcgm_exporter_and_say_emulated_on_every_sample() -> None:
    state = FIVE_MS_AN_ITEM.submit("detector", 8, now_ns=1000 * MS)
    text = exposition(samples(0.754, Reading(1020 * MS, state)), device_labels("triton-0"))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    found = {name: family.samples[0].value for name, family in families.items()}
    assert found["DCGM_FI_DEV_GPU_UTIL"] == 75
    assert found["DCGM_FI_PROF_GR_ENGINE_ACTIVE"] == pytest.approx(0.754)
    assert found["DCGM_FI_DEV_XID_ERRORS"] == 0
    assert found["radstream_emulated_device_busy_seconds"] == pytest.approx(0.020)
    assert found["radstream_emulated_device_items"] == 8
    assert families["DCGM_FI_DEV_GPU_UTIL"].type == "gauge"
    assert families["radstream_emulated_device_busy_seconds"].type == "counter"
    for family in families.values():
        assert family.documentation
        for sample in family.samples:
            assert sample.labels["emulated"] == "true"
            assert sample.labels["pod"] == "triton-0"
            assert "emulated" in sample.labels["modelName"]


def test_models_on_the_device_are_those_of_the_repository() -> None:
    assert all((TRITON / "models" / f"radstream_{model}" / "1" / "stand_in.py").is_file() for model in MODELS)
