"""The job broadcaster: owns the jobs and their generations, and tells the chain which of them are to be fired.

A command is done when the store has committed it; then the job's news goes down the chain, where it is a hint, because
fire and start ask the store again. What other processes change in the store is read from there by revision. It knows
nothing of time, but for how often to look there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar, assert_never

from anyio.lowlevel import checkpoint

from ..model import events
from ..model.clock import Clock
from ..model.errors import ClepsydraError, JobNotFound, StoreBusy
from ..model.execution import Cause, Ending
from ..model.filters import EVERY_JOB, Order
from ..model.instants import Instant
from ..model.job import RUN_OUT, JobRecord, JobState
from ..model.strategies import LOCAL
from ..storage.lane import StorageLane
from ..storage.protocol import Changes, JobChange, JobPage, NewJob, Storage
from .channel import Channel
from .commands import AnyCommand, ChangeState, Mailbox, PutJobs, RemoveJobs, RunJob, manual_run
from .job_book import BookedJobs, JobBook
from .messages import JobAdded, JobEvent, JobNews, JobRemoved, RunRequested, SnapshotBegun, SnapshotEnded
from .turns import in_batches

log = logging.getLogger("clepsydra.job_broadcaster")

T = TypeVar("T")

_MOST_AT_ONCE = 64
_MOST_TRIES = 3
_PAGE = 1000
"""Jobs that are read in one call, where there are more."""


class JobBroadcaster:
    """Owns the jobs.

    Receives  commands
    Sends     JobNews: JobAdded, JobRemoved, RunRequested, and snapshots
    """

    def __init__(
        self,
        inbox: Channel[object],
        mailbox: Mailbox,
        outlet: Channel[JobNews],
        book: JobBook,
        lane: StorageLane,
        clock: Clock,
        *,
        batch: int,
        poll: float | None,
        cancel: Callable[[str, str], object],
        withdraw: Callable[..., object],
        emit: events.Emitter,
    ) -> None:
        self._inbox, self._mailbox, self._outlet, self._book = inbox, mailbox, outlet, book
        self._lane, self._clock, self._batch, self._poll = lane, clock, batch, poll
        self._cancel, self._withdraw, self._emit = cancel, withdraw, emit
        # By job or queue: only the latest word on each is worth sending, and so there are never more than those.
        self._news: dict[str, JobEvent] = {}
        self._sequence = 0
        self._wants_snapshot = False
        self._wants_sync = False
        self._snapshot: list[JobRecord] | None = None
        self._synced_at = clock.monotonic()

    # ---- what the neighbours may ask, on the loop

    def ask_for_snapshot(self) -> None:
        """The reader of the news has to begin anew."""
        self._wants_snapshot = True
        self._inbox.nudge()

    def ask_for_sync(self) -> None:
        """Something in the store has changed jobs."""
        self._wants_sync = True
        self._inbox.nudge()

    # ---- the stage

    async def run(self) -> None:
        """Load the jobs, then serve commands until cancelled."""
        with self._inbox.attended():
            await self._load()
            while True:
                # What the incarnation before had begun comes first: commands are idempotent by the ids they carry.
                await self._serve()
                if self._wants_sync or self._until_poll() == 0.0:
                    await self._sync()
                self._publish()
                await self._inbox.receive(0 if len(self._mailbox) or self._can_send() else self._until_poll())

    def _until_poll(self) -> float | None:
        """Seconds until the store is to be looked at for what others have changed; None: nobody else can."""
        if self._poll is None:
            return None
        return max(0.0, self._synced_at + self._poll - self._clock.monotonic())

    async def _load(self) -> None:
        """Take the jobs from the store; the chain gets them as a snapshot."""
        await self._reload()
        self._wants_snapshot = True
        self._publish()

    async def _serve(self) -> None:
        left = _MOST_AT_ONCE
        while commands := self._mailbox.first(left):  # anew each time: callers may have given up meanwhile
            together = _that_go_together(commands)
            for command in together:
                command.taken += 1
            if together[0].taken > _MOST_TRIES:
                together = together[:1]
                together[0].fail(ClepsydraError("this command has crashed the job broadcaster again and again"))
            else:
                await self._answer(together)
            self._mailbox.answered(together)
            left -= len(together)
            self._publish()

    async def _answer(self, commands: Sequence[AnyCommand]) -> None:
        try:
            match commands[0]:
                case PutJobs():
                    await self._put([command for command in commands if isinstance(command, PutJobs)])
                case ChangeState() as change:
                    await self._change_state(change)
                case RemoveJobs() as removal:
                    await self._remove(removal)
                case RunJob() as run:
                    await self._run_job(run)
                case _:
                    assert_never(commands[0])
        except Exception as error:  # the store's answer, or a caller's mistake: theirs, not ours
            self._wants_sync = True  # it may have been done nevertheless
            for command in commands:
                command.fail(error)
            return
        for command in commands:
            command.done.set()

    # ---- commands

    async def _put(self, commands: Sequence[PutJobs]) -> None:
        wanted = [command for command in commands if not command.given_up]
        if not wanted:
            return
        new = [
            NewJob(job_id, job, command.declared, self._known_revision(job.name), command.create_only)
            for command in wanted
            for job_id, job in command.jobs
        ]
        changes = list(await self._write(commands, lambda store: store.put_jobs(new, self._clock.now())))
        if any(change.change == "stale" for change in changes):
            await self._sync()  # another process was faster; what it did is known now, so this is a later command
            again = [_as_of(item, self._known_revision(item.job.name)) for item in new]
            changes = list(await self._write(commands, lambda store: store.put_jobs(again, self._clock.now())))
        for command in wanted:
            command.answer, changes = changes[: len(command.jobs)], changes[len(command.jobs) :]
            self._apply(command.answer)

    def _known_revision(self, name: str) -> int:
        record = self._book.by_name.get(name)
        return max(self._book.revision, 0 if record is None else record.revision)

    async def _change_state(self, command: ChangeState) -> None:
        if command.given_up:
            return
        command.answer = list(
            await self._write(
                [command],
                lambda store: store.set_job_state(
                    command.where, command.state, self._clock.now(), reason=command.reason
                ),
            )
        )
        self._apply(command.answer)
        if not command.answer:
            await self._sync()  # nothing to change, or changed by a try whose answer was lost

    async def _remove(self, command: RemoveJobs) -> None:
        if command.given_up:
            return
        command.answer = list(await self._write([command], lambda store: _remove(store, command, self._clock.now())))
        await self._forget(command.answer)
        if not command.answer:
            await self._sync()

    async def _run_job(self, command: RunJob) -> None:
        record = self._book.by_name.get(command.name)
        if record is None:
            raise JobNotFound(command.name, self._book.by_name)
        if command.given_up:
            return
        item = manual_run(record, command.execution_id, self._clock.now())
        # Noted first: when the answer to the write is lost, it may be in the store nevertheless.
        self._request_run(record, item.due_at)
        await self._write([command], lambda store: store.add_executions([item], self._clock.now()))

    def _request_run(self, record: JobRecord, at: Instant) -> None:
        """An execution of the job that no schedule named is due."""
        queue, placed = record.job.work.queue, record.job.run_on == LOCAL
        self._note(f"queue {queue} {placed}", RunRequested(queue, at, placed))

    async def _write(self, commands: Sequence[AnyCommand], call: Callable[[Storage], T]) -> T:
        left = max(command.deadline for command in commands) - self._clock.monotonic()
        if left <= 0:
            raise StoreBusy("the deadline had passed before the store was asked; nothing was changed")
        return await self._lane.write(call, deadline=left, command=True)

    # ---- what has changed

    def _apply(self, changes: Sequence[JobChange]) -> None:
        for change in changes:
            if change.change in ("exists", "stale"):
                continue
            before = self._book.by_name.get(change.record.name)
            self._book.put(change.record)
            if change.record.revision == self._book.revision + 1:
                self._book.revision += 1  # nothing of others lies between: this need not be read again
            if change.change == "unchanged" and _is_as_known(before, change.record):
                continue
            self._tell(before, change)
            self._withdraw_old(before, change.record)
            if change.change == "added" and change.record.job.immediate:
                self._request_run(change.record, change.record.created_at)
            changed = change.change in ("updated", "rescheduled") and not _has_only_run_out(before, change.record)
            if change.settled or changed:
                self._tell_of_waiting(change.record)

    def _tell_of_waiting(self, record: JobRecord) -> None:
        """What waited behind that which the change has settled, or for another queue or overlap, may be ready now."""
        queue = record.job.work.queue
        self._note(f"queue {queue} True", RunRequested(queue, self._clock.now()))

    def _tell(self, before: JobRecord | None, change: JobChange) -> None:
        record = change.record
        if before is not None and before.id != record.id:
            self._note(before.id, JobRemoved(before.id, before.name))
        fires = self._book.fires(record)
        self._note(record.id, JobAdded(record) if fires else JobRemoved(record.id, record.name))
        if not self._emit.listening:
            return
        at, job, job_id, generation = self._clock.now(), record.name, record.id, record.generation
        if change.change == "added" or before is None:
            self._emit.emit(events.JobAdded(at=at, job=job, job_id=job_id, generation=generation, state=record.state))
            return
        self._emit.emit(
            events.JobUpdated(
                at=at,
                job=job,
                job_id=job_id,
                generation=generation,
                old_state=before.state,
                new_state=record.state,
                old_generation=before.generation,
                reason=record.reason,
            )
        )

    def _withdraw_old(self, before: JobRecord | None, record: JobRecord) -> None:
        """What this node has claimed of the job's past and not begun does not begin any more (law 7)."""
        if before is None:
            return
        if before.id != record.id or before.schedule_generation != record.schedule_generation:
            self._withdraw([before.id], Ending.CANCELLED)
        elif record.state is JobState.PAUSED or (record.state is JobState.STOPPED and record.reason not in RUN_OUT):
            self._withdraw([before.id], Ending.CANCELLED, Cause.SCHEDULE)
        elif before.generation != record.generation:
            # Its waiting work is kept: given back, it starts under the new definition.
            self._withdraw([before.id], Ending.GIVEN_BACK)

    async def _forget(self, records: Sequence[JobRecord]) -> None:
        if records:
            self._withdraw({record.id for record in records}, Ending.CANCELLED)
        await in_batches(records, self._drop)

    def _drop(self, records: Sequence[JobRecord]) -> None:
        for record in records:
            self._book.drop(record)
            self._note(record.id, JobRemoved(record.id, record.name))
        for record in records if self._emit.listening else ():
            self._emit.emit(
                events.JobRemoved(at=self._clock.now(), job=record.name, job_id=record.id, generation=record.generation)
            )
        self._publish()

    # ---- what others have changed

    async def _sync(self) -> None:
        self._wants_sync = False
        self._synced_at = self._clock.monotonic()
        changes = await self._lane.read(lambda store: store.changes(self._book.revision))
        if not changes.complete or self._book.revision < 0:
            await self._reload()
            self._wants_snapshot = True
            return
        await self._take_in(changes)

    async def _take_in(self, changes: Changes) -> None:
        gone = [self._book.by_name[name] for job_id, name in changes.removed if self._book.holds(name, job_id)]
        await self._forget(gone)
        for start in range(0, len(changes.jobs), _MOST_AT_ONCE):
            self._apply([_as_change(record, self._book) for record in changes.jobs[start : start + _MOST_AT_ONCE]])
            self._publish()
            await checkpoint()
        for _, attempt_id in changes.cancelled:
            self._cancel(attempt_id, "cancelled on request")
        self._book.revision = max(self._book.revision, changes.revision)

    async def _reload(self) -> None:
        """Read all jobs; where they are many in several calls, since one that takes too long is taken for hung."""
        # The revision first: what changes in between is then seen twice rather than never.
        revision, records = await self._lane.read(_all_if_few)
        jobs = BookedJobs()
        if records is not None:
            await in_batches(records, jobs.put_all)
        else:
            await self._read_pages(jobs)
        self._book.replace(jobs)
        self._book.revision = revision
        self._book.loaded.set()

    async def _read_pages(self, jobs: BookedJobs) -> None:
        cursor, left = None, True
        while left:
            page = await self._lane.read(partial(_page, cursor=cursor))
            await in_batches(page.items, jobs.put_all)
            cursor, left = page.cursor, page.cursor is not None

    # ---- sending

    def _note(self, key: str, event: JobEvent) -> None:
        self._news.pop(key, None)  # the later word goes behind what was said since the earlier
        self._news[key] = event

    def _publish(self) -> None:
        """Send a batch, if there is room. What is left goes when the loop has turned, or the reader has made room."""
        if not self._can_send():
            return
        if self._wants_snapshot:
            self._wants_snapshot = False
            self._news.clear()
            self._snapshot = list(reversed(self._book.by_name.values()))
            self._send([SnapshotBegun()])
        elif self._snapshot is not None:
            self._send(self._next_of_snapshot(self._snapshot))
        else:
            keys = list(islice(self._news, self._batch))
            self._send([self._news.pop(key) for key in keys])

    def _can_send(self) -> bool:
        has_some = self._wants_snapshot or self._snapshot is not None or bool(self._news)
        return has_some and self._outlet.has_room()

    def _next_of_snapshot(self, left: list[JobRecord]) -> list[JobEvent]:
        part = [left.pop() for _ in range(min(self._batch, len(left)))]
        known = [self._as_of_now(record) for record in part]
        rows: list[JobEvent] = [JobAdded(record) for record in known if record is not None]
        if not left:
            rows.append(SnapshotEnded())
            self._snapshot = None
        return rows

    def _as_of_now(self, record: JobRecord) -> JobRecord | None:
        """The job as the book has it by now, perhaps changed, perhaps only read again. None: it is not fired."""
        known = self._book.by_name.get(record.name)
        return known if known is not None and known.id == record.id and self._book.fires(known) else None

    def _send(self, rows: Sequence[JobEvent]) -> None:
        self._sequence += 1
        self._outlet.send_nowait(JobNews(self._sequence, rows))


