"""serve.py: how tritonserver is started, and what is refused before it is."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "triton"))

from serve import parse_arguments, server_arguments, supported

TRITON = Path(__file__).resolve().parents[2] / "triton"
HELP = "Usage: tritonserver [options]\n  --id <string>\n\tIdentifier\n  --grpc-port <integer>\n"


def arguments(*options: str) -> list[str]:
    """Return what tritonserver would be given."""
    return server_arguments(parse_arguments(options), Path("/backends"))


def test_options_that_an_old_server_does_not_know_are_left_out() -> None:
    kept, left_out = supported(["--id=a", "--grpc-infer-thread-count=4", "--grpc-port=1"], HELP)
    assert kept == ["--id=a", "--grpc-port=1"]
    assert left_out == ["--grpc-infer-thread-count=4"]


def test_production_fails_at_start_and_makes_clients_resolve_again() -> None:
    given = arguments("--name", "pod-7")
    assert {"--id=pod-7", "--exit-on-error=true", "--strict-readiness=true"} <= set(given)
    assert "--grpc-max-connection-age=10000" in given
    assert not any(argument.startswith("--model-config-name") for argument in given)


def test_the_cpu_profile_names_its_configurations() -> None:
    assert "--model-config-name=cpu" in arguments("--profile", "cpu")


def test_everything_binds_to_the_loopback_address_unless_told_otherwise() -> None:
    given = arguments()
    assert {"--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"} <= set(given)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--profile", "cpu", "--device-times", "detector=fast"], "'fast' is not a+b in milliseconds"),
        (["--device-times", "detector=1+2"], "use --profile cpu"),
        (["--model-repository", "/nowhere"], "/nowhere holds no radstream_ensemble/config.pbtxt"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(options: list[str], reason: str) -> None:
    command = [sys.executable, str(TRITON / "serve.py"), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
