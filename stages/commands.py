"""Commands: what the public face asks of the job broadcaster, each with the slot for its answer.

A command that its caller has given up on is not begun any more. What is durable waits for the store, and no longer
than the command's deadline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TypeAlias

import anyio
from attrs import Factory, define, field

from ..model.execution import Cause
from ..model.filters import JobFilter
from ..model.instants import Instant
from ..model.job import Job, JobRecord, JobState
from ..storage.protocol import JobChange, NewExecution


@define(eq=False)
class Command:
    """Something asked, and its answer."""

    deadline: float = field(kw_only=True)
    """On the clock's monotonic time."""
    done: anyio.Event = field(factory=anyio.Event, kw_only=True)
    given_up: bool = field(default=False, kw_only=True)
    error: BaseException | None = field(default=None, kw_only=True)
    taken: int = field(default=0, kw_only=True)
    """How many incarnations of the stage have begun it."""

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        if not self.done.is_set():
            self.error = error
            self.done.set()


@define(eq=False)
class PutJobs(Command):
    """Add or replace jobs by name."""

    jobs: Sequence[tuple[str, Job]]
    """Each with the id it gets if its name is new."""
    declared: bool = False
    create_only: bool = False
    answer: list[JobChange] = Factory(list[JobChange])


@define(eq=False)
class ChangeState(Command):
    """Pause, resume or stop jobs."""

    where: JobFilter
    state: JobState
    reason: str | None = None
    answer: list[JobChange] = Factory(list[JobChange])


@define(eq=False)
class RemoveJobs(Command):
    """Remove jobs; `everything` also makes the store forget that there ever were any."""

    where: JobFilter
    everything: bool = False
    answer: list[JobRecord] = Factory(list[JobRecord])


@define(eq=False)
class RunJob(Command):
    """Run a job now, whatever its schedule says."""

    name: str
    execution_id: str


def manual_run(record: JobRecord, execution_id: str, now: Instant) -> NewExecution:
    """The execution of a job that is to run now, beside its schedule."""
    return NewExecution(
        execution_id,
        record.job.work,
        Cause.MANUAL,
        now,
        job_id=record.id,
        job_name=record.name,
        generation=record.generation,
    )


AnyCommand: TypeAlias = PutJobs | ChangeState | RemoveJobs | RunJob


class Mailbox:
    """The commands that wait for the job broadcaster, those that it has begun first. They outlive a crash of the stage.

    Bounded by its callers: each holds one of `room`'s places for as long as its command is here.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.room = anyio.Semaphore(capacity)
        self._waiting: deque[AnyCommand] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, command: AnyCommand) -> None:
        """Add a command; the caller then nudges the stage."""
        self._waiting.append(command)

    def first(self, most: int) -> list[AnyCommand]:
        """The commands whose turn it is. They stay here until they are answered."""
        return list(islice(self._waiting, most))

    def answered(self, commands: Sequence[AnyCommand]) -> None:
        """These are done, and were the first."""
        for _ in commands:
            self._waiting.popleft()

    def give_up(self, command: AnyCommand) -> None:
        """Nobody waits for its answer any more. What has been begun stays until it is answered."""
        command.given_up = True
        if not command.taken and command in self._waiting:
            self._waiting.remove(command)

    def fail_all(self, error: BaseException) -> None:
        """Nobody will answer any more."""
        while self._waiting:
            self._waiting.popleft().fail(error)
