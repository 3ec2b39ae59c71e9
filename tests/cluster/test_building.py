"""Building the cluster's programs: by the smallest of them, with the real compiler."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.go_build import ensure_built
from deploy.local.products import PRODUCTS
from tests.cluster.clusters import RADSLO
from tests.integration.runs import CHECKOUT

PAUSE = next(product for product in PRODUCTS if product.name == "pause")
BUILD = """
import sys
from pathlib import Path
from deploy.local.go_build import ensure_built
from deploy.local.products import PRODUCTS
products = [each for each in PRODUCTS if each.name == "pause"]
ensure_built(Path(sys.argv[1]), lambda told: print(told.step, flush=True), products)
"""


def test_a_build_that_was_killed_goes_on_where_it_was_and_leaves_only_the_program(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with subprocess.Popen(
        [sys.executable, "-c", BUILD, str(cache)], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    ) as first:
        assert first.stdout is not None
        count = 0
        for line in first.stdout:
            count += line.strip() == "compiling"
            if count == 10:
                first.kill()
    assert not (cache / PAUSE.directory_name).exists()

    steps: list[str] = []
    ensure_built(cache, lambda told: steps.append(told.step), [PAUSE])
    program = cache / PAUSE.directory_name / "pause"
    assert os.access(program, os.X_OK)
    built = json.loads((program.parent / "build.json").read_text())
    assert built["known_packages"] >= 5  # compiled by the first one
    assert built["compiled_packages"] > 0
    assert "downloading the compiler" not in steps
    assert {path.name for path in cache.iterdir()} == {PAUSE.directory_name, "build.lock"}

    steps.clear()
    ensure_built(cache, lambda told: steps.append(told.step), [PAUSE])
    assert steps == []


def test_ctrl_c_ends_a_build_with_a_sentence(tmp_path: Path) -> None:
    """As a terminal does it: every process of the group is told. Where tests run in the background, they ignore it."""
    environment = os.environ | {"RADSLO_CACHE_DIR": str(tmp_path / "cache")}
    with subprocess.Popen(
        ["env", "--default-signal=INT", RADSLO, "cluster", "build"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as building:
        assert building.stderr is not None
        assert "building Kubernetes" in building.stderr.readline()
        os.killpg(building.pid, signal.SIGINT)
        told = building.stderr.read()
    assert building.returncode == 130
    assert "the same command goes on from here" in told
    assert "Traceback" not in told


def test_without_a_package_index_one_sentence_says_so(tmp_path: Path) -> None:
    told = build(
        RADSLO_CACHE_DIR=str(tmp_path / "cache"),
        UV_CACHE_DIR=str(tmp_path / "uv"),
        UV_DEFAULT_INDEX="http://127.0.0.1:9/simple",
        UV_HTTP_RETRIES="0",
    )
    assert told.returncode == 2
    assert "error: the Go compiler could not be installed" in told.stderr
    assert "check the network" in told.stderr
    assert "Traceback" not in told.stderr


def test_without_room_one_sentence_says_how_much_is_needed(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = f'mount -t tmpfs -o size=64m none {small} && exec "$0" cluster build'
    told = build("unshare", "--mount", "sh", "-c", script, RADSLO_CACHE_DIR=str(small))
    assert told.returncode == 2
    assert f"{small} has 0.1 GB free" in told.stderr
    assert "RADSLO_CACHE_DIR" in told.stderr


@pytest.mark.parametrize("place", ["/run/x", "/var/lib/x"])
def test_a_cache_that_the_cluster_would_not_see_is_refused(place: str) -> None:
    told = build(RADSLO_CACHE_DIR=place)
    assert told.returncode == 2
    assert place in told.stderr
    assert not Path(place).exists()


def build(*prefix: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*prefix, RADSLO] if prefix else [RADSLO, "cluster", "build"]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
