"""The leader of a run: prepares it, hands out the shares, records what comes back, ends it in good order.

It lives in Locust's master, or in the only process there is. The order matters and is always the same: preparation,
assignments, clocks, watcher, plan, load, last rows, seal.
"""

from __future__ import annotations

import os
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import gevent
import gevent.lock
from locust.runners import STATE_SPAWNING

from loadtests.adhoc import ADHOC
from loadtests.crew import Crew, CrewError, connected
from loadtests.embedded import EmbeddedServersError
from loadtests.preflight import PreflightError
from loadtests.preparation import Preparation
from loadtests.recorder import Recorder
from loadtests.recording import Plan, RecordingError
from loadtests.target import TargetError
from scenarios.scenario import Scenario, ScenarioError

if TYPE_CHECKING:
    from locust.env import Environment

# Mistakes and mishaps that a person can do something about; anything else is a bug and shows its traceback.
HARNESS_ERRORS: Final = (ScenarioError, TargetError, PreflightError, RecordingError, EmbeddedServersError, CrewError)

_FINAL_WAIT_S: Final = 5.0
_INTERRUPT_DRAIN_S: Final = 5.0
# How far a generator may be behind its own schedule before the leader ends the run.
_LATENESS_S: Final = 30.0
_EXIT_NOT_RECORDED: Final = 2


