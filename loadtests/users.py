"""The Locust users.

In an open loop one `StudySource` per load process plays the schedule; in a closed loop each user is somebody who asks,
waits for the answer, thinks, and asks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from locust import User, task
from locust.exception import StopUser

from scenarios.scenario import Kind

if TYPE_CHECKING:
    from loadtests.worker import LoadWorker


class StudySource(User):
    """Sends this process's share of a scenario's arrivals, of all four kinds, at their intended times."""

    @task
    def play(self) -> None:
        worker = worker_of(self)
        worker.play()
        if worker.generator is not None and worker.generator.finished.is_set():
            raise StopUser


class ClosedLoopUser(User):
    """Asks for one kind of answer, waits for it, thinks as long as the scenario says."""

    abstract = True
    kind: ClassVar[Kind]

    def on_start(self) -> None:
        self._think_s = 0.0

    @task
    def ask(self) -> None:
        self._think_s = worker_of(self).ask_closed(self.kind)

    def wait_time(self) -> float:
        return self._think_s


class ClassifierUser(ClosedLoopUser):
    """Wants the five findings of a chest image."""

    kind = Kind.CLASSIFIER


class DetectorUser(ClosedLoopUser):
    """Wants the boxes around findings."""

    kind = Kind.DETECTOR


class EncoderUser(ClosedLoopUser):
    """Wants the features of image and text."""

    kind = Kind.ENCODER


class EnsembleUser(ClosedLoopUser):
    """Wants all of it, as RadStream's pipeline does."""

    kind = Kind.ENSEMBLE


CLOSED_LOOP_USERS: tuple[type[ClosedLoopUser], ...] = (ClassifierUser, DetectorUser, EncoderUser, EnsembleUser)


def worker_of(user: User) -> LoadWorker:
    worker: LoadWorker = user.environment.load_worker
    return worker
