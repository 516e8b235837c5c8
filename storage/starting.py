"""Starting: the only claim (law 4). Each execution that a node would run is started, settled, held back or refused.

What is decided here is decided on rows that nobody else can change meanwhile: whether the job still wants it, whether
it is too late, and whether overlap leaves room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set

from attrs import Factory, define

from ..model.execution import Execution, Kind, State
from ..model.instants import Instant
from ..model.job import RUN_OUT, JobRecord, JobState
from ..model.overlap import Decision, judge
from ..model.policies import Overlap
from .holding import BUFFERING, Holding
from .protocol import Claim, Started, TaskRoom
from .settling import cancel, renew, settle

# Looked up once: these stand in the hot path, and a member of an enum costs as much as a look-up in a dict.
_RUNNING = State.RUNNING
_PENDING = State.PENDING
_HELD = State.HELD
_PAUSED = JobState.PAUSED
_STOPPED = JobState.STOPPED
_ALLOW = Overlap.ALLOW
_FIRED = Kind.FIRED

_NO_CODE = "no code for its task here"


class Starting(Holding):
    """`start`, over the primitives."""

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
        """The only claim (law 4)."""
        answer = Started()
        if not items and not free:
            return answer
        at_once: list[Claim] = []
        with self.transaction():
            named = self.executions_by_id(items, lock=True) if items else {}
            answer.refused = {item: "gone" for item in items if item not in named}
            rows = [named[item] for item in dict.fromkeys(items) if item in named]
            if free:
                if rooms:
                    ready = self._ready_with_room(now, free, node_id, tasks, rooms, named.keys())
                else:
                    at_once, ready = self.start_ready(now, free, node_id=node_id, tasks=tasks, ignore=named)
                answer.dry = _dry(free, at_once, ready)
                rows += ready
            if rows:
                jobs = self.jobs_by_id({row.job_id for row in rows if row.job_id}, lock=True)
                starter = _Starter(node_id, now, tasks, jobs, self._rooms(jobs, rows), answer, self.next_revision)
                if rooms:
                    starter.task_rooms = _TaskRooms(rooms)
                for row in self._of_readable_jobs(rows, jobs, answer):
                    starter.take(row)
                self.save_started(list(starter.started.values()))
                if starter.changed:
                    self.update_executions(list(starter.changed.values()))
                if freed := starter.given_up():
                    self.release_held(freed, now)
            if at_once or len(free or ()) > 1:
                _add_in_order(answer.claims, at_once, named)
        return answer

    def _of_readable_jobs(
        self, rows: Sequence[Execution], jobs: Mapping[str, JobRecord], answer: Started
    ) -> Iterable[Execution]:
        """Without those whose job is there and cannot be read here, say for a time zone that this host does not know:
        to a host that can read it the job is alive.
        """
        unreadable = {row.job_id for row in rows if row.job_id not in jobs}.intersection(self.unreadable_jobs())
        if not unreadable:
            return rows
        for row in rows:
            if row.job_id in unreadable:
                answer.refused[row.id] = "its job cannot be read here"
                self.quarantine("executions", row.id, "its job cannot be read here")
        return [row for row in rows if row.job_id not in unreadable]

    def _ready_with_room(
        self,
        now: Instant,
        free: Mapping[str, int],
        node_id: str,
        tasks: Collection[str] | None,
        rooms: Sequence[TaskRoom],
        named: Set[str],
    ) -> list[Execution]:
        """The best ready rows, no more of a task than it has room for: others are asked for in place of those."""
        left, slots, chosen = _TaskRooms(rooms), dict(free), list[Execution]()
        while True:
            ignore = named | {row.id for row in chosen}
            open_tasks = None if tasks is None else [task for task in tasks if not left.is_full(task)]
            passed_over = False
            for row in self.ready_rows(now, slots, 0, node_id=node_id, tasks=open_tasks, ignore=ignore, lock=True):
                if left.is_full(row.work.task):
                    passed_over = True
                else:
                    left.take(row.work.task)
                    slots[row.work.queue] -= 1
                    chosen.append(row)
            if not passed_over or open_tasks is None:
                return chosen

    def _rooms(self, jobs: Mapping[str, JobRecord], rows: Iterable[Execution]) -> dict[str, _Room]:
        exclusive = [job_id for job_id, record in jobs.items() if record.job.definition.overlap is not _ALLOW]
        # Whoever is alone with its job has room: mostly there is nothing to judge.
        there = self.crowded_jobs(exclusive)
        if not there:
            return {}
        # One object per row: what this batch decides about a row must be seen by whoever meets it again.
        batch = {row.id: row for row in rows}
        return {job_id: _room(batch.get(row.id, row) for row in waiting) for job_id, waiting in there.items()}


@define
class _Room:
    """Who occupies a job, and who is held for it, as a batch of starts proceeds."""

    occupying: dict[str, Execution] = Factory(dict[str, Execution])
    held: dict[str, Execution] = Factory(dict[str, Execution])

    def held_before(self, row: Execution) -> int:
        """How many are held that came before this one."""
        return sum(other.attempt_id < row.attempt_id for other in self.held.values())


def _room(rows: Iterable[Execution]) -> _Room:
    room = _Room()
    for row in rows:
        if row.occupies:
            room.occupying[row.id] = row
        elif row.state is _HELD:
            room.held[row.id] = row
    return room


class _TaskRooms:
    """How many more of each limited task may start; its names share one number."""

    def __init__(self, rooms: Sequence[TaskRoom]) -> None:
        self._left = [one.room for one in rooms]
        self._place = {name: place for place, one in enumerate(rooms) for name in one.names}

    def is_full(self, task: str) -> bool:
        """Whether no more of it may start."""
        place = self._place.get(task)
        return place is not None and self._left[place] <= 0

    def take(self, task: str) -> None:
        """One more has started."""
        if (place := self._place.get(task)) is not None:
            self._left[place] -= 1


@define
class _Starter:
    """Takes the rows of one `start` call one after another and decides each."""

    node_id: str
    now: Instant
    tasks: Collection[str] | None
    jobs: Mapping[str, JobRecord]
    rooms: Mapping[str, _Room]
    answer: Started
    next_revision: Callable[[], int]
    started: dict[str, Execution] = Factory(dict[str, Execution])
    """By id, what waited and runs now."""
    changed: dict[str, Execution] = Factory(dict[str, Execution])
    """Whatever else has changed, in what way soever."""
    revision: int = 0
    task_rooms: _TaskRooms | None = None

    def take(self, row: Execution) -> None:
        """Start the row, settle it, hold it back, or say why not."""
        record = self.jobs.get(row.job_id) if row.job_id else None
        why = self._obstacle(row, record)
        if why is not None:
            self.answer.refused[row.id] = why
            return
        if row.state is _RUNNING:  # the answer to the first start was lost
            self.answer.claims.append(_claim(row))
            return
        verdict = _verdict_instead(row, record, self.now)
        if verdict is not None:
            self._settle(row, *verdict)
        elif not self.rooms or record is None or self._has_room(row, record):
            self._start(row)

    def given_up(self) -> set[str]:
        """Jobs that hold something back and lost an execution here that did not start: it may have been in the way."""
        settled = [self.changed[gone.execution_id] for gone in self.answer.settled]
        records = [self.jobs[row.job_id] for row in settled if row.job_id is not None and row.job_id in self.jobs]
        return {record.id for record in records if record.job.overlap in BUFFERING}

    def _obstacle(self, row: Execution, record: JobRecord | None) -> str | None:
        if row.state is _RUNNING and row.node == self.node_id:
            return None
        if row.state is not _PENDING:
            return row.state.value
        if row.target and row.target != self.node_id:
            return "for another node"
        if row.not_before > self.now:
            return "not due yet"
        if self.task_rooms is not None and self.task_rooms.is_full(row.work.task):
            return "no room for its task here"
        if record is not None and row.generation != record.status.generation:
            return self._renew(row, record)
        return None if self.tasks is None or row.work.task in self.tasks else _NO_CODE

    def _renew(self, row: Execution, record: JobRecord) -> str | None:
        """The job has moved on and kept its waiting work: what starts now is the new definition (law 7)."""
        queue = row.work.queue
        renew(row, record)
        self.changed[row.id] = row
        if row.work.queue != queue:
            return "moved to another queue"
        return None if self.tasks is None or row.work.task in self.tasks else _NO_CODE

    def _has_room(self, row: Execution, record: JobRecord) -> bool:
        room = self.rooms.get(record.id)
        if room is None or row.id in room.occupying:
            return True
        most, occupying = record.job.max_running, len(room.occupying)
        # With room, only what was held before it goes first: else what a finish lets go would be held for ever by those
        # behind it.
        held = room.held_before(row) if occupying < most else len(room.held)
        decision = judge(record.job.overlap, most, occupying, held)
        if decision is Decision.CANCEL_OTHERS:
            decision = self._make_room(room, record)
        if decision is Decision.START:
            room.occupying[row.id] = row
            return True
        if decision is Decision.SKIP:
            self._settle(row, Kind.OVERLAP_SKIPPED, "an earlier run is not finished")
            return False
        row.state = _HELD
        self.changed[row.id] = row
        room.held[row.id] = row
        self.answer.held.append(row.id)
        return False

    def _make_room(self, room: _Room, record: JobRecord) -> Decision:
        """Ask those that occupy the job to stop; what was held before gives way to the newest."""
        for waiting in room.held.values():
            self._settle(waiting, Kind.OVERLAP_SKIPPED, "a later run takes its place")
        self.answer.held = [held for held in self.answer.held if held not in room.held]
        room.held.clear()
        for other in list(room.occupying.values()):
            begun = other.state is _RUNNING and other.id not in self.started
            if begun or other.state is _PENDING:
                self._ask_to_stop(other, room)
            # What was started in this very batch has not begun, and is first in line.
        return Decision.START if len(room.occupying) < record.job.max_running else Decision.HOLD

    def _ask_to_stop(self, row: Execution, room: _Room) -> None:
        self.revision = self.revision or self.next_revision()
        asked = cancel(row, self.now, self.revision, "cancelled to make room for a later run")
        self.changed[row.id] = row
        if asked.attempt_id is not None:
            self.answer.cancelled.append((row.id, asked.attempt_id))
        else:
            del room.occupying[row.id]

    def _settle(self, row: Execution, kind: Kind, reason: str) -> None:
        self.answer.settled.append(settle(row, kind, reason, self.now))
        self.changed[row.id] = row

    def _start(self, row: Execution) -> None:
        row.state, row.node, row.started_at, row.occupies = _RUNNING, self.node_id, self.now, True
        if row.first_started_at is None:
            row.first_started_at = self.now
            if row.nominal is not None:
                row.verdict = _FIRED
        if self.task_rooms is not None:
            self.task_rooms.take(row.work.task)
        self.started[row.id] = row
        self.answer.claims.append(_claim(row))


def _verdict_instead(row: Execution, record: JobRecord | None, now: Instant) -> tuple[Kind, str] | None:
    """The verdict of an execution that is not to start any more."""
    if row.job_id is not None and record is None:
        return Kind.REMOVED, "the job was removed"
    if row.first_started_at is not None:
        return None
    if row.start_by is not None and now > row.start_by:
        return Kind.EXPIRED, "its start_by had passed"
    if row.nominal is None or record is None:
        return None
    status = record.status
    if status.state is _PAUSED:
        return Kind.PAUSED, "the job is paused"
    if status.state is _STOPPED and status.reason not in RUN_OUT:
        return Kind.CANCELLED, "the job is stopped"
    window = record.job.definition.misfire.window
    if window is not None and now > row.nominal + window:
        return Kind.MISSED, "it was later than the misfire window"
    return None


def _claim(row: Execution) -> Claim:
    return Claim(
        row.id,
        row.attempt_id,
        row.attempt,
        row.work,
        row.cause,
        row.created_at,
        row.due_at,
        row.job_id,
        row.job_name,
        row.nominal,
        row.key,
    )


def _add_in_order(claims: list[Claim], at_once: list[Claim], named: Collection[str]) -> None:
    """Those that were named come first, then all others by priority and age, whichever way they were found."""
    others = [claim for claim in claims if claim.execution_id not in named] + at_once
    others.sort(key=lambda claim: (-claim.work.priority, claim.attempt_id))
    claims[:] = [claim for claim in claims if claim.execution_id in named] + others


def _dry(free: Mapping[str, int], claims: Iterable[Claim], ready: Iterable[Execution]) -> set[str]:
    found = Counter(claim.work.queue for claim in claims)
    found.update(row.work.queue for row in ready)
    return {queue for queue, room in free.items() if found[queue] < room}
