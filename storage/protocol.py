"""What a store promises: the protocols that adapters fulfil, and the values that pass through them.

Synchronous, batch in and batch out, plain values. Every call is atomic, and idempotent by ids that the caller made: a
call whose answer was lost may be repeated and gives the same answer. Calls may come from different threads: one write
at a time, reads beside it, each of which sees what was committed when it began.
Time comes in as an argument only. Unknown ids are passed over; an empty batch is a no-op. A call that fails raises
`StoreError`, whose `transient` says whether repeating it can help, and has changed nothing.

`conformance.py` holds these promises as checks. `ledger.py` fulfils the rules once, over the few table primitives of
`tables.py`; an adapter either gives those primitives or implements these protocols itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeAlias

from attrs import Factory, define, frozen

from ..model.execution import Attempt, Cause, Execution, Kind, Outcome, Range, State
from ..model.filters import EVERY_EXECUTION, EVERY_JOB, ExecutionFilter, JobFilter, Order
from ..model.instants import Instant
from ..model.job import Job, JobRecord, JobState, ScheduleEpoch
from ..model.payload import JsonText
from ..model.strategies import Node
from ..model.work import Work

# ------------------------------------------------------------------------------------------------------------- jobs


@frozen
class NewJob:
    """A definition to put under its name."""

    id: str
    """The id it gets if the name is new."""
    job: Job
    declared: bool = False
    if_revision: int | None = None
    """Refuse as `stale` if the stored job has changed since: a call that was given up on must not undo a later one."""
    create_only: bool = False
    """Refuse as `exists` if the name is taken."""


@frozen
class JobChange:
    """What became of one `NewJob`. `record` is the job as it stands now."""

    record: JobRecord
    change: Literal["added", "unchanged", "updated", "rescheduled", "stale", "exists"]
    before: JobState | None = None
    settled: int = 0
    """How many unstarted executions the change settled."""


@frozen
class Changes:
    """What changed since a revision."""

    revision: int
    jobs: Sequence[JobRecord] = ()
    removed: Sequence[tuple[str, str]] = ()
    """Ids and names."""
    cancelled: Sequence[tuple[str, str]] = ()
    """Executions and attempts that were asked to stop while running."""
    complete: bool = True
    """False when the store no longer remembers that far back: load everything anew."""


# ------------------------------------------------------------------------------------------------------- executions


@frozen
class Settle:
    """Nominal times of a job to settle without running them: those in `[start, end)`."""

    kind: Kind
    start: Instant
    end: Instant
    reason: str | None = None


@define
class Fire:
    """Move a job's cursor from `cursor` to `to`, settle what is passed over, and with an `execution_id` run one time.

    Applied only if the job is active, of this generation, and its cursor is where the caller believes it to be (law 2).
    """

    job_id: str
    generation: int
    cursor: Instant
    to: Instant
    execution_id: str = ""
    nominal: Instant = 0
    due_at: Instant = 0
    settled: Sequence[Settle] = ()
    coalesce_before: Instant | None = None
    """Unstarted scheduled executions of the job with earlier nominal times are settled as `coalesced`."""
    alone: bool = False
    """Refuse as `busy` while the job has an unfinished execution."""
    finishes: bool = False
    """The schedule has no time after `to`: the job is stopped as `exhausted`."""


Why: TypeAlias = Literal["gone", "inactive", "moved", "busy"]


@frozen
class Refusal:
    """Why a fire was not applied, and the job as it stands (None: there is no such job)."""

    why: Why
    record: JobRecord | None


@frozen
class Settlement:
    """An execution that was settled without running."""

    execution_id: str
    job_name: str | None
    nominal: Instant | None
    kind: Kind
    reason: str | None = None
    queue: str = ""
    task: str = ""
    attempt: int = 1
    job_id: str | None = None


@define
class Fired:
    """The answer to `fire`."""

    applied: list[str] = Factory(list[str])
    """Ids of the jobs whose fire was applied, now or by an earlier call with the same ids."""
    refused: dict[str, Refusal] = Factory(dict[str, Refusal])
    """By job id."""
    stopped: list[str] = Factory(list[str])
    """Jobs that this fire brought to their end."""
    settled: list[Settlement] = Factory(list[Settlement])
    """Waiting executions that the fires coalesced."""


@define
class Claim:
    """An attempt that this node has started: all that is needed to run it."""

    execution_id: str
    attempt_id: str
    attempt: int
    work: Work
    cause: Cause
    created_at: Instant
    due_at: Instant
    job_id: str | None = None
    job_name: str | None = None
    nominal: Instant | None = None
    key: str | None = None


@frozen
class TaskRoom:
    """How many more executions of one task may start on a node. A task without one may fill its queues."""

    names: Sequence[str]
    """Its name, then its aliases."""
    room: int


@define
class Started:
    """The answer to `start`."""

    claims: list[Claim] = Factory(list[Claim])
    settled: list[Settlement] = Factory(list[Settlement])
    held: list[str] = Factory(list[str])
    refused: dict[str, str] = Factory(dict[str, str])
    """Executions that were named and not started, each with the reason."""
    cancelled: list[tuple[str, str]] = Factory(list[tuple[str, str]])
    """Executions and attempts that must stop to make room (`CANCEL_RUNNING`)."""
    dry: set[str] = Factory(set[str])
    """Queues that had less ready work than was asked for."""


@frozen
class Placement:
    """Where an execution goes. No targets: nowhere, for the reason given."""

    execution_id: str
    targets: Sequence[tuple[str, str]] = ()
    """Node ids, each with the id of the execution for that node; the first one is the execution itself."""
    dead: Sequence[str] = ()
    """Places that were asked for and are not alive, settled as `no_node`; each needs an entry in `targets` too."""
    reason: str | None = None


@define
class Placed:
    """The answer to `place`."""

    executions: list[tuple[str, str]] = Factory(list[tuple[str, str]])
    """Ids and targets of what is now waiting for its node."""
    settled: list[Settlement] = Factory(list[Settlement])


@frozen
class Beat:
    """A sign of life of a running attempt."""

    execution_id: str
    attempt_id: str
    progress: JsonText | None = None


BeatAnswer: TypeAlias = Literal["kept", "cancel", "gone"]


@define
class Finished:
    """The answer to `finish`."""

    applied: set[str] = Factory(set[str])
    """Attempt ids whose outcome is recorded, now or by an earlier call."""
    stale: set[str] = Factory(set[str])
    """Attempt ids whose lease was not theirs any more: ignored (law 3)."""
    ready: dict[str, int] = Factory(dict[str, int])
    """Executions per queue that became ready by it: what overlap held back."""
    follows: dict[str, Instant] = Factory(dict[str, Instant])
    """Per queue when the first of the attempts that follow may start: in the queue that the job names by now."""
    ended: list[tuple[str, Instant]] = Factory(list[tuple[str, Instant]])
    """Jobs of which an execution has ended, and when."""


@define
class Rescued:
    """What became of the attempts of dead nodes."""

    retried: int = 0
    failed: list[Settlement] = Factory(list[Settlement])
    kept: int = 0
    ready: dict[str, int] = Factory(dict[str, int])
    ended: list[tuple[str, Instant]] = Factory(list[tuple[str, Instant]])


@frozen
class NewExecution:
    """An enqueued call, or a manual run of a job."""

    id: str
    work: Work
    cause: Cause
    due_at: Instant
    start_by: Instant | None = None
    key: str | None = None
    on_conflict: Literal["keep", "replace", "raise"] = "keep"
    job_id: str | None = None
    job_name: str | None = None
    generation: int = 0


@frozen
class AddResult:
    """What became of one `NewExecution`."""

    id: str
    """Its id, or that of the unfinished execution that has its key."""
    created: bool


@define
class Cancelled:
    """An execution that was cancelled; `attempt_id` is set when a node is still running it."""

    execution_id: str
    job_name: str | None
    attempt_id: str | None = None
    node: str | None = None
    task: str = ""
    queue: str = ""
    attempt: int = 1
    nominal: Instant | None = None


@frozen
class Page:
    """A page of executions; `cursor` gets the next one, None: there is none."""

    items: Sequence[Execution]
    cursor: str | None = None
    total: int | None = None
    """How many match in all, where that was asked for; from the same snapshot."""


@frozen
class JobPage:
    """A page of jobs."""

    items: Sequence[JobRecord]
    cursor: str | None = None


@frozen
class LedgerPage:
    """What accounts for a span of a job's life. Ranges are enumerated by their epoch's schedule, on reading."""

    epochs: Sequence[ScheduleEpoch]
    ranges: Sequence[Range]
    marks: Sequence[Mark]
    horizon: Instant
    """Nothing is promised before this."""
    cursor: Instant
    """Nothing is promised after this."""


@frozen
class Mark:
    """One nominal time that has, or had, an execution."""

    job_id: str
    nominal: Instant
    execution_id: str
    kind: Kind | None
    """None: not settled yet."""
    state: State
    reason: str | None = None
    target: str = ""


@frozen
class Standing:
    """Where a job stands: its row, the spans of its life, and what occupies it."""

    id: str
    name: str
    removed: bool
    record: JobRecord | None
    """None: it was removed, or its row cannot be understood."""
    epochs: Sequence[ScheduleEpoch]
    horizon: Instant
    cursor: Instant
    occupying: Sequence[Execution] = ()


@frozen
class Account:
    """What accounts for one stretch of a job's life."""

    page: LedgerPage
    end: Instant | None
    """Where the next stretch begins; None: this was the last one."""


