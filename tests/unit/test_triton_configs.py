"""The model repository: what Triton would refuse, or worse accept, is caught here."""

import re
import struct
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "triton"))

from radstream.preprocessing import preprocess
from radstream.service_time import parse_service_time

TRITON = Path(__file__).resolve().parents[2] / "triton"
MODELS = TRITON / "models"
MEMBERS = ("preprocess", "classifier", "detector", "encoder")
FILES = sorted([*MODELS.glob("*/config.pbtxt"), *MODELS.glob("*/configs/*.pbtxt")])


def config(path: Path) -> ModelConfig:
    """Parse a configuration with Triton's own schema, which refuses unknown fields."""
    return text_format.Parse(path.read_text(), ModelConfig())


def production(model: str) -> ModelConfig:
    """Return a model's production configuration."""
    return config(MODELS / f"radstream_{model}/config.pbtxt")


def cpu(model: str) -> ModelConfig:
    """Return a model's CPU profile."""
    return config(MODELS / f"radstream_{model}/configs/cpu.pbtxt")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MODELS)))
def test_each_file_configures_the_model_of_its_directory(path: Path) -> None:
    parsed = config(path)
    directory = path.parent.parent if path.parent.name == "configs" else path.parent
    assert parsed.name == directory.name
    assert parsed.max_batch_size == 8
    assert parsed.version_policy.latest.num_versions == 1
    assert bool(parsed.platform) != bool(parsed.backend)
    assert not any(group.gpus for group in parsed.instance_group)
    assert not parsed.dynamic_batching.preferred_batch_size


def test_every_model_has_a_version_directory_that_git_keeps() -> None:
    for directory in MODELS.iterdir():
        assert any((directory / "1").iterdir()), f"{directory}/1 is empty"


def test_the_ensemble_batches_no_more_than_its_members() -> None:
    largest = production("ensemble").max_batch_size
    assert all(largest <= each.max_batch_size for member in MEMBERS for each in (production(member), cpu(member)))


def test_the_consumer_of_the_optional_text_is_the_first_step() -> None:
    steps = production("ensemble").ensemble_scheduling.step
    assert [step.model_name for step in steps] == [
        f"radstream_{name}" for name in ("encoder", "preprocess", "classifier", "detector")
    ]
    assert "text" in steps[0].input_map.values()
    assert [each.name for each in production("ensemble").input if each.optional] == ["text"]


def test_the_ensemble_offers_every_output_of_its_members_but_the_tensors_between_them() -> None:
    members = {output.name: output for member in MEMBERS for output in production(member).output}
    offered = {output.name: output for output in production("ensemble").output}
    assert set(members) - set(offered) == {"image_224", "image_512"}
    for name, output in offered.items():
        assert (output.data_type, output.dims) == (members[name].data_type, members[name].dims)


@pytest.mark.parametrize("member", MEMBERS)
def test_profiles_differ_in_how_a_model_runs_not_in_its_contract(member: str) -> None:
    gpu_config, cpu_config = production(member), cpu(member)
    for field in ("input", "output", "model_warmup", "max_batch_size"):
        assert getattr(gpu_config, field) == getattr(cpu_config, field), field
    assert [group.kind for group in cpu_config.instance_group] == [ModelInstanceGroup.KIND_CPU]


def test_the_ensemble_is_the_same_in_both_profiles_but_for_what_old_servers_do_not_know() -> None:
    gpu_config, cpu_config = production("ensemble"), cpu("ensemble")
    assert gpu_config.ensemble_scheduling.max_inflight_requests == 64
    gpu_config.ensemble_scheduling.ClearField("max_inflight_requests")
    assert gpu_config == cpu_config


@pytest.mark.parametrize("member", MEMBERS)
def test_requests_that_wait_too_long_or_find_the_queue_full_are_refused(member: str) -> None:
    policy = production(member).dynamic_batching.default_queue_policy
    assert policy.timeout_action == policy.REJECT
    assert policy.default_timeout_microseconds == 4_000_000
    assert policy.allow_timeout_override
    assert policy.max_queue_size == 64


@pytest.mark.parametrize("member", MEMBERS)
def test_on_cpu_one_instance_never_has_a_queue_policy(member: str) -> None:
    """The two together make tritonserver 2.51 miss wake-ups: single requests wait 500 ms."""
    batching = cpu(member).dynamic_batching
    assert batching.max_queue_delay_microseconds == production(member).dynamic_batching.max_queue_delay_microseconds
    if batching.HasField("default_queue_policy"):
        assert batching == production(member).dynamic_batching
        assert cpu(member).instance_group[0].count == 2


@pytest.mark.parametrize("member", MEMBERS)
def test_members_warm_up_with_one_item_and_with_a_full_batch(member: str) -> None:
    assert [warmup.batch_size for warmup in production(member).model_warmup] == [1, 8]


def test_the_warm_up_image_is_one_that_preprocessing_accepts() -> None:
    data = (MODELS / "radstream_preprocess/warmup/chest.jpeg.bytes").read_bytes()
    (length,) = struct.unpack_from("<I", data)
    assert len(data) == 4 + length
    preprocess(data[4:])


@pytest.mark.parametrize("member", ["classifier", "detector", "encoder"])
def test_stand_ins_have_a_device_time_and_production_never_runs_them(member: str) -> None:
    assert cpu(member).default_model_filename == "stand_in.py"
    parse_service_time(cpu(member).parameters["emulated_device_ms"].string_value)
    assert not production(member).parameters
    assert not production(member).default_model_filename


def test_no_python_package_shadows_the_triton_library() -> None:
    assert not (TRITON / "__init__.py").exists()
    assert not re.search(r"^(import|from) triton\b", "".join(p.read_text() for p in TRITON.rglob("*.py")), re.MULTILINE)
