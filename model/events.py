"""Telemetry events: what a scheduler tells those who watch it. Facts, in the past tense, frozen.

They are not the messages by which the stages talk to each other (`stages/messages.py`), and nothing in the chain
depends on their being heard. Inside, times are instants; `happened_at` and its like give them as datetimes and
timedeltas. A change of a job is told when the store has it, so that an event never speaks of a write that then failed
(Quantum tells it before). Import the module, not the names: `from ..model import events`, then `events.JobAdded`.

Each attempt that starts gives one `ExecutionStarted` and then one of `ExecutionStopped` and `ExecutionFailed`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from attrs import frozen

from .execution import Kind, State
from .instants import Instant, Micros, to_datetime, to_timedelta
from .job import JobState
from .payload import Labels


@frozen(kw_only=True)
class TelemetryEvent:
    """Something happened at `at`."""

    at: Instant

    @property
    def happened_at(self) -> datetime:
        """`at` as a datetime, UTC."""
        return to_datetime(self.at)


class Emitter(Protocol):
    """What the parts of the chain are given to tell events with.

    `listening` is False when nobody would hear: who emits often asks first and spares itself making the event.
    """

    @property
    def listening(self) -> bool:
        """Whether anybody is attached."""
        ...

    def emit(self, event: TelemetryEvent, /) -> None:
        """Tell it to all who listen. On the event loop's thread; never raises because of a listener."""
        ...


class _Silence:
    listening = False

    def emit(self, event: TelemetryEvent, /) -> None:
        """Nobody hears it."""


SILENCE: Emitter = _Silence()
"""For parts that run without telemetry."""


# Jobs.


@frozen(kw_only=True)
class JobEvent(TelemetryEvent):
    """Something happened to a job. `job` is its name."""

    job: str
    job_id: str
    generation: int


@frozen(kw_only=True)
class JobAdded(JobEvent):
    """A job is new, or begins a new life after it had ended. Quantum: `[:quantum, :job, :add]`."""

    state: JobState


@frozen(kw_only=True)
class JobUpdated(JobEvent):
    """A job's definition or state has changed. Quantum: `[:quantum, :job, :update]`, with the old state only."""

    old_state: JobState
    new_state: JobState
    old_generation: int
    reason: str | None = None

    @property
    def redefined(self) -> bool:
        """Whether its definition has changed, not its state alone."""
        return self.generation != self.old_generation


@frozen(kw_only=True)
class JobRemoved(JobEvent):
    """A job is gone. Quantum: `[:quantum, :job, :delete]`."""


@frozen(kw_only=True)
class JobParked(JobEvent):
    """A job was paused because its schedule or its record misbehaves (law 9)."""

    reason: str


@frozen(kw_only=True)
class ExecutionsMissed(JobEvent):
    """Nominal times of a job were settled without firing: they lay in a downtime, a pause, an outage. Quantum: nothing.

    `count` is None where they are more than 64: counting takes a step for each.
    """

    kind: Kind
    first: Instant
    last: Instant
    count: int | None = None

    @property
    def first_time(self) -> datetime:
        """`first` as a datetime, UTC."""
        return to_datetime(self.first)

    @property
    def last_time(self) -> datetime:
        """`last` as a datetime, UTC."""
        return to_datetime(self.last)


# Executions.


class FailureKind(StrEnum):
    """What an attempt failed with."""

    EXCEPTION = "exception"
    """The task raised."""
    TIMEOUT = "timeout"
    EXIT = "exit"
    """The task raised SystemExit."""
    CANCELLED = "cancelled"
    """The task ended in a cancellation that was not ours."""
    UNKNOWN_TASK = "unknown_task"
    """No task of that name is registered here."""
    NODE_LOST = "node_lost"
    """The node that ran it has died."""


@frozen(kw_only=True)
class ExecutionEvent(TelemetryEvent):
    """Something happened to an execution. `job` and `nominal` are None for enqueued work."""

    execution_id: str
    task: str
    queue: str
    attempt: int
    job: str | None = None
    nominal: Instant | None = None
    labels: Labels = ()

    @property
    def nominal_time(self) -> datetime | None:
        """`nominal` as a datetime, UTC."""
        return None if self.nominal is None else to_datetime(self.nominal)