@frozen
class Life:
    """An execution with its past attempts."""

    execution: Execution
    past: Sequence[Attempt] = ()


@frozen
class Lives:
    """A page of executions with their attempts."""

    items: Sequence[Life]
    damaged: Sequence[str] = ()
    """Ids of rows that cannot be understood."""
    last: str | None = None
    """What the next page comes after; None: there is none."""


@frozen
class TaskRow:
    """A registered task as the store lists it."""

    name: str
    aliases: Sequence[str] = ()
    description: str = ""
    input_schema: JsonText | None = None
    output_schema: JsonText | None = None


@frozen
class DeletedHistory:
    """How much a `delete_history` call removed. Fewer than its limit: nothing is left to remove."""

    executions: int = 0
    ranges: int = 0
    jobs: int = 0

    @property
    def total(self) -> int:
        """All rows together."""
        return self.executions + self.ranges + self.jobs


@frozen
class Quarantined:
    """A row that could not be understood. It is left alone; the rest runs."""

    table: str
    row_id: str
    reason: str


# -------------------------------------------------------------------------------------------------------- protocols


class StorageLifecycle(Protocol):
    """Opening, living and closing: what concerns the store as a whole."""

    blocking: bool
    """Whether calls may wait for a disk or a network, and so belong into a thread of their own."""
    shared: bool
    """Whether other processes may work on the same data, so that there is something to poll for."""

    def open(self, node: Node, now: Instant) -> None:
        """Prepare, migrate, register the node. Opening what is open is no error. Raises `StoreTooNew`."""
        ...

    def close(self) -> None:
        """Unregister the node and let go of everything. Idempotent."""
        ...

    def interrupt(self) -> None:
        """Another thread has given up on the running call: discard its connection, the next call opens another."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Calls made inside commit together, or not at all when the block raises.

        A store that does not block is called directly, and may keep the calls that were made before the error.
        """
        ...

    def heartbeat_node(self, node_id: str, now: Instant) -> Sequence[Node]:
        """Renew the node's sign of life, registering it anew if it is gone, and give all nodes."""
        ...

    def nodes(self) -> Sequence[Node]:
        """All registered nodes, by id."""
        ...

    def rescue(self, node_ids: Collection[str], now: Instant, make_id: Callable[[], str]) -> Rescued:
        """Treat the running attempts of dead nodes by their `recovery`, and forget the nodes.

        What waited for one of them is placed anew; where each node was to have its own execution, its place is gone
        with it: `no_node` if it had not started, failed with `NodeLost` if it had. Nodes that nobody knows are dead.
        """
        ...

    def changes(self, since: int) -> Changes:
        """Jobs and cancel requests that changed after a revision."""
        ...

    def take_quarantined(self) -> Sequence[Quarantined]:
        """Rows put aside since the last call of this."""
        ...


