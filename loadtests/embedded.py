"""The embedded target, seen from the load process: it starts the keeper of the servers as a command and listens.

The keeper (``python -m deploy.embedded``) stops its servers when its standard input closes, so they end with us
however we end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import gevent
from pydantic import ValidationError

from loadtests.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable

_END_S: Final = 30.0


class EmbeddedServersError(Exception):
    """The embedded servers did not start. The message says why and what to do next."""


class EmbeddedServers:
    """Triton servers on this machine's loopback addresses, for as long as this object is open.

    ``target`` is where they serve. ``on_event(event, detail)`` hears of servers that end by themselves.

    Raises:
        EmbeddedServersError: the keeper ended before its servers were ready.
    """

    def __init__(self, servers: int, device_times: str | None, on_event: Callable[[str, str], None]) -> None:
        command = [sys.executable, "-m", "deploy.embedded", "--servers", str(servers)]
        if device_times:
            command += ["--device-times", device_times]
        self._on_event = on_event
        self._closing = False
        # A session of its own, so that a Ctrl-C in the terminal reaches the leader alone and the end is in order.
        self._keeper = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            self.target = self._await_target()
        except BaseException:  # also when whoever waits is stopped: nobody else knows of the keeper yet
            self.close()
            raise
        self._listener = gevent.spawn(self._listen)

    def _await_target(self) -> Target:
        problem = "its message is above"
        for event in self._events():
            if event["event"] == "target":
                try:
                    return Target.model_validate(event["target"])
                except ValidationError as error:
                    msg = f"the keeper of the embedded servers announced a target that cannot be read: {error}"
                    raise EmbeddedServersError(msg) from error
            if event["event"] == "error":
                problem = event.get("detail") or event.get("message") or problem
        self._keeper.wait()
        msg = f"the embedded Triton servers did not start: {problem}"
        raise EmbeddedServersError(msg)

    def _events(self) -> Any:  # noqa: ANN401 - JSON
        assert self._keeper.stdout is not None  # noqa: S101 - asked for above
        for line in self._keeper.stdout:
            yield json.loads(line)

    def _listen(self) -> None:
        for event in self._events():
            if event["event"] == "exited" and not self._closing:
                self._on_event("server_exited", f"server {event.get('server')} ended by itself: {_how(event)}")

    def close(self) -> None:
        """Stop the servers; returns when they are gone."""
        self._closing = True
        assert self._keeper.stdin is not None  # noqa: S101 - asked for above
        self._keeper.stdin.close()
        try:
            self._keeper.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()


def _how(event: dict[str, Any]) -> str:
    return str(event.get("signal") or f"exit code {event.get('exit_code')}")
