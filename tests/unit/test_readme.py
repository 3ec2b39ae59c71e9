"""The README's commands are ones that the command line understands, and none of its verbs is kept from the reader."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from loadtests.cli import app
from loadtests.target import read_target
from scenarios.scenario import load_scenario

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LINES = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
SENTENCES = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
IN_SENTENCES = re.findall(r"`((?:radslo|make) [^`]+)`", SENTENCES)
COMMANDS = [words for line in [*LINES, *IN_SENTENCES] if (words := shlex.split(line, comments=True))]
RADSLO = {" ".join(words[1:]): words[1:] for words in COMMANDS if words[0] == "radslo"}
SCENARIOS = {words[words.index(after) + 1] for words in COMMANDS for after in ("run", "--scenario") if after in words}
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", RADSLO)
def test_each_command_is_understood_with_its_options(command: str) -> None:
    verb, *arguments = RADSLO[command]
    assert VERBS[verb].make_context(verb, arguments).command is VERBS[verb]


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_each_scenario_that_is_named_loads(name: str) -> None:
    assert load_scenario(name).name == name


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_in_the_readme(verb: str) -> None:
    assert verb in {words[0] for words in RADSLO.values()}


@pytest.mark.parametrize("verb", VERBS["cluster"].commands)
def test_each_verb_of_the_cluster_is_in_the_readme(verb: str) -> None:
    assert verb in {words[1] for words in RADSLO.values() if words[0] == "cluster"}


def test_each_make_target_exists() -> None:
    targets = {words[1] for words in COMMANDS if words[0] == "make"}
    assert targets >= {"demo", "test", "setup"}
    assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_its_target_file_is_one(tmp_path: Path) -> None:
    (document,) = (block for kind, block in BLOCKS if kind == "yaml")
    (tmp_path / "target.yaml").write_text(document)
    target = read_target(str(tmp_path / "target.yaml"))
    assert target.kubernetes is not None
    assert (target.kubernetes.context, len(target.gpu_metrics_urls)) == ("staging", 1)
