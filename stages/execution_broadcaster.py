"""The execution broadcaster: turns passing time into due executions, against the executor's credit.

It sleeps until the next due instant and wakes for job news, for freed slots and for work in the store. What is due and
has credit is judged by its misfire policy and fired: one transaction moves the job's cursor and inserts the execution
(law 2). What has no credit stays in the timeline, where it can still be judged. Knows schedules and the store; knows
nothing of nodes, threads or what a task does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import assert_never

from anyio.lowlevel import checkpoint

from ..model import events
from ..model.bound import BoundSchedule
from ..model.clock import Clock
from ..model.execution import UNSTARTED, Execution, Kind
from ..model.filters import ExecutionFilter, JobFilter, Order
from ..model.ids import IdMaker
from ..model.instants import LAST, MILLISECOND, SECOND, Instant
from ..model.job import JobRecord, JobState
from ..model.strategies import Local
from ..storage.joining import joining
from ..storage.lane import StorageLane
from ..storage.protocol import Fire, Fired, Refusal, Settle, Settlement, Storage
from .channel import Channel, Outbox
from .demand import Demand
from .messages import (
    DueEvent,
    ExecutionDue,
    ExecutionsDue,
    JobAdded,
    JobEvent,
    JobNews,
    JobRemoved,
    PlacementWanted,
    RunRequested,
    SnapshotBegun,
    SnapshotEnded,
    WorkReady,
    size_of,
)
from .misfire import Entry, judge
from .stored_work import StoredWork
from .telling import tell_settled
from .timeline import Timeline
from .turns import in_batches

log = logging.getLogger("clepsydra.execution_broadcaster")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.1
"""Seconds between two looks for work that somebody has promised."""

_PAGE = 500

_MOST_COUNTED = 64


class ExecutionBroadcaster:
    """Fires what is due.

    Receives  JobNews
    Sends     ExecutionsDue, ExecutionDue, PlacementWanted, WorkReady
    """

    def __init__(
        self,
        inbox: Channel[JobNews],
        outlet: Channel[list[DueEvent]],
        lane: StorageLane,
        clock: Clock,
        demand: Demand,
        *,
        batch: int,
        wait_cap: float,
        poll: float | None,
        booted: Instant,
        make_id: IdMaker,
        ask_for_snapshot: Callable[[], None],
        jobs_changed: Callable[[], None],
        settled: Callable[[Iterable[str]], None],
        emit: events.Emitter,
    ) -> None:
        self._inbox, self._outbox = inbox, Outbox(outlet, batch, size_of)
        self._lane, self._clock, self._demand = lane, clock, demand
        self._most = lane.batches * batch
        """Fires, and slots for what is stored, in one turn."""
        self._batch, self._wait_cap, self._poll, self._booted = batch, wait_cap, poll, booted
        self._make_id, self._ask_for_snapshot, self._jobs_changed = make_id, ask_for_snapshot, jobs_changed
        self._settled, self._emit = settled, emit
        self._timeline = Timeline()
        self._broken: list[tuple[JobRecord, str]] = []
        self._stored = StoredWork(demand)
        self._parked: dict[str, Entry] = {}
        """Due jobs that wait for the end of their present execution, and completion-driven ones whose next time is
        asked.
        """
        self._sequence: int | None = None
        self._share: dict[str, int] = {}
        """How many of a queue's credits its stored work has won against its overdue jobs, in this turn."""
        self._looked_at = 0.0
        self._pause = _FIRST_PAUSE
        """Until the next look, while callers' transactions are open: it grows with the time that they are."""
        self._incarnation = demand.incarnation
        self._turns = 0

    def soonest(self, count: int) -> list[tuple[Instant, str]]:
        """The jobs that are due next, with their instants."""
        return self._timeline.soonest(count)

    # ---- the stage

    async def run(self) -> None:
        """Begin with a snapshot of the jobs and of the waiting work, then fire until cancelled."""
        with self._inbox.attended():
            self._ask_for_snapshot()
            await self._look_into_store()
            while True:
                news = await self._inbox.receive(self._patience(), self._wait_cap)
                if news is not None:
                    self._take_in(news)
                await self._turn()

    async def _turn(self) -> None:
        """One pass: at most one batch of each kind, so that news and due work take turns."""
        if self._must_look():
            await self._look_into_store()
        await self._resume_parked()
        now = self._clock.now()
        self._timeline.advance(now)
        self._stored.advance(now)
        self._demand.note_overdue(self._timeline.overdue_queues())
        await self._fire_due(now)
        self._demand.note_overdue(self._timeline.overdue_queues())
        await self._park_broken()
        self._offer_stored_work(now)
        await self._learn_when_dry_queues_fill()
        self._outbox.flush()

    def _must_look(self) -> bool:
        """Whether the store may hold work that nobody has told of: another process', or what an executor died with."""
        return self._may_be_unknown_work() or self._until_next_look() == 0

    def _until_next_look(self) -> float | None:
        """Seconds until the store is looked into anyway: soon while a caller's transaction is open, or regularly."""
        interval = self._pause if self._demand.promised else self._poll
        if interval is None:
            return None
        return max(0.0, round(self._looked_at + interval - self._clock.monotonic(), 6))

    def _may_be_unknown_work(self) -> bool:
        return self._incarnation != self._demand.incarnation or self._demand.unknown_work

    def _patience(self) -> float | None:
        """How long there is nothing to do, in seconds: until the next due instant, in whole milliseconds."""
        now = self._clock.now()
        if self._has_work(now):
            return 0.0
        waits = [
            max(0, -(-(instant - now) // MILLISECOND) * MILLISECOND) / SECOND
            for instant in (self._timeline.next_instant(), self._stored.next_instant(now))
            if instant is not None
        ]
        if (next_look := self._until_next_look()) is not None:
            waits.append(next_look)
        return min(waits, default=None)

    def _has_work(self, now: Instant) -> bool:
        next_instant = self._timeline.next_instant()
        if next_instant is not None and next_instant <= now:
            return True
        if self._may_be_unknown_work():
            return True
        if self._parked and self._demand.ended:
            return True
        credit = self._demand.credit
        return any(credit(queue) for queue in self._timeline.overdue_queues()) or any(
            credit(queue) for queue in self._stored_queues()
        )

    # ---- job news

    def _take_in(self, news: JobNews) -> None:
        if self._sequence is not None and news.sequence != self._sequence + 1:
            self._sequence = None
            self._ask_for_snapshot()
        for event in news.events:
            self._learn(event, news.sequence)
        if self._sequence is not None:
            self._sequence = news.sequence

    def _learn(self, event: JobEvent, sequence: int) -> None:
        match event:
            case SnapshotBegun():
                self._timeline.clear()
                self._parked.clear()
                self._demand.watched.clear()
                self._sequence = sequence
            case SnapshotEnded():
                pass  # every job of the snapshot was taken up as it came
            case JobAdded(record):
                self._unpark(record.id)
                try:
                    self._take_up(record)
                except Exception as error:
                    self._break(record, error)
            case JobRemoved(job_id):
                self._forget(job_id)
            case RunRequested(queue, at, placed):
                self._demand.want(queue, at)
                self._demand.unknown_work = self._demand.unknown_work or not placed
            case _:
                assert_never(event)

    def _take_up(self, record: JobRecord) -> None:
        entry = self._timeline.put(record)
        if entry is not None and entry.bound.driven_by != "time":
            self._arm_event_driven(entry)

    def _break(self, record: JobRecord, error: Exception) -> None:
        """A schedule that fails to say its times is parked with a reason, and the other jobs go on (laws 9, 10)."""
        log.error("the schedule of job %r fails, the job is paused: %s", record.name, error)
        self._forget(record.id)
        self._broken.append((record, f"its schedule fails: {error}"))

    async def _park_broken(self) -> None:
        broken, self._broken = self._broken, []
        for record, reason in broken:
            await self._lane.write(partial(_pause, job_id=record.id, reason=reason, now=self._clock.now()))
            self._emit.emit(
                events.JobParked(
                    at=self._clock.now(),
                    job=record.name,
                    job_id=record.id,
                    generation=record.generation,
                    reason=reason,
                )
            )
        if broken:
            self._jobs_changed()

    def _forget(self, job_id: str) -> None:
        self._timeline.remove(job_id)
        self._unpark(job_id)

    def _unpark(self, job_id: str) -> None:
        if self._parked.pop(job_id, None) is not None:
            self._demand.watched.discard(job_id)

    def _arm_event_driven(self, entry: Entry) -> None:
        if entry.bound.driven_by == "completion":
            self._park(entry)
        elif entry.cursor < self._booted or not entry.record.fired:
            self._timeline.arm_at(entry, max(self._clock.now(), entry.cursor + 1))

    # ---- jobs whose next run hangs on the end of the present one

    def _park(self, entry: Entry) -> None:
        self._parked[entry.record.id] = entry
        self._demand.watched.add(entry.record.id)
        # Looked at once more before it rests: the end may have come before it was watched.
        self._demand.ended.setdefault(entry.record.id, 0)

    async def _resume_parked(self) -> None:
        if not self._parked:
            return
        ended = self._demand.take_ended()
        asked = [self._parked[job_id] for job_id in ended if job_id in self._parked]
        for start in range(0, len(asked), self._batch):
            await self._resume(asked[start : start + self._batch])

    async def _resume(self, entries: Sequence[Entry]) -> None:
        ids = [entry.record.id for entry in entries]
        busy, ends = await self._lane.read(lambda store: _ends_of(store, ids))
        for entry in entries:
            job_id = entry.record.id
            if job_id in busy or self._parked.pop(job_id, None) is None:
                continue
            self._demand.watched.discard(job_id)
            if entry.bound.driven_by == "completion":
                base = max(ends.get(job_id, entry.record.anchor), entry.cursor)
                self._timeline.arm_at(entry, base + (entry.bound.interval or 0))
            else:
                self._timeline.put_back(entry)

    # ---- firing

    async def _fire_due(self, now: Instant) -> None:
        chosen = await self._choose(now)
        if not chosen:
            return
        judged: list[tuple[Entry, Fire]] = []
        await in_batches(chosen, lambda some: judged.extend(self._judge(some, now)))
        fires = [fire for _, fire in judged]
        answer = await self._lane.write(lambda store: store.fire(fires, now))
        await in_batches(judged, lambda some: self._take_answer(some, answer, now))
        await self._after(answer, now)

    def _take_answer(self, judged: Sequence[tuple[Entry, Fire]], answer: Fired, now: Instant) -> None:
        refused, anywhere = answer.refused, dict[str, list[str]]()
        for entry, fire in judged:
            try:
                if fire.job_id in refused:
                    self._refused(entry, refused[fire.job_id])
                else:
                    self._fired(entry, fire, now, anywhere)
            except Exception as error:
                self._break(entry.record, error)
        for queue, execution_ids in anywhere.items():
            self._demand.sent(queue, len(execution_ids))
            self._outbox.add(ExecutionsDue(queue, execution_ids))

    def _judge(self, chosen: Sequence[Entry], now: Instant) -> list[tuple[Entry, Fire]]:
        judged: list[tuple[Entry, Fire]] = []
        next_after = self._timeline.next_after
        for entry, execution_id in zip(chosen, self._make_id.many(len(chosen)), strict=True):
            try:
                judged.append((entry, judge(entry, now, execution_id, next_after)))
            except Exception as error:
                self._break(entry.record, error)
        return judged

    async def _choose(self, now: Instant) -> list[Entry]:
        """The overdue jobs that get the credit there is, taken in turn from the queues."""
        chosen: list[Entry] = []
        self._share.clear()
        queues = self._timeline.overdue_queues()
        self._turns += 1
        for index in range(len(queues)):
            queue = queues[(index + self._turns) % len(queues)]
            room = min(self._demand.credit(queue), self._most - len(chosen))
            if room <= 0:
                continue
            if self._stored.is_hot(queue):
                chosen += await self._choose_beside_stored(queue, min(room, self._batch), now)
            else:
                chosen += await self._pop(queue, room)
        return chosen

    async def _pop(self, queue: str, room: int) -> list[Entry]:
        popped = self._timeline.pop(queue, min(room, self._batch))
        while len(popped) < room and self._timeline.head(queue) is not None:
            await checkpoint()
            popped += self._timeline.pop(queue, min(room - len(popped), self._batch))
        return popped

    async def _choose_beside_stored(self, queue: str, room: int, now: Instant) -> list[Entry]:
        # Each credit goes to the better of the overdue jobs and the store's ready work: that is the ready order.
        ready = await self._lane.read(lambda store: store.ready(now, room, queues=[queue]))
        ranks = [(-row.work.priority, row.due_at, row.id) for row in ready]
        chosen: list[Entry] = []
        stored = 0
        while len(chosen) + stored < room and (head := self._timeline.head(queue)) is not None:
            rank = (-head.record.job.work.priority, head.due, head.record.id)
            if stored < len(ranks) and ranks[stored] < rank:
                stored += 1
                continue
            chosen += self._timeline.pop(queue, 1)
        self._share[queue] = stored
        return chosen

    def _fired(self, entry: Entry, fire: Fire, now: Instant, anywhere: dict[str, list[str]]) -> None:
        """Go on to the job's next time. What runs wherever there is room is noted by queue, the rest is sent."""
        record = entry.record
        if fire.execution_id:
            definition = record.job.definition
            queue = definition.work.queue
            if isinstance(definition.run_on, Local):
                anywhere.setdefault(queue, []).append(fire.execution_id)
            else:
                self._demand.sent(queue)
                self._outbox.add(ExecutionDue(fire.execution_id, queue, record, fire.nominal))
        if fire.settled and self._emit.listening:
            self._tell_settled(entry, fire, now)
        if self._timeline.get(record.id) is not entry:
            return
        if entry.catching_up and now - entry.due <= record.job.misfire.grace:
            entry.catching_up = False
        driven_by = entry.bound.driven_by
        if driven_by == "time":
            self._timeline.arm(entry, fire.to)
        elif driven_by == "completion":
            entry.cursor = fire.to
            self._park(entry)

    def _refused(self, entry: Entry, refusal: Refusal) -> None:
        """The store knows better: another process fired it, or the job has changed, of which news will come."""
        if self._timeline.get(entry.record.id) is not entry:
            return
        record = refusal.record
        if refusal.why == "busy":
            self._park(entry)
        elif refusal.why == "moved" and record is not None and record.generation == entry.record.generation:
            entry.record = record
            if entry.bound.driven_by == "completion":
                entry.cursor = record.cursor
                self._park(entry)
            elif entry.bound.driven_by == "time":
                self._timeline.arm(entry, record.cursor)
        else:
            self._forget(entry.record.id)
            self._jobs_changed()

    async def _after(self, answer: Fired, now: Instant) -> None:
        await in_batches(answer.settled, lambda some: self._note_settled(some, now))
        if answer.stopped:
            await in_batches(answer.stopped, self._forget_all)
            self._jobs_changed()

    def _note_settled(self, settled: Sequence[Settlement], now: Instant) -> None:
        self._settled(settlement.execution_id for settlement in settled)
        self._demand.note_settled(settled, now)
        tell_settled(self._emit, settled, now)

    def _forget_all(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            self._forget(job_id)

    def _tell_settled(self, entry: Entry, fire: Fire, now: Instant) -> None:
        record = entry.record
        for settle in fire.settled:
            count = _count(entry.bound, settle)
            if count == 0:
                continue  # a span that may hold excluded times, and holds none
            self._emit.emit(
                events.ExecutionsMissed(
                    at=now,
                    job=record.name,
                    job_id=record.id,
                    generation=record.generation,
                    kind=settle.kind,
                    first=settle.start,
                    last=settle.end - 1,
                    count=count,
                )
            )

    # ---- work that is in the store already

    def _offer_stored_work(self, now: Instant) -> None:
        left, queues = self._most, self._stored_queues()
        for index in range(len(queues)):
            queue = queues[(index + self._turns) % len(queues)]
            credit = min(self._demand.credit(queue), left)
            if self._timeline.head(queue) is not None:
                credit = min(credit, self._share.get(queue, 0))
            if credit > 0:
                left -= credit
                self._demand.sent(queue, credit)
                self._outbox.add(WorkReady(queue, credit))

    def _stored_queues(self) -> list[str]:
        """Those with ready work that the executor does not ask for by itself."""
        return [queue for queue in self._stored.hot() if queue not in self._demand.drawn]

    async def _learn_when_dry_queues_fill(self) -> None:
        dry = self._stored.take_dry()
        if dry:
            now = self._clock.now()
            self._stored.learn(await self._lane.read(lambda store: store.next_due(now, queues=dry)))

    async def _look_into_store(self) -> None:
        """What waits there, whoever put it there: at the start, and again and again where other processes may."""
        self._looked_at = self._clock.monotonic()
        self._incarnation = self._demand.incarnation
        self._pause = _FIRST_PAUSE if self._demand.unknown_work else min(2 * self._pause, _LONGEST_PAUSE)
        self._demand.unknown_work = False
        await self._look_for_promised_work()
        waiting, unplaced, records = await self._lane.read(lambda store: _waiting_in(store, self._batch))
        self._stored.learn(waiting)
        for row in unplaced:
            # Without credit: on which node it waits for a slot is what is to be found out.
            if row.id not in self._demand.placing:
                self._demand.placing.add(row.id)
                record = records.get(row.job_id or "")
                self._outbox.add(PlacementWanted(row.id, row.work.queue, record, row.nominal, row.not_before))
        for job_id in self._parked:
            self._demand.ended.setdefault(job_id, 0)

    async def _look_for_promised_work(self) -> None:
        """Which of the callers' transactions have ended: asked before the look, which then sees what they committed."""
        if promised := dict(self._demand.promised):
            ended = await self._lane.read(lambda store: _ended_of(store, promised))
            self._demand.drop_promises(ended)


def _ended_of(store: Storage, promised: Mapping[str, int]) -> dict[str, int]:
    joined = joining(store)
    return {mark: promise for mark, promise in promised.items() if joined.has_ended(mark)}


def _count(bound: BoundSchedule, settle: Settle) -> int | None:
    """How many times it settles, where they are few: counting takes a step for each."""
    times = list(islice(bound.times(settle.start, settle.end), _MOST_COUNTED + 1))
    if len(times) > _MOST_COUNTED:
        return None
    return sum(bound.is_excluded(at) == (settle.kind is Kind.EXCLUDED) for at in times)


def _pause(store: Storage, job_id: str, reason: str, now: Instant) -> None:
    store.set_job_state(JobFilter(ids=[job_id]), JobState.PAUSED, now, reason=reason)


def _waiting_in(
    store: Storage, limit: int
) -> tuple[Mapping[str, Instant], Sequence[Execution], Mapping[str, JobRecord]]:
    """When queues have work, what waits for a node, and the jobs of that: a job that is over is not in the timeline."""
    unplaced = store.unplaced(LAST, limit)  # those for later too: a retry waits for its time where it will run
    ids = {row.job_id for row in unplaced if row.job_id is not None}
    records = store.list_jobs(JobFilter(ids=ids), limit=len(ids)).items if ids else ()
    return store.next_due(-1), unplaced, {record.id: record for record in records}


def _ends_of(store: Storage, job_ids: Sequence[str]) -> tuple[set[str], dict[str, Instant]]:
    """Which jobs have an unfinished execution, and when the last one of the others ended."""
    # What is cancelled occupies its job until its task has stopped; what a dead node left running, and
    # `recovery="keep"` keeps, does not.
    busy = {row.job_id for row in _running_in(store) if row.occupies and row.job_id in job_ids}
    ends: dict[str, Instant] = {}
    for job_id in job_ids:
        if store.list_executions(ExecutionFilter(job_ids=[job_id], states=UNSTARTED), limit=1).items:
            busy.add(job_id)
        if job_id in busy:
            continue
        last = store.list_executions(ExecutionFilter(job_ids=[job_id]), Order.FINISHED_DESC, 1).items
        if last and last[0].finished_at is not None:
            ends[job_id] = last[0].finished_at
    return {job_id for job_id in busy if job_id is not None}, ends


def _running_in(store: Storage) -> list[Execution]:
    """On all nodes: no more than there are slots."""
    rows: list[Execution] = []
    page = store.running(limit=_PAGE)
    while page:
        rows += page
        page = store.running(limit=_PAGE, after=page[-1].attempt_id) if len(page) == _PAGE else ()
    return rows