class JobStorage(Protocol):
    """Definitions and their states."""

    def load_jobs(self) -> Sequence[JobRecord] | None:
        """All jobs in the order of their ids. None: never written or purged; an empty list is a list."""
        ...

    def put_jobs(self, jobs: Sequence[NewJob], now: Instant, *, unless: JobFilter | None = None) -> Sequence[JobChange]:
        """Add or replace by name, by the redeploy rules; what another schedule makes obsolete is `superseded`.

        A job that is new and `immediate` gets an execution that is due now, under its own id.

        With `unless`, nothing is put if any job matches it, and the answer holds those as `exists`.
        """
        ...

    def set_job_state(
        self,
        where: JobFilter,
        state: JobState,
        now: Instant,
        *,
        reason: str | None = None,
        if_revision: int | None = None,
    ) -> Sequence[JobChange]:
        """Pause, resume or stop. Gives only those really changed. What stops firing has its unstarted work settled."""
        ...

    def delete_jobs(self, where: JobFilter, now: Instant, *, if_revision: int | None = None) -> Sequence[JobRecord]:
        """Remove. Unstarted work is settled as `removed`, manual runs and waiting retries end; what runs goes on."""
        ...

    def list_jobs(
        self, where: JobFilter = EVERY_JOB, order: Order = Order.NAME, limit: int = 100, cursor: str | None = None
    ) -> JobPage:
        """A page. A cursor that this store did not make raises `ValueError`."""
        ...

    def count_jobs(self, where: JobFilter = EVERY_JOB) -> int:
        """How many."""
        ...

    def last_execution_date(self) -> Instant | None:
        """The latest nominal time that ever fired here, or what was set."""
        ...

    def set_last_execution_date(self, at: Instant) -> None:
        """Never goes back."""
        ...

    def purge(self, *, include_executions: bool = False) -> None:
        """Forget all jobs and the last execution date: `load_jobs` gives None again."""
        ...


