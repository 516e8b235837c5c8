"""The executor: claims what may start, hands it to the worker pool, and records how it ended.

`start` in the store is the only claim. Each turn sends the outcomes of what has ended and the claims of what is to
start down together, so that one transaction serves both. While it rests, a claim may go down with an enqueue: what
comes in then starts in the transaction that brings it. The tasks run in the pool, which outlives this stage: a new
executor asks the pool what runs, compares it with what the store has for this node, and gives back what nobody runs.

Where the store has more ready work of a queue than there are slots, the executor asks for it by itself, and if the runs
are short for more than the slots take (`ahead.py`): these run while the store is written to, not in turn with it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import anyio
from anyio.lowlevel import checkpoint

from ..model import events
from ..model.clock import Clock
from ..model.errors import StoreError
from ..model.execution import Ending, Execution, Outcome, State
from ..model.instants import Instant
from ..storage.lane import Companion, StorageLane
from ..storage.protocol import Beat, BeatAnswer, Claim, Finished, Settlement, Started, Storage, TaskRoom
from .ahead import LONGEST_WAIT, Ahead
from .channel import Channel
from .demand import Demand
from .lease import Lease
from .messages import ExecutionsPlaced, PlacedEvent, WorkReady
from .slots import Slots, TaskSlots
from .telling import tell_settled
from .turns import BATCH, in_batches
from .waiters import Waiters
from .worker_pool import WorkerPool

log = logging.getLogger("clepsydra.executor")

_PAGE = 500
_ANSWERED_WITHIN = 4
"""Turns of the event loop in which the stages above answer to room, when they have ready work at hand."""
_GATHERED_WITHIN = 0.005
"""Seconds in which the pool, about to begin much, may end some of it before the store is told of what has ended."""


class Executor:
    """Claims, runs, records.

    Receives  ExecutionsPlaced, WorkReady
    Sends     claims to the pool, demand to the execution broadcaster
    """

    def __init__(
        self,
        inbox: Channel[list[PlacedEvent]],
        pool: WorkerPool,
        lane: StorageLane,
        clock: Clock,
        demand: Demand,
        slots: Slots,
        task_slots: TaskSlots,
        lease: Lease,
        waiters: Waiters,
        *,
        node_id: str,
        heartbeat: float | None,
        make_id: Callable[[], str],
        demand_changed: Callable[[], None],
        emit: events.Emitter,
    ) -> None:
        self._inbox, self._pool, self._lane, self._clock = inbox, pool, lane, clock
        self._demand, self._slots, self._lease, self._waiters = demand, slots, lease, waiters
        self._task_slots = task_slots
        self._node_id, self._heartbeat, self._make_id = node_id, heartbeat, make_id
        self._demand_changed, self._emit = demand_changed, emit
        self._most = lane.batches * BATCH
        """Claims, and outcomes, in one write."""
        self._ahead = Ahead(self._most)
        self._losses = self._turns = 0
        self._beaten_at = clock.monotonic()
        self.claiming = True
        """False while draining: nothing more is started."""
        self._at_work, self._at_rest = True, anyio.Event()
        self._offer_answered: anyio.Event | None = None
        """While a claim goes down with an enqueue: nothing else is claimed then, so that no slot is taken twice."""
        self._offer_failed: BaseException | None = None

    # ---- the stage

    async def run(self) -> None:
        """Compare the store with the pool, then claim and record until cancelled."""
        with self._inbox.attended():
            self._demand.restarted()
            await self._reconcile()
            self._publish()
            self._inbox.nudge()  # the one before may have left outcomes in the pool, of which it had been told
            while True:
                self._come_to_rest()
                batch = await self._inbox.receive(self._patience())
                self._at_work = True
                await self._turn(await self._with_more(batch or await self._answer()))

    def _come_to_rest(self) -> None:
        self._at_work = False
        self._at_rest.set()

    async def wait_at_rest(self) -> None:
        """Until nothing is asked of the store, and what a lost answer has claimed is given back."""
        while self._at_work or self._offer_answered is not None or self._lane.losses != self._losses:
            self._at_rest = anyio.Event()
            self._inbox.nudge()
            await self._at_rest.wait()

    async def _with_more(self, batch: Sequence[PlacedEvent]) -> Sequence[PlacedEvent]:
        """What has come behind this batch as well, where one write takes more than one."""
        events = list(batch)
        while events and sum(map(_slots_of, events)) + BATCH <= self._most:
            more = await self._inbox.receive(0)
            if not more:
                break
            events += more
        return events

    async def _answer(self) -> Sequence[PlacedEvent]:
        """What is to fill the room that has come free, if the stages above know that at once.

        Then one transaction records what has ended and claims what follows.
        """
        if not self._demand.hot and not self._demand.drawn:
            return []
        if self._demand.drawn and self._pool.is_worth_a_write(BATCH):
            return []
        # First of all the runs of the same turn end as well: asked for at the first end, the rest would come too late.
        batch = await self._inbox.receive(0)
        if self._demand.drawn:
            return batch or await self._gather()
        self._publish()
        for _ in range(_ANSWERED_WITHIN):
            batch = batch or await self._inbox.receive(0)
        return batch or []

    async def _gather(self) -> Sequence[PlacedEvent]:
        """Let the pool get on, while it is about to begin more than it has ended."""
        until = self._clock.monotonic() + _GATHERED_WITHIN
        batch: Sequence[PlacedEvent] | None = None
        for _ in range(self._lane.batches):
            if batch or self._pool.is_worth_a_write() or self._clock.monotonic() > until:
                break
            batch = await self._inbox.receive(0)
        return batch or []

    async def _turn(self, batch: Sequence[PlacedEvent]) -> None:
        await self._until_offer_is_answered()
        await self._give_back_what_waits()
        outcomes = self._pool.outcomes(self._most)
        items, free = self._wanted(batch)
        refilled = self._refill(batch, items, free)
        drawn = self._draw(items, free)
        if outcomes or items or free:
            rooms = self._rooms()
            started = await self._write(outcomes, items, free, rooms)
            if (items or free) and rooms:
                self._task_slots.asked({event.queue for event in batch} | refilled, _left_of(rooms, started.claims))
                self._ask_for_more(refilled.difference(started.dry))
        if self._lane.losses != self._losses:  # at once: what a lost answer has claimed wakes nobody
            await self._reconcile()
            if self._lane.losses != self._losses:  # others have lost answers meanwhile: after what else there is to do
                self._inbox.nudge()
        for event in batch:
            self._demand.settle(event.queue, _slots_of(event))
        for queue, count in drawn.items():
            self._demand.settle(queue, count)
        if self._heartbeat_is_due():
            await self._beat()
        self._publish()
        if self._has_slots_to_draw_for() or (len(outcomes) == self._most and self._pool.outcomes(1)):
            self._inbox.nudge()  # others have their turn first

    def _wanted(self, batch: Sequence[PlacedEvent]) -> tuple[list[str], dict[str, int]]:
        """What of a batch there is room for, in the slots and in one write. The rest stays pending in the store."""
        items: list[str] = []
        free: dict[str, int] = {}
        if not self._may_claim():
            self._leave_for_later(batch)
            return items, free
        left: dict[str, int] = {}
        in_all = min(self._slots.free_in_all(self._pool), self._most)
        for event in batch:
            queue, wanted = event.queue, _slots_of(event)
            taken = min(wanted, left.setdefault(queue, self._slots.free(queue, self._pool)), in_all)
            if isinstance(event, ExecutionsPlaced):
                items += event.execution_ids[:taken]
            elif taken:
                free[queue] = free.get(queue, 0) + taken
            left[queue] -= taken
            in_all -= taken
            if taken < wanted:  # sent for the slots of before: they became fewer, or belonged to an executor that died
                self._demand.want(queue, self._clock.now())
        return items, free

    def _refill(self, batch: Sequence[PlacedEvent], items: Sequence[str], free: dict[str, int]) -> set[str]:
        """Ask for as much as tasks that were full have room for by now. Gives the queues that are asked for it.

        More than that need not be asked of those queues: what else was there has started. Only where slots are short
        somebody else may come first, who waits above; there the broadcaster decides, and of queues in this batch.
        """
        refilled: set[str] = set()
        freed = self._task_slots.take_freed(self._running_tasks()) if self._may_claim() else {}
        if not freed:
            return refilled
        short = {event.queue for event in batch}
        left = 0 if self._slots.limit is not None else self._most - len(items) - sum(free.values())
        for queue, room in freed.items():
            if room <= left and room < self._slots.free(queue, self._pool) and queue not in short:
                free[queue] = room
                left -= room
                refilled.add(queue)
            else:
                self._demand.want(queue, self._clock.now())
        return refilled

    def _ask_for_more(self, not_dry: set[str]) -> None:
        """These queues had more; what waits there for a task that is full is asked for when it has room again."""
        for queue in not_dry:
            if not self._task_slots.remembers(queue):  # others were before them
                self._demand.want(queue, self._clock.now())

    # ---- what is asked for without being told to

    def _draw(self, items: Sequence[str], free: dict[str, int]) -> dict[str, int]:
        """Ask for as much as there is room for of the queues that have more. Gives what is asked for."""
        drawn: dict[str, int] = {}
        left = self._most - len(items) - sum(free.values())
        for queue, room in self._drawable():
            if count := min(room, left):
                drawn[queue] = count
                left -= count
                free[queue] = free.get(queue, 0) + count
                self._demand.sent(queue, count)
        return drawn

    def _has_slots_to_draw_for(self) -> bool:
        """What is claimed ahead alone is not worth a transaction: it goes with the next outcomes."""
        free, under_way = self._slots.free, self._demand.under_way
        return any(free(queue, self._pool) > under_way(queue) for queue in self._demand.drawn)

    def _drawable(self) -> Iterator[tuple[str, int]]:
        """The queues of which more is asked for now, with how much; each time another one is the first."""
        if not self._may_claim() or not self._may_draw():
            self._demand.drawn.clear()
        queues = sorted(self._demand.drawn)
        self._turns += 1
        for index in range(len(queues)):
            queue = queues[(index + self._turns) % len(queues)]
            room = self._slots.free(queue, self._pool, self._ahead.of(queue)) - self._demand.under_way(queue)
            if room > 0:
                yield queue, room

    def _may_draw(self) -> bool:
        """Not where another limit than a queue's has to be kept, and not from a store that answers at once."""
        return not self._lane.is_direct and self._slots.limit is None and not self._task_slots.are_used

    def _take_stock(self, asked: Iterable[str], dry: Collection[str]) -> None:
        """The store has answered, and its claims are not in the pool yet."""
        self._ahead.rest_all_but(self._demand.drawn)
        waited, took = self._pool.take_stock()
        now = self._clock.monotonic()
        for queue in asked:
            if queue in dry or queue in self._demand.overdue or not self._may_draw():
                self._demand.drawn.discard(queue)
                self._ahead.rest(queue)
                continue
            self._demand.drawn.add(queue)
            waiting = self._pool.ahead(queue)
            self._ahead.learn(
                queue,
                self._slots.of(queue),
                now,
                waiting=waiting,
                waited=waited.get(queue, 0.0),
                took=took.get(queue),
            )

    async def _give_back_what_waits(self) -> None:
        """What has waited for a slot for too long is given back: other nodes may have room, or worthier work."""
        now = self._clock.monotonic()
        for queue, since in self._pool.ahead_since().items():
            if now - since >= LONGEST_WAIT:
                self._ahead.gave_back(queue, now)
                while self._pool.give_back_ahead(queue, BATCH):
                    await checkpoint()

    def _rooms(self) -> Sequence[TaskRoom]:
        return self._task_slots.rooms(self._running_tasks()) if self._task_slots.are_used else ()

    def _running_tasks(self) -> Iterator[str]:
        return (run.claim.work.task for run in self._pool.running().values())

    def _may_claim(self) -> bool:
        return self.claiming and self._lease.held(self._clock.monotonic())

    def _leave_for_later(self, batch: Sequence[PlacedEvent]) -> None:
        for event in batch:
            self._demand.want(event.queue, self._clock.now())

    # ---- claims that go down with an enqueue

    def offer(self, queue: str) -> Companion | None:
        """Work for this queue is about to go down: what starts in the same transaction, as far as there are slots.

        None: it goes the usual way. So it does while this stage is at work, whose next claim may serve more, and where
        jobs are due that have waited for a slot: which of them comes first is for the execution broadcaster to say.
        """
        credit = self._demand.credit(queue)
        if not credit or self._at_work or self._offer_answered is not None or queue in self._demand.overdue:
            return None
        slots = min(credit, self._slots.free(queue, self._pool), self._slots.free_in_all(self._pool), BATCH)
        if not slots or not self._may_claim():
            return None
        self._offer_answered = anyio.Event()
        self._demand.sent(queue, slots)
        self._pool.claims_are_asked_for()
        tasks, rooms = self._pool.task_names(), self._rooms()

        def start(store: Storage) -> Started:
            return store.start(self._node_id, self._clock.now(), free={queue: slots}, tasks=tasks, rooms=rooms)

        take_answer = partial(self._take_offered, self._demand.incarnation, queue, slots, rooms)
        return Companion(start, "starting what was just enqueued", take_answer)

    def _take_offered(
        self,
        incarnation: int,
        queue: str,
        slots: int,
        rooms: Sequence[TaskRoom],
        answer: object,
        error: BaseException | None,
    ) -> None:
        """Start what was claimed, at once: whoever succeeds this stage finds it in the pool."""
        started = Started() if error is not None else cast(Started, answer)
        self._pool.submit(started.claims)
        self._note_started(started)
        self._note_settled(started.settled)
        self._pool.claims_have_come()
        assert self._offer_answered is not None
        self._offer_answered.set()
        self._offer_answered = None
        if incarnation != self._demand.incarnation:
            return
        self._demand.settle(queue, slots)
        if error is not None:
            self._offer_failed = error
            self._inbox.nudge()  # it may be lost, or a bug
            return
        if rooms:
            self._task_slots.asked([queue], _left_of(rooms, started.claims))
        if queue not in started.dry:
            self._demand.want(queue, self._clock.now())
        self._publish()

    async def _until_offer_is_answered(self) -> None:
        if self._offer_answered is not None:
            await self._offer_answered.wait()
        error, self._offer_failed = self._offer_failed, None
        if error is not None and not (isinstance(error, StoreError) and error.transient):
            raise error

    # ---- the store

    async def _write(
        self, outcomes: Sequence[Outcome], items: Sequence[str], free: dict[str, int], rooms: Sequence[TaskRoom]
    ) -> Started:
        """Record outcomes and claim, and start what was claimed."""
        self._pool.claims_are_asked_for()
        try:
            return await self._write_and_launch(outcomes, items, free, rooms)
        finally:
            self._pool.claims_have_come()  # or never will: what a lost answer has claimed is given back

    async def _write_and_launch(
        self, outcomes: Sequence[Outcome], items: Sequence[str], free: dict[str, int], rooms: Sequence[TaskRoom]
    ) -> Started:
        tasks = self._pool.task_names()

        def both(store: Storage) -> tuple[Finished, Started]:
            now = self._clock.now()  # asked at each try: what has expired while the store was away is not started
            finished = store.finish(outcomes, now)
            return finished, store.start(self._node_id, now, items=items, free=free, tasks=tasks, rooms=rooms)

        try:
            finished, started = await self._lane.write(both)
        except StoreError as error:
            if not outcomes:
                raise
            log.error("the store refuses outcomes as they are, each is tried alone: %s", error)
            await self._record_one_by_one(outcomes)
            self._demand.unknown_work = True  # what was to start is left for later
            return Started()
        if free:
            self._take_stock(free, started.dry)
        await self._recorded(outcomes, finished)
        await self._launch(started)
        return started

    async def _record_one_by_one(self, outcomes: Sequence[Outcome]) -> None:
        """One outcome that the store cannot take must not keep the others, or crash this stage again and again."""
        for outcome in outcomes:
            try:
                finished = await self._lane.write(partial(_finish, outcomes=[outcome], now=self._clock.now()))
            except StoreError as error:
                log.error("the outcome of attempt %s cannot be recorded: %s", outcome.attempt_id, error)
                self._pool.acknowledge([outcome.attempt_id])
            else:
                await self._recorded([outcome], finished)

    async def _recorded(self, outcomes: Sequence[Outcome], finished: Finished) -> None:
        if not outcomes:
            return
        self._demand.note_finished(finished, self._clock.now())

        def acknowledge(some: Sequence[Outcome]) -> None:
            if finished.stale:
                self._tell_stale([outcome for outcome in some if outcome.attempt_id in finished.stale])
            self._pool.acknowledge([outcome.attempt_id for outcome in some])
            self._waiters.notify(outcome.execution_id for outcome in some)

        await in_batches(outcomes, acknowledge)

    def _tell_stale(self, outcomes: Sequence[Outcome]) -> None:
        now = self._clock.now()
        for outcome in outcomes:
            log.info("attempt %s was not this node's any more; its outcome is ignored", outcome.attempt_id)
            if self._emit.listening:
                self._emit.emit(_refused(self._pool.claim_of(outcome.attempt_id), now))

    async def _launch(self, started: Started) -> None:
        await in_batches(started.claims, self._pool.submit)
        self._note_started(started)
        await in_batches(started.settled, self._note_settled)

    def _note_started(self, started: Started) -> None:
        for _, attempt_id in started.cancelled:
            self._pool.cancel(attempt_id, "cancelled to make room for a later run")
        self._demand.dry |= started.dry

    def _note_settled(self, settled: Sequence[Settlement]) -> None:
        self._waiters.notify(settlement.execution_id for settlement in settled)
        self._demand.note_settled(settled, self._clock.now())
        tell_settled(self._emit, settled, self._clock.now())

    def _publish(self) -> None:
        self._demand.open = self._may_claim()
        if self._demand.publish(*self._slots.levels(self._pool)):
            self._demand_changed()

    # ---- what this node holds

    async def _reconcile(self) -> None:
        """After a restart or a lost answer: what the store says this node runs and nobody here runs is given back."""
        self._losses = self._lane.losses
        self._demand.unknown_work = True  # what ended or became ready was in the answer as well
        held = await self._lane.write(self._held_in_store)
        known = self._pool.known_attempts()
        lost = [row for row in held if row.attempt_id not in known]
        for start in range(0, len(lost), BATCH):
            outcomes = [self._given_back(row) for row in lost[start : start + BATCH]]
            await self._lane.write(partial(_finish, outcomes=outcomes, now=self._clock.now()))
        for row in lost:
            self._demand.want(row.work.queue, self._clock.now())

    def _held_in_store(self, store: Storage) -> list[Execution]:
        # Asked in the writers' line: a start whose answer was lost may still be on its way there.
        held: list[Execution] = []
        page = store.running(self._node_id, _PAGE)
        while page:
            held += page
            page = store.running(self._node_id, _PAGE, held[-1].attempt_id) if len(page) == _PAGE else ()
        return held

    def _given_back(self, row: Execution) -> Outcome:
        now = self._clock.now()
        ending = Ending.CANCELLED if row.state is State.CANCELLED else Ending.GIVEN_BACK
        return Outcome(
            row.id, row.attempt_id, self._node_id, ending, now, next_attempt_id=self._make_id(), not_before=now
        )

    # ---- signs of life

    def _patience(self) -> float | None:
        """Until the next heartbeat, or until something has waited for a slot for too long."""
        until = self._until_heartbeat()
        since = self._pool.ahead_since()
        if not since:
            return until
        late = max(0.0, min(since.values()) + LONGEST_WAIT - self._clock.monotonic())
        return late if until is None else min(until, late)

    def _until_heartbeat(self) -> float | None:
        if self._heartbeat is None or not self._pool.busy_queues():
            return None
        return max(0.0, self._beaten_at + self._heartbeat - self._clock.monotonic())

    def _heartbeat_is_due(self) -> bool:
        return self._until_heartbeat() == 0.0

    async def _beat(self) -> None:
        """Tell the store what runs, with its progress, and hear what must stop."""
        self._beaten_at = self._clock.monotonic()
        runs = list(self._pool.running().values())
        beats = [Beat(run.claim.execution_id, run.attempt_id, run.take_progress()) for run in runs]
        for start in range(0, len(beats), BATCH):
            some = beats[start : start + BATCH]
            answers = await self._lane.write(partial(_beat, node=self._node_id, beats=some, now=self._clock.now()))
            for attempt_id, answer in answers.items():
                if answer != "kept":
                    self._pool.cancel(attempt_id, "cancelled on request" if answer == "cancel" else "its lease is lost")


def _refused(claim: Claim, at: Instant) -> events.OutcomeRefused:
    return events.OutcomeRefused(
        at=at,
        execution_id=claim.execution_id,
        task=claim.work.task,
        queue=claim.work.queue,
        attempt=claim.attempt,
        job=claim.job_name,
        nominal=claim.nominal,
        labels=claim.work.labels,
        attempt_id=claim.attempt_id,
    )


def _left_of(rooms: Sequence[TaskRoom], claims: Sequence[Claim]) -> Sequence[TaskRoom]:
    """What the store has left of the room that it was told of. (What has ended meanwhile is found at the next turn.)"""
    started = Counter(claim.work.task for claim in claims)
    return [TaskRoom(one.names, one.room - sum(started[name] for name in one.names)) for one in rooms]


def _slots_of(event: PlacedEvent) -> int:
    return event.slots if isinstance(event, WorkReady) else len(event.execution_ids)


def _finish(store: Storage, outcomes: Sequence[Outcome], now: Instant) -> Finished:
    return store.finish(outcomes, now)


def _beat(store: Storage, node: str, beats: Sequence[Beat], now: Instant) -> Mapping[str, BeatAnswer]:
    return store.heartbeat(node, beats, now)
