"""What Locust loads: options, users, and the wiring of worker and leader. It defines nothing else.

``locust`` finds it through ``[tool.locust]`` in pyproject.toml; headless, web UI, ``--processes N`` and master with
workers elsewhere all come through here.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

import gevent
from locust import events
from locust.runners import WorkerRunner

from loadtests import leader, orphans, recording, rows, shape, worker
from loadtests.adhoc import adhoc_scenario
from loadtests.infer import under_gevent
from loadtests.options import add_options
from loadtests.payloads import check_payloads
from loadtests.users import (  # noqa: F401 - Locust takes the users from this module
    CLOSED_LOOP_USERS,
    ClassifierUser,
    DetectorUser,
    EncoderUser,
    EnsembleUser,
    StudySource,
)
from scenarios.scenario import Scenario, ScenarioError, load_scenario

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from locust.env import Environment

# Its first batch makes pyarrow import pandas. That takes a second or three, in which a load process sends nothing: so
# once, here, before Locust forks them.
recording.request_batch(rows.Rows(0).take())
# What Locust forks from here on are its load processes (--processes).
_load_processes = orphans.KilledWithParent()


@events.init_command_line_parser.add_listener
def _options(parser: ArgumentParser, **_: Any) -> None:  # noqa: ANN401 - Locust's keywords
    add_options(parser)


@events.init.add_listener
def _wire(environment: Environment, **_: Any) -> None:  # noqa: ANN401
    _load_processes.on = False  # Locust has forked them by now
    under_gevent()
    environment.load_worker = None
    if isinstance(environment.runner, WorkerRunner):
        environment.load_worker = worker.LoadWorker(environment)
        _outlive_ctrl_c(environment)
        return
    scenario = _scenario(environment)
    if not environment.parsed_options.master:
        environment.load_worker = worker.LoadWorker(environment)
    lead = leader.Leader(environment, scenario)
    _choose_users(environment, scenario, lead)
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, lead.interrupt, f"stopped by {number.name}")


def _scenario(environment: Environment) -> Scenario:
    options = environment.parsed_options
    name = options.scenario or ("smoke" if options.headless else None)
    if name is None:
        return adhoc_scenario()
    try:
        scenario = load_scenario(name)
        check_payloads(scenario)
    except ScenarioError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    return scenario


def _choose_users(environment: Environment, scenario: Scenario, lead: leader.Leader) -> None:
    if scenario.loop == "open":
        environment.user_classes = [StudySource]
    else:
        environment.user_classes = list(CLOSED_LOOP_USERS)
        for user, share in zip(CLOSED_LOOP_USERS, scenario.mix.shares.values(), strict=True):
            user.weight = round(share * 100)
    if environment.parsed_options.scenario or environment.parsed_options.headless:
        environment.shape_class = shape.ScenarioShape(lead)


def _outlive_ctrl_c(environment: Environment) -> None:
    """A Ctrl-C in the terminal reaches every process; the leader alone decides when its workers end."""

    def stay() -> None:
        generator = environment.load_worker.generator
        if generator is None or generator.finished.is_set():
            environment.runner.quit()

    gevent.signal_handler(signal.SIGINT, stay)