class ExecutionStorage(Protocol):
    """Executions, from the fire to the last verdict."""

    def put_tasks(self, tasks: Sequence[TaskRow]) -> None:
        """Add or replace by name."""
        ...

    def list_tasks(self) -> Sequence[TaskRow]:
        """All, by name."""
        ...

    def fire(self, fires: Sequence[Fire], now: Instant) -> Fired:
        """Advance cursors, settle what is passed over, insert what runs: each fire in full or not at all (law 2)."""
        ...

    def add_executions(
        self, items: Sequence[NewExecution], now: Instant, *, unless: ExecutionFilter | None = None
    ) -> Sequence[AddResult]:
        """Enqueue, in order. A known id with the same work is its own repeat; with other work `DuplicateId`.

        With `unless`, nothing is added if any execution matches it, and the answer holds those.
        """
        ...

    def get_executions(self, ids: Collection[str]) -> Mapping[str, Execution]:
        """By id; absent where there is none."""
        ...

    def list_attempts(self, execution_id: str) -> Sequence[Attempt]:
        """The past attempts of an execution, in order; the present one is in the execution itself."""
        ...

    def list_executions(
        self,
        where: ExecutionFilter = EVERY_EXECUTION,
        order: Order = Order.ID,
        limit: int = 100,
        cursor: str | None = None,
        offset: int = 0,
        *,
        total: bool = False,
    ) -> Page:
        """A page; `total` counts all that match, too. A cursor that this store did not make raises `ValueError`."""
        ...

    def count_executions(self, where: ExecutionFilter = EVERY_EXECUTION) -> int:
        """How many."""
        ...

    def stats(self, where: ExecutionFilter = EVERY_EXECUTION) -> Mapping[State, int]:
        """How many in each state, from one snapshot; every state is a key."""
        ...

    def ready(
        self,
        now: Instant,
        limit: int,
        *,
        after: tuple[int, str] | None = None,
        ignore: Collection[str] = (),
        queues: Collection[str] | None = None,
    ) -> Sequence[Execution]:
        """What may start now, priority descending, then attempt id. Claims nothing. `after`: (priority, attempt id)."""
        ...

    def next_due(
        self, after: Instant, *, queues: Collection[str] | None = None, ignore: Collection[str] = ()
    ) -> Mapping[str, Instant]:
        """For each queue with waiting work, the earliest not-before time later than `after`."""
        ...

    def unplaced(self, now: Instant, limit: int) -> Sequence[Execution]:
        """What waits for the node selector and is due, oldest first."""
        ...

    def place(self, placements: Sequence[Placement], now: Instant) -> Placed:
        """Give executions that wait for placement their targets, or settle them as `no_node`. Idempotent."""
        ...

    def start(
        self,
        node_id: str,
        now: Instant,
        *,
        items: Collection[str] = (),
        free: Mapping[str, int] | None = None,
        tasks: Collection[str] | None = None,
        rooms: Sequence[TaskRoom] = (),
    ) -> Started:
        """The only claim (law 4): start the named executions, and per queue up to so many of the best ready ones.

        `tasks` are the names this node has code for. No more of a task is started than it has room for, if it is among
        `rooms`; the best of other tasks take the slots in its place. Starting again what this node has started already
        gives it again.
        """
        ...

    def heartbeat(self, node_id: str, beats: Sequence[Beat], now: Instant) -> Mapping[str, BeatAnswer]:
        """Per attempt id: still ours (`kept`), asked to stop (`cancel`), or no longer ours (`gone`)."""
        ...

    def finish(self, outcomes: Sequence[Outcome], now: Instant) -> Finished:
        """Record how attempts ended, fenced by attempt and node; lets go in the same transaction what overlap held.

        What was enqueued, given back and not begun (`unbegun`) counts as never started: its `start_by` is judged again.
        """
        ...

    def cancel_executions(self, where: ExecutionFilter, now: Instant) -> Sequence[Cancelled]:
        """Cancel what is unfinished: final at once, and a running attempt is asked to stop."""
        ...

    def retry_executions(self, where: ExecutionFilter, now: Instant, make_id: Callable[[], str]) -> Sequence[str]:
        """Give failed, cancelled or expired executions another try, now. Gives the ids."""
        ...

    def delete_executions(self, where: ExecutionFilter, *, force: bool = False) -> int:
        """Delete finished executions; unfinished ones too with `force`. Their verdicts stay, as ranges of one."""
        ...

    def running(self, node_id: str | None = None, limit: int = 1000, after: str | None = None) -> Sequence[Execution]:
        """What runs, by attempt id; of one node or of all."""
        ...

    def verdicts(self, job: str, start: Instant, end: Instant) -> Sequence[LedgerPage]:
        """How a job's nominal times in `[start, end)` ended: one page for each job that bore the name, oldest first."""
        ...

    def delete_history(self, before: Instant, limit: int) -> DeletedHistory:
        """Delete what finished before (strictly), at most `limit` rows, moving horizons. What is unfinished stays."""
        ...


class AuditStorage(Protocol):
    """What an auditor reads, in bounded steps: each call is one snapshot of about `limit` rows."""

    def looking(self) -> AbstractContextManager[None]:
        """Inside, calls may be made though the store is not open: nothing is made, migrated or registered for them.

        Reads, and commands on jobs and executions; not what only a node does, such as to start and to finish.
        """
        ...

    def standings(self, after: str, limit: int) -> Sequence[Standing]:
        """Jobs by id, later than `after`, those that were removed and are remembered included."""
        ...

    def account(self, job_id: str, name: str, start: Instant, limit: int) -> Account:
        """What accounts for a job's times from `start` on, up to about so many executions or ranges."""
        ...

    def lives(self, after: str, limit: int) -> Lives:
        """Executions by id, later than `after`. What is added while one walks through all may be left out."""
        ...


class Storage(StorageLifecycle, JobStorage, ExecutionStorage, AuditStorage, Protocol):
    """All of them: a fire spans them, so one object implements them."""
