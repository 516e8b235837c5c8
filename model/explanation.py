"""Why something ran, ran late, or did not run: the answer of `explain`, as data and in words.

Plain frozen values. Every instant is a `datetime` in UTC; the sentences show it in the zone of the job's schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from attrs import field, frozen

from .execution import Kind, State


class Phase(StrEnum):
    """Where the time or the execution that is explained stands."""

    SETTLED = "settled"
    """It has ended, or was never to run: the verdict or the state says how."""
    RUNNING = "running"
    WAITING = "waiting"
    """It has an execution, which has not started, or waits for its next attempt."""
    OVERDUE = "overdue"
    """It has passed, and nothing is decided about it yet."""
    TO_COME = "to_come"
    OUTSIDE = "outside"
    """Nothing is known of it: it was before the job, or retention has deleted what was known."""


class Vessel(StrEnum):
    """Where time went before an attempt started."""

    JITTER = "jitter"
    """The job's own, from the nominal time until it was due."""
    DELAY = "delay"
    """Asked for, from `enqueue` until it was due."""
    TIMELINE = "timeline"
    """Due and not fired: nobody ran, its queue was full, or the store was away."""
    PLACING = "placing"
    """Fired, and no node chosen yet."""
    HELD = "held"
    """Held by the job's overlap policy."""
    QUEUE = "queue"
    """Ready, waiting for a slot."""
    RETRY = "retry"
    """The backoff after a failed attempt."""
    SNOOZE = "snooze"
    """The delay that the task asked for."""
    ENDED = "ended"
    """It had ended, until somebody gave it another try."""


class Hindrance(StrEnum):
    """What can keep a time from running, or move it."""

    PAUSED = "paused"
    STOPPED = "stopped"
    REMOVED = "removed"
    NO_SCHEDULE = "no_schedule"
    """The job has none, or one that an event drives."""
    NOT_SCHEDULED = "not_scheduled"
    """The schedule does not name the time that was asked for."""
    BOUNDS = "bounds"
    """The schedule names no time so late."""
    EXCLUDED = "excluded"
    LIMIT = "limit"
    """The job will have fired as often as it may."""
    UNDECLARED = "undeclared"
    """The code of this process does not declare the job any more."""
    NO_TASK = "no_task"
    """No code for the task in this process."""
    NO_NODE = "no_node"
    """No live node that the run strategy allows."""
    OVERLAP = "overlap"
    """What runs now may still run then."""
    QUEUE_FULL = "queue_full"
    """All slots of its queue are taken now."""
    TASK_FULL = "task_full"
    """As many runs of its task are under way as may be."""
    MISFIRE = "misfire"
    """The policy for times that are late."""
    START_BY = "start_by"
    CLOCK_CHANGE = "clock_change"
    """A change of the clocks moves, repeats or drops it."""
    HEALTH = "health"
    """This scheduler is not well, or is ending."""


@frozen
class Wait:
    """A stretch of time that something waited."""

    vessel: Vessel
    since: datetime
    until: datetime | None
    """None: it waits still."""
    length: timedelta
    """Until now, if it waits still."""
    why: str | None = None
    """What is known of the reason, in words."""


@frozen
class Try:
    """An attempt at an execution."""

    number: int
    lease: str
    """Its id."""
    node: str | None
    """The id of the node that ran it."""
    started: datetime | None
    ended: datetime | None
    ending: str
    """`retry`, `snoozed`, `given_back`, `lost` and the like where another followed, or else the execution's state."""
    error: str | None = None


@frozen
class Obstacle:
    """Something that stops what is to come, or may."""

    kind: Hindrance
    what: str
    """In words."""
    certain: bool = False
    """Whether it does, as things stand; else it may."""


@frozen(kw_only=True)
class Explanation:
    """Why a nominal time of a job, or an execution, ran, ran late or did not run. `str()` gives it in sentences."""

    job: str | None = None
    asked: datetime | None = None
    """The time that was asked for."""
    nominal: datetime | None = None
    """The nominal time that is explained: the one asked for, or the nearest before it."""
    phase: Phase
    kind: Kind | None = None
    """The verdict; None: none yet, or it is no nominal time."""
    reason: str | None = None
    """Why, in words, as it is recorded."""
    state: State | None = None
    """Of its execution, where it has one."""
    execution_id: str | None = None
    task: str | None = None
    queue: str | None = None
    target: str | None = None
    """The node that a run strategy chose."""
    due: datetime | None = None
    """The nominal time with its jitter, or when enqueued work was to start."""
    fired: datetime | None = None
    """When its execution was made."""
    started: datetime | None = None
    """The first time."""
    ended: datetime | None = None
    ready: datetime | None = None
    """When its first or next attempt may start, where that is to come."""
    late_by: timedelta | None = None
    """From due to the first start, or until now; None: it never started, or is not due yet."""
    waits: Sequence[Wait] = ()
    """In order; with the attempts they account for all of the time."""
    tries: Sequence[Try] = ()
    """The attempts, the present one last."""
    node: str | None = None
    """Who ran the last attempt, or runs it."""
    slots: int | None = None
    """How many of its queue run at once on this node."""
    will_run: bool | None = None
    """Of what is to come, as things stand; None: it is decided, or nobody can say."""
    obstacles: Sequence[Obstacle] = ()
    """What stops it, or could."""
    others: Sequence[Explanation] = ()
    """The same nominal time on other targets, or of an earlier job of the name."""
    sentences: Sequence[str] = field(default=(), repr=False)

    def __str__(self) -> str:
        return "\n".join((*self.sentences, *(line for other in self.others for line in ("", *other.sentences))))
