"""Phases to Locust's tick: how many users run now, and when the run is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from locust import LoadTestShape

if TYPE_CHECKING:
    from loadtests.leader import Leader


class ScenarioShape(LoadTestShape):
    """An open loop has one source of studies per load process; a closed loop as many users as the phase says.

    Locust asks once a second, so phases shorter than that work in an open loop only, where the schedule is our own.
    """

    def __init__(self, leader: Leader) -> None:
        super().__init__()
        self._leader = leader

    def tick(self) -> tuple[int, float] | None:
        """Users and users per second; None ends the run. Ends it in good order first: all rows in, recording sealed."""
        if self._leader.end_if_over():
            return None
        users = self._leader.users_now()
        return users, float(max(users, 1))
