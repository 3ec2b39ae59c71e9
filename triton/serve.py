"""Starts one RadStream server: the emulated device and its metrics where there is no GPU, then tritonserver itself.

Run by the Python of the environment that holds tritonserver; the standard library is all it needs. The process becomes
tritonserver, so signals and the exit code are Triton's own.
"""

import argparse
import importlib.util
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from radstream import RadstreamError
from radstream.device import Device
from radstream.lifetime import die_with_parent
from radstream.service_time import parse_device_times

HERE = Path(__file__).resolve().parent
PROFILES = ("gpu", "cpu")

EXAMPLES = """\
examples:
  serve.py                                         production: config.pbtxt of each model, GPU
  serve.py --profile cpu                           stand-ins on CPU, emulated device, its metrics on :9400
  serve.py --profile cpu --device-times "classifier=20+5,detector=60+10,encoder=30+5"
  serve.py --profile cpu --dry-run                 show the command line, start nothing

Device times are milliseconds for a batch of n items, a+b*n, written a+b; RADSTREAM_DEVICE_TIMES is the same.
POD_NAME names the server and comes back as `served_by`.
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where tritonserver and what it needs lie."""

    program: Path
    backends: Path
    libraries: tuple[Path, ...]


def find_installation(backends: Path | None) -> Installation:
    """Find tritonserver in the wheel of this Python, else on the path (the container image).

    Raises:
        RadstreamError: there is none.
    """
    wheel = importlib.util.find_spec("pytriton")
    if wheel is not None and wheel.submodule_search_locations:
        package = Path(wheel.submodule_search_locations[0])
        root = package / "tritonserver"
        libraries = (package.parent / "nvidia_pytriton.libs",)
        return Installation(root / "bin/tritonserver", backends or root / "backends", libraries)
    on_path = shutil.which("tritonserver", path=os.environ.get("PATH", "") + ":/opt/tritonserver/bin")
    if on_path is None:
        message = f"no tritonserver beside {sys.executable} and none on PATH; run this in the Triton image"
        raise RadstreamError(message)
    program = Path(on_path).resolve()
    return Installation(program, backends or program.parent.parent / "backends", ())


def startable(backends: Path, name: str) -> Path:
    """Return the backends, or a copy of them that Triton can start Python models with.

    Triton sets the mode of the stub before it starts one and refuses where it may not: when the stub is root's and the
    server is not, or the file system is read-only. Both are so in a container that is set up well.

    Raises:
        RadstreamError: the copy cannot be made.
    """
    stub = backends / "python/triton_python_backend_stub"
    if not stub.is_file():
        return backends
    try:
        stub.chmod(stub.stat().st_mode)
    except OSError:
        copy = Path(tempfile.gettempdir()) / f"radstream-backends-{name}"
    else:
        return backends
    try:
        if copy.exists():  # of this container's last life
            shutil.rmtree(copy)
        shutil.copytree(backends / "python", copy / "python")
        for other in backends.iterdir():
            if other.name != "python":
                (copy / other.name).symlink_to(other)
    except OSError as error:
        message = f"{stub} cannot be made executable and {copy} not be written: {error.strerror}; mount a writable /tmp"
        raise RadstreamError(message) from error
    return copy


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--profile", choices=PROFILES, default="gpu", help="gpu: config.pbtxt; cpu: configs/cpu.pbtxt (default: gpu)")
    add("--model-repository", type=Path, default=HERE / "models", help="default: models/ beside this file")
    add("--backend-directory", type=Path, help="default: that of the tritonserver found")
    add("--address", default="127.0.0.1", help="address that all ports bind to (default: 127.0.0.1)")
    add("--http-port", type=int, default=8000)
    add("--grpc-port", type=int, default=8001)
    add("--metrics-port", type=int, default=8002)
    add("--gpu-metrics-port", type=int, default=9400, help="metrics of the emulated device (cpu profile)")
    add("--name", default=os.environ.get("POD_NAME") or socket.gethostname(), help="default: POD_NAME, else the host")
    add("--device-file", type=Path, help="state of the emulated device (default: /dev/shm/radstream-device-NAME)")
    add("--device-times", default=os.environ.get("RADSTREAM_DEVICE_TIMES", ""), metavar="MODEL=a+b,...")
    add("--shm-prefix", help="prefix of this server's regions in /dev/shm (default: radstream-NAME-)")
    add("--exit-timeout-s", type=int, default=20, help="how long to drain after SIGTERM (default: 20)")
    add("--max-connection-age-ms", type=int, default=10_000, help="after it clients look the name up again (10000)")
    add("--parent-pid", type=int, help="be killed when this process, which started this one, ends")
    add("--dry-run", action="store_true", help="print the command line of tritonserver and stop")
    return parser.parse_args(arguments)


