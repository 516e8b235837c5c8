"""Executions: one unit of due work each, with its attempts and what became of it.

An execution is one nominal time of a job on one target, one `run_job`, or one enqueued call. Its state is where it is
now; its verdict, for a nominal time, is the one recorded reason in which that time ended (law 1).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import define, frozen

from .instants import Instant, to_datetime
from .payload import JsonText, decode
from .work import Work


class State(StrEnum):
    """Where an execution is. The last five are final."""

    __hash__ = str.__hash__  # looked up in sets for every execution; an enum computes its own hash in Python

    PENDING = "pending"
    """Waits for its not-before time or a slot; a retry too."""
    PLACING = "placing"
    """Waits for the node selector."""
    HELD = "held"
    """Buffered by its job's overlap policy."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Its `start_by` passed before it started."""
    SKIPPED = "skipped"
    """Settled without having started; the verdict says why."""


FINISHED = frozenset((State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED, State.SKIPPED))
UNFINISHED = frozenset((State.PENDING, State.PLACING, State.HELD, State.RUNNING))
UNSTARTED = frozenset((State.PENDING, State.PLACING, State.HELD))


class Cause(StrEnum):
    """Why an execution exists."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    """`run_job`."""
    ENQUEUE = "enqueue"
    IMMEDIATE = "immediate"
    """The first run of a new job, by its `immediate`."""


class Kind(StrEnum):
    """The verdicts: how a nominal time ended. More may come."""

    FIRED = "fired"
    """It was started."""
    COALESCED = "coalesced"
    """A later time ran for it."""
    MISSED = "missed"
    """It was too late for its misfire policy."""
    PAUSED = "paused"
    EXCLUDED = "excluded"
    """The schedule's own exclusion."""
    OVERLAP_SKIPPED = "overlap_skipped"
    SUPERSEDED = "superseded"
    """The job got another schedule."""
    REMOVED = "removed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    NO_NODE = "no_node"
    """Nowhere to run: no live node, or the one chosen is dead."""


@define
class Execution:
    """One unit of due work, as the store keeps it. Handed out as a snapshot: changing one changes nothing."""

    id: str
    work: Work
    cause: Cause
    created_at: Instant
    due_at: Instant
    """The nominal time with its jitter, or when an enqueued call was to start."""
    not_before: Instant
    """When the present attempt may start."""
    attempt_id: str
    """The fence: fresh for every retry, snooze, give-back and rescue. The first attempt's is the execution's own id."""
    state: State = State.PENDING
    job_id: str | None = None
    job_name: str | None = None
    generation: int = 0
    nominal: Instant | None = None
    target: str = ""
    """The node that alone may start it; empty: any node."""
    attempt: int = 1
    recoveries: int = 0
    node: str | None = None
    """Who runs, or ran, the present attempt."""
    first_started_at: Instant | None = None
    started_at: Instant | None = None
    """Of the present attempt."""
    finished_at: Instant | None = None
    start_by: Instant | None = None
    key: str | None = None
    occupies: bool = False
    """Whether it counts for its job's overlap: from its first start until it has ended and its task has stopped."""
    cancel_revision: int = 0
    """The revision in which a running attempt was asked to stop; 0: it was not."""
    verdict: Kind | None = None
    reason: str | None = None
    result: JsonText | None = None
    error: str | None = None
    progress: JsonText | None = None

    @property
    def finished(self) -> bool:
        """Whether its state is final."""
        return self.state in FINISHED

    @property
    def due(self) -> datetime:
        """`due_at` as a datetime, UTC."""
        return to_datetime(self.due_at)

    @property
    def nominal_time(self) -> datetime | None:
        """`nominal` as a datetime, UTC; None for manual and enqueued work."""
        return _time(self.nominal)

    @property
    def created_time(self) -> datetime:
        """`created_at` as a datetime, UTC."""
        return to_datetime(self.created_at)

    @property
    def started_time(self) -> datetime | None:
        """`started_at` as a datetime, UTC: when the present attempt started."""
        return _time(self.started_at)

    @property
    def finished_time(self) -> datetime | None:
        """`finished_at` as a datetime, UTC."""
        return _time(self.finished_at)

    @property
    def value(self) -> Any:
        """`result` decoded: what the task returned. None as well when there is none."""
        return None if self.result is None else decode(self.result)


def _time(at: Instant | None) -> datetime | None:
    return None if at is None else to_datetime(at)


class Ending(StrEnum):
    """How an attempt ended, as reported to the store."""

    __hash__ = str.__hash__

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """For good: no further try."""
    RETRY = "retry"
    """Failed, with another try to come."""
    SNOOZED = "snoozed"
    """The task asked to be called again later; uses no attempt."""
    CANCELLED = "cancelled"
    GIVEN_BACK = "given_back"
    """Interrupted by a shutdown, or claimed and not begun; uses no attempt."""


FINAL = {Ending.SUCCEEDED: State.SUCCEEDED, Ending.FAILED: State.FAILED, Ending.CANCELLED: State.CANCELLED}
"""What becomes of an execution by an end after which no further attempt follows."""


@define
class Outcome:
    """The report of an attempt's end. Fenced by attempt id and node.

    A value, though not frozen: one is made for every attempt, and freezing doubles what that costs.
    """

    execution_id: str
    attempt_id: str
    node: str
    ending: Ending
    at: Instant
    result: JsonText | None = None
    error: str | None = None
    next_attempt_id: str = ""
    """The id of the attempt that follows; for `retry`, `snoozed` and `given_back`."""
    not_before: Instant = 0
    """When that attempt may start."""
    alone: bool = False
    """Its execution belongs to no job, as the claim said, so no other hangs on it. A hint, which the store checks."""
    unbegun: bool = False
    """It was claimed, and never reached its first line; for `given_back`."""


@frozen
class Attempt:
    """A past attempt of an execution that another one followed. The last attempt is in the execution itself."""

    id: str
    execution_id: str
    number: int
    node: str | None
    not_before: Instant
    started_at: Instant | None
    ended_at: Instant
    ending: str
    error: str | None = None


@frozen
class Range:
    """A run of nominal times of a job that share one verdict: those of its schedule in `[start, end)`."""

    job_id: str
    kind: Kind
    start: Instant
    end: Instant
    generation: int
    """The `ScheduleEpoch` whose schedule enumerates it."""
    reason: str | None = None


@frozen
class Verdict:
    """How one nominal time ended. `kind` None: its execution is not settled yet."""

    job: str
    nominal: datetime
    kind: Kind | None
    reason: str | None = None
    execution_id: str | None = None
    target: str = ""