def _that_go_together(commands: Sequence[AnyCommand]) -> list[AnyCommand]:
    """The first command, and those right behind it that one call to the store can answer with it."""
    first = commands[0]
    if not isinstance(first, PutJobs):
        return [first]
    together: list[AnyCommand] = [first]
    rows = len(first.jobs)
    for command in commands[1:]:
        if not isinstance(command, PutJobs) or rows + len(command.jobs) > _MOST_AT_ONCE:
            break
        together.append(command)
        rows += len(command.jobs)
    return together


def _as_of(item: NewJob, revision: int) -> NewJob:
    """The same definition, as of a later revision."""
    return NewJob(item.id, item.job, item.declared, revision, item.create_only)


def _as_change(record: JobRecord, book: JobBook) -> JobChange:
    known = book.by_name.get(record.name)
    if known is None or known.id != record.id:
        return JobChange(record, "added")
    return JobChange(record, "unchanged" if _is_as_known(known, record) else "updated", known.state)


def _is_as_known(known: JobRecord | None, record: JobRecord) -> bool:
    """Whether the chain knows the job like this. If not, a try whose answer was lost has made it so, or another
    process.
    """
    if known is None or known.id != record.id:
        return False
    return known.generation == record.generation and known.state is record.state


def _has_only_run_out(known: JobRecord | None, record: JobRecord) -> bool:
    """Whether the job has come to its end by itself, and is else as it was: then nothing waited for that."""
    return known is not None and known.generation == record.generation and record.reason in RUN_OUT


def _all_if_few(store: Storage) -> tuple[int, Sequence[JobRecord] | None]:
    """The last revision, and the jobs if one call can give them."""
    revision = store.changes(2**62).revision
    if store.blocking and store.count_jobs() > _PAGE:
        return revision, None
    return revision, store.load_jobs() or ()


def _page(store: Storage, cursor: str | None) -> JobPage:
    return store.list_jobs(EVERY_JOB, Order.ID, _PAGE, cursor)


def _remove(store: Storage, command: RemoveJobs, now: int) -> Sequence[JobRecord]:
    records = store.delete_jobs(command.where, now)
    if command.everything:
        store.purge()
    return records