class Leader:
    """One per master (or local) process; leads one run after the other."""

    def __init__(self, environment: Environment, scenario: Scenario) -> None:
        self._environment = environment
        self._runner = environment.runner
        self._scenario = scenario
        # A copy: the web UI lets any page in the browser change Locust's own, `include_in_web_ui` or not.
        options = deepcopy(environment.parsed_options)
        self._preparation = Preparation(options, scenario, self._say, self._on_server_event)
        self._preparing: gevent.Greenlet[..., Any] | None = None
        self._crew: Crew | None = None
        self._recorder: Recorder | None = None
        self._plan: Plan | None = None
        self._sealed = self._leaving = False
        self._ending = gevent.lock.RLock()
        # Why nothing came of the last start; None as long as nothing went wrong.
        self._failed: str | None = None
        for kind in ("ready", "time", "rows", "final"):
            self._runner.register_message(f"radslo_{kind}", self._on_message)
        events = environment.events
        events.test_start.add_listener(self._on_test_start)
        events.test_stopping.add_listener(lambda **_: self.conclude(self._why_stopping()))
        events.quitting.add_listener(self._on_quitting)

    # --- questions of the shape -----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._plan is not None

    def users_now(self) -> int:
        """Users that should run now: one source per process in an open loop, else what the phase says."""
        if self._scenario.loop == "open":
            return max(len(connected(self._runner)), 1)
        elapsed_s = time.time() - self._plan.started_at if self._plan else 0.0
        return self._scenario.users_at(max(elapsed_s, 0.0)) or 0

    def end_if_over(self) -> bool:
        """Conclude a run from which nothing more is to be expected; whether there is nothing left to do."""
        if self._plan is None or self._crew is None:
            return self._leaving
        self._look_for_lost()
        late_s = time.time() - self._plan.planned_end_at - self._plan.scenario.drain_s
        if self._crew.silent or self._played_out(self._plan):
            self.conclude(None)
        elif late_s > _LATENESS_S:
            self.conclude(f"not all was sent {late_s:.0f} s after the schedule and its drain time were over")
        return self._plan is None

    # --- beginning ------------------------------------------------------------------------------------------------

    def _on_test_start(self, **_: Any) -> None:  # noqa: ANN401 - Locust's keywords
        if self.running:
            return
        self._failed = self._environment.process_exit_code = None
        self._preparing, state = cast("gevent.Greenlet[..., Any]", gevent.getcurrent()), self._runner.state
        # Locust says so only later, and until then its stop() does nothing.
        self._runner.update_state(STATE_SPAWNING)
        plan = None
        try:
            plan = self._prepare()
        except HARNESS_ERRORS as error:
            self._fail(str(error))
            # After any other exception Locust would go on, and it has nothing to go on with.
            raise gevent.GreenletExit from None
        except gevent.GreenletExit:
            self._give_up("stopped while preparing: no run was recorded")
            if self._runner.state == STATE_SPAWNING:
                self._runner.update_state(state)
            raise
        finally:
            self._preparing = None
            if plan is None and self._failed is None:
                self._fail("the run could not be prepared, for the reason that follows; this is a bug of radslo")
        self._begin(plan)

    def _prepare(self) -> Plan:
        directory = self._preparation.directory()
        prepared = self._preparation.prepare(len(connected(self._runner)))
        crew = self._crew = Crew(self._runner)
        crew.assign(prepared.assignment())
        recorder = self._recorder = Recorder(directory)
        recorder.start_watcher(prepared.target)
        plan = prepared.plan(directory.name, len(crew))
        recorder.write_plan(plan)
        recorder.event("started", f"{len(crew)} load process(es), {crew.clocks()}")
        return plan

    def _begin(self, plan: Plan) -> None:
        assert self._crew is not None  # noqa: S101 - made before the plan
        assert self._recorder is not None  # noqa: S101
        self._say(f"recording to {self._recorder.directory}")
        self._plan = plan
        self._crew.begin(plan.started_at)

    def _stop_preparing(self) -> None:
        if self._preparing is not None:
            self._preparing.kill()

    # --- while it runs --------------------------------------------------------------------------------------------

    def _on_message(self, msg: Any, **_: Any) -> None:  # noqa: ANN401 - Locust's message
        crew = self._crew
        if crew is None or msg.data["run"] != crew.run:
            return  # of an earlier run, whose recording is closed
        match msg.type:
            case "radslo_ready":
                crew.on_ready(msg.data)
            case "radslo_time":
                crew.on_time(msg.data)
            case "radslo_rows":
                self._on_rows(crew, msg.data)
            case "radslo_final":
                crew.on_final(msg.data)

    def _on_rows(self, crew: Crew, data: dict[str, Any]) -> None:
        if self._recorder is None:
            return
        sample = data["sample"] | {"at": data["sample"]["at"] - crew.clock(data["worker"]).offset_s}
        try:
            if data["rows"] is not None:
                self._recorder.rows(data["worker"], data["rows"])
            self._recorder.client_sample(sample)
        except RecordingError as error:
            self._fail(str(error))
        self._look_for_lost()

    def _on_server_event(self, event: str, detail: str) -> None:
        self._say(detail)
        if self.running:
            self._record_event(event, detail)

    def _record_event(self, event: str, detail: str) -> None:
        if self._recorder is None:
            return
        try:
            self._recorder.event(event, detail)
        except RecordingError as error:
            self._fail(str(error))

    def _look_for_lost(self) -> None:
        for detail in self._crew.newly_lost() if self._crew else ():
            self._say(detail)
            self._record_event("worker_lost", detail)

    # --- the end --------------------------------------------------------------------------------------------------

    def interrupt(self, reason: str) -> None:
        """Stop now but in good order, then end Locust; for signal handlers."""
        self._stop_preparing()
        self.conclude(reason)
        # While Locust waits for load processes it hears nothing; now it expects none, goes on, and finds nothing to do.
        self._leaving = True
        self._environment.parsed_options.expect_workers = 0
        self._runner.quit()
        web_ui = self._environment.web_ui
        if web_ui is not None and web_ui.server is not None:
            web_ui.stop()  # with one, Locust lives as long as it serves

    def conclude(self, asked: str | None) -> None:
        """Have every process deliver its last rows, seal the recording; does nothing when no run is on.

        ``asked`` is why it has to end now, None if it is over by itself.
        """
        with self._ending:
            if self._plan is None or self._crew is None:
                return
            plan, crew = self._plan, self._crew
            # Users set by hand have no schedule: with them, every end is the end.
            in_full = asked is None or plan.scenario.name == ADHOC or self._played_out(plan)
            self._record_event("stopped", asked or "nothing more is to be expected")
            self._await_finals(crew, plan.scenario.drain_s if in_full else _INTERRUPT_DRAIN_S)
            if self._recorder is not None:  # else it failed meanwhile, and said so
                played = crew.played if plan.loop == "open" else in_full
                self._seal(crew, *_how_it_ended(plan, crew, asked, played=played))

    def _await_finals(self, crew: Crew, drain_s: float) -> None:
        if not crew.silent:
            crew.stop(drain_s)
        until = time.monotonic() + drain_s + _FINAL_WAIT_S
        while not crew.silent and self._recorder is not None and time.monotonic() < until:
            gevent.sleep(0.05)
            self._look_for_lost()

    def _played_out(self, plan: Plan) -> bool:
        """Whether there is nothing left to send."""
        if plan.loop == "closed":
            return time.time() >= plan.planned_end_at
        return self._crew is not None and self._crew.played

    def _why_stopping(self) -> str | None:
        """Why Locust stops the test, as far as it lets us know."""
        self._look_for_lost()
        if self._crew is not None and self._crew.silent:
            return None
        if self._environment.parsed_options.run_time:
            return "stopped by hand or by Locust's run time limit"
        return "stopped by hand" if self._environment.web_ui is not None else "stopped by Locust"

    def _seal(self, crew: Crew, ended: str, reason: str) -> None:
        assert self._recorder is not None  # noqa: S101 - the caller looked
        try:
            self._recorder.seal(ended=ended, end_reason=reason, ended_at=time.time(), workers=crew.records())
        except RecordingError as error:
            self._fail(str(error))
            return
        self._say(f"sealed {self._recorder.directory}: {reason}")
        self._plan = self._crew = self._recorder = None
        self._sealed = True

    def _fail(self, reason: str) -> None:
        """The run cannot go on, or cannot be recorded: say why, keep what there is, have Locust end it."""
        if self._failed is not None:
            return
        self._give_up(f"error: {reason}")
        if self._environment.web_ui is None:
            gevent.spawn(self._runner.quit)
        else:
            self._runner.log_exception("radslo", reason, "")  # for those who look at the browser, not at the terminal
            gevent.spawn(self._runner.stop)

    def _give_up(self, reason: str) -> None:
        self._failed = reason
        self._say(reason)
        self._environment.process_exit_code = _EXIT_NOT_RECORDED
        crew, recorder = self._crew, self._recorder
        self._plan = self._crew = self._recorder = None
        if crew is not None:
            crew.stop(0.0)
        if recorder is not None:
            recorder.abandon()

    def _on_quitting(self, **_: Any) -> None:  # noqa: ANN401
        self._stop_preparing()
        self.conclude("the process was told to end")
        if self._environment.process_exit_code is None:
            wanted = self._environment.web_ui is None and not self._sealed
            self._environment.process_exit_code = _EXIT_NOT_RECORDED if wanted else 0
            if wanted:
                self._say("no run was recorded")
        self._preparation.close()

    def _say(self, text: str) -> None:
        try:
            print(f"radslo: {text}", flush=True)  # noqa: T201 - progress for people
        except BrokenPipeError:
            # Whoever read this was killed; the run still has to end in good order.
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for the rest of its life


def _how_it_ended(
    plan: Plan, crew: Crew, asked: str | None, *, played: bool
) -> tuple[Literal["completed", "interrupted"], str]:
    """What the manifest says of the end: completed only if every process was there to the last."""
    if mishaps := crew.mishaps():
        return "interrupted", f"{asked}; {mishaps}" if asked else mishaps
    if played:
        by_hand = asked if plan.scenario.name == ADHOC else None
        return "completed", by_hand or "the whole schedule was played"
    return "interrupted", asked or "the schedule was not played to its end"