@frozen(kw_only=True)
class ExecutionStarted(ExecutionEvent):
    """An attempt has begun. Quantum: `[:quantum, :job, :start]`."""

    late_by: Micros = 0

    @property
    def lateness(self) -> timedelta:
        """`late_by` as a timedelta."""
        return to_timedelta(self.late_by)


@frozen(kw_only=True)
class ExecutionStopped(ExecutionEvent):
    """An attempt ended without failing. Quantum: `[:quantum, :job, :stop]`.

    `state` is the execution's from then on: `succeeded`, `cancelled`, or `pending` when it was snoozed or given back.
    """

    duration: Micros
    state: State

    @property
    def took(self) -> timedelta:
        """`duration` as a timedelta."""
        return to_timedelta(self.duration)


@frozen(kw_only=True)
class ExecutionFailed(ExecutionEvent):
    """An attempt failed. Quantum: `[:quantum, :job, :exception]`."""

    duration: Micros
    kind: FailureKind
    error: str
    """The error's text, with its traceback where there is one."""
    will_retry: bool

    @property
    def took(self) -> timedelta:
        """`duration` as a timedelta."""
        return to_timedelta(self.duration)


@frozen(kw_only=True)
class ExecutionRetried(ExecutionEvent):
    """A further attempt is stored; `attempt` is its number. Quantum: nothing, it never retries."""

    not_before: Instant

    @property
    def not_before_time(self) -> datetime:
        """`not_before` as a datetime, UTC."""
        return to_datetime(self.not_before)


@frozen(kw_only=True)
class ExecutionSkipped(ExecutionEvent):
    """An execution was settled without having started. Quantum: nothing; a skipped overlap vanishes."""

    kind: Kind
    reason: str | None = None


@frozen(kw_only=True)
class OutcomeRefused(ExecutionEvent):
    """The store had given the attempt up, so that what it reported no longer counts (law 3)."""

    attempt_id: str


@frozen(kw_only=True)
class HookFailed(ExecutionEvent):
    """A hook at the end of an attempt raised, or took longer than its grace; what the attempt has come to stands."""

    hook: str
    """`on_success`, `on_failure` or `on_teardown`."""
    error: str


@frozen(kw_only=True)
class ThreadAbandoned(ExecutionEvent):
    """A plain `def` task ignored its deadline; its thread runs on, uncounted, until it ends by itself."""

    abandoned: int
    """How many such threads there are now."""


# The machinery.


@frozen(kw_only=True)
class StageRestarted(TelemetryEvent):
    """A stage crashed, or was restarted with one that did (then `error` is None). Quantum: nothing."""

    stage: str
    incarnation: int
    error: str | None = None


@frozen(kw_only=True)
class StoreDegraded(TelemetryEvent):
    """The store does not answer; the scheduler waits and tries again."""

    error: str
    since: Instant

    @property
    def since_time(self) -> datetime:
        """`since` as a datetime, UTC."""
        return to_datetime(self.since)


@frozen(kw_only=True)
class StoreRecovered(TelemetryEvent):
    """The store answers again."""

    outage: Micros

    @property
    def lasted(self) -> timedelta:
        """`outage` as a timedelta."""
        return to_timedelta(self.outage)


@frozen(kw_only=True)
class RowQuarantined(TelemetryEvent):
    """A stored row cannot be understood and was set aside; the rest runs."""

    table: str
    row_id: str
    reason: str


@frozen(kw_only=True)
class LoopBlocked(TelemetryEvent):
    """The event loop stood still for so long; `suspect` is what ran on it, where that is known (law 6)."""

    duration: Micros
    suspect: str | None = None

    @property
    def lasted(self) -> timedelta:
        """`duration` as a timedelta."""
        return to_timedelta(self.duration)


@frozen(kw_only=True)
class SelectorFailed(TelemetryEvent):
    """A strategy that chooses nodes raised, or chose what is not there."""

    strategy: str
    execution_id: str
    error: str


@frozen(kw_only=True)
class NodeDied(TelemetryEvent):
    """Another node was found dead and what it ran was recovered. (`NodeLost` is the error of an execution.)"""

    node: str
    recovered: int