def server_arguments(options: argparse.Namespace, backends: Path) -> list[str]:
    """Return the arguments of tritonserver, those that old versions lack included."""
    address, prefix = options.address, options.shm_prefix or f"radstream-{options.name}-"
    arguments = [
        f"--model-repository={options.model_repository}",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        f"--id={options.name}",
        # Fail at start, not under load.
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--strict-readiness=true",
        f"--exit-timeout-secs={options.exit_timeout_s}",
        f"--http-address={address}",
        f"--http-port={options.http_port}",
        f"--grpc-address={address}",
        f"--grpc-port={options.grpc_port}",
        f"--metrics-address={address}",
        f"--metrics-port={options.metrics_port}",
        # Clients look their target up again only when a connection ends.
        f"--grpc-max-connection-age={options.max_connection_age_ms}",
        "--grpc-max-connection-age-grace=20000",
        # Client pings faster than the server's default of 300 s would end in GOAWAY "too_many_pings".
        "--grpc-keepalive-permit-without-calls=true",
        "--grpc-http2-min-recv-ping-interval-without-data=5000",
        "--grpc-infer-thread-count=4",
        # Closed to everyone: the key is forgotten.
        f"--grpc-restricted-protocol=model-repository,shared-memory,trace,logging:closed={secrets.token_hex(16)}",
        "--metrics-interval-ms=1000",
        "--metrics-config=summary_latencies=true",
        "--log-format=ISO8601",
        "--log-verbose=0",
    ]
    if options.profile != "gpu":
        arguments.append(f"--model-config-name={options.profile}")
    return arguments


def supported(arguments: Sequence[str], help_text: str) -> tuple[list[str], list[str]]:
    """Split arguments into those that this tritonserver knows and those that it would refuse to start with."""
    known = set(re.findall(r"^\s*(--[a-z0-9-]+)", help_text, re.MULTILINE))
    kept = [argument for argument in arguments if argument.partition("=")[0] in known]
    return kept, [argument for argument in arguments if argument not in kept]


def environment(options: argparse.Namespace, installation: Installation, device_file: Path) -> dict[str, str]:
    """Return the environment in which tritonserver finds its libraries and its stubs find numpy."""
    variables = dict(os.environ)
    variables["POD_NAME"] = options.name
    variables["RADSTREAM_DEVICE_FILE"] = str(device_file)
    if options.profile == "cpu":
        variables["RADSTREAM_METRICS_URL"] = f"http://{options.address}:{options.metrics_port}/metrics"
    variables["OPENBLAS_NUM_THREADS"] = "1"  # the stand-ins' products are too small to share out
    _prepend(variables, "PATH", Path(sys.executable).parent)
    for directory in installation.libraries:
        _prepend(variables, "LD_LIBRARY_PATH", directory)
    return variables


def _prepend(variables: dict[str, str], name: str, directory: Path) -> None:
    rest = variables.get(name)
    variables[name] = f"{directory}{os.pathsep}{rest}" if rest else str(directory)


def start_device(options: argparse.Namespace, device_file: Path, variables: Mapping[str, str]) -> None:
    """Create the emulated device and start the process that publishes its metrics.

    Raises:
        RadstreamError: the device times make no sense.
    """
    Device.create(device_file, parse_device_times(options.device_times)).close()
    command = [
        *(sys.executable, "-m", "radstream.gpu_metrics"),
        *("--device-file", str(device_file), "--pod", options.name, "--parent-pid", str(os.getpid())),
        *("--address", options.address, "--port", str(options.gpu_metrics_port)),
    ]
    subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, cwd=HERE)


def serve(options: argparse.Namespace) -> None:
    """Become tritonserver.

    Raises:
        RadstreamError: something needed is missing or an option makes no sense.
    """
    if options.parent_pid is not None:
        die_with_parent(options.parent_pid)
    if options.device_times and options.profile == "gpu":
        message = "device times belong to the emulated device: use --profile cpu, or unset RADSTREAM_DEVICE_TIMES"
        raise RadstreamError(message)
    parse_device_times(options.device_times)
    if not (options.model_repository / "radstream_ensemble/config.pbtxt").is_file():
        message = f"{options.model_repository} holds no radstream_ensemble/config.pbtxt; see --model-repository"
        raise RadstreamError(message)
    installation = find_installation(options.backend_directory)
    device_file = options.device_file or Path("/dev/shm") / f"radstream-device-{options.name}"  # noqa: S108
    variables = environment(options, installation, device_file)
    asked = subprocess.run([installation.program, "--help"], env=variables, capture_output=True, text=True, check=False)
    backends = installation.backends if options.dry_run else startable(installation.backends, options.name)
    arguments, left_out = supported(server_arguments(options, backends), asked.stdout + asked.stderr)
    if not arguments:
        message = f"{installation.program} does not run: {(asked.stderr or asked.stdout).strip()[:300]}"
        raise RadstreamError(message)
    for argument in left_out:
        print(f"serve.py: left out, this tritonserver does not know it: {argument}", file=sys.stderr)
    command = [str(installation.program), *arguments]
    if options.dry_run:
        print(shlex.join(command))
        return
    if options.profile == "cpu":
        start_device(options, device_file, variables)
    sys.stderr.flush()
    os.execve(command[0], command, variables)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; return 2 with one sentence on standard error when that cannot be."""
    try:
        serve(parse_arguments(arguments))
    except RadstreamError as error:
        print(f"serve.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
