"""The wiring: every channel, every stage, and who keeps whom alive, in one place.

Here and only here a channel is made, and two stages are known at once. What must outlive a stage's crash is made once,
in `Chain`: the boards that the stages write and read, the mailbox of commands, the worker pool with what it runs. A
stage is made anew for each incarnation, and its inbox starts empty: what the old one held were hints.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterator, Mapping
from math import inf
from typing import Any

import anyio

from ..model import events
from ..model.clock import Clock
from ..model.execution import Cause, Ending
from ..model.ids import IdMaker
from ..model.instants import Instant, to_micros
from ..model.strategies import Node, RunStrategy
from ..model.task import Task
from ..stages.channel import Channel, Fill
from ..stages.commands import Mailbox
from ..stages.demand import Demand
from ..stages.execution_broadcaster import ExecutionBroadcaster
from ..stages.executor import Executor
from ..stages.job_book import JobBook
from ..stages.job_broadcaster import JobBroadcaster
from ..stages.lease import Lease
from ..stages.messages import DueEvent, JobNews, PlacedEvent
from ..stages.node_keeper import NodeKeeper
from ..stages.node_selector import LiveNodes, NodeSelector
from ..stages.own_transaction import FinishDesk
from ..stages.slots import QueueLevel, Slots, TaskSlots
from ..stages.sweeper import Sweeper
from ..stages.waiters import Waiters
from ..stages.watchdog import Watchdog
from ..stages.worker_pool import WorkerPool
from ..storage.hints import GivesHints
from ..storage.lane import Companion, StorageLane
from ..storage.protocol import Claim, Finished, Storage
from ..storage.threads import EventLoopHandle
from .settings import Stages
from .supervisor import Child, ChildRestarted, Intensity, Strategy, Supervisor, SupervisorEvent
from .telemetry import Telemetry


class Chain:
    """One run of the scheduler, from its opening to its end."""

    def __init__(
        self,
        storage: Storage,
        lane: StorageLane,
        clock: Clock,
        settings: Stages,
        tasks: Mapping[str, Task[..., Any]],
        limited: Mapping[str, Task[..., Any]],
        strategies: Mapping[str, RunStrategy],
        telemetry: Telemetry,
        node: Node,
        make_id: IdMaker,
        declared: Collection[str],
        *,
        shared: bool,
        swept: bool,
    ) -> None:
        self.lane, self.clock, self.settings, self.telemetry, self.make_id = lane, clock, settings, telemetry, make_id
        self._strategies, self._shared, self._swept = strategies, shared, swept
        self.loop = EventLoopHandle.current()
        self._hints = storage if isinstance(storage, GivesHints) else None
        self._booted: Instant = node.started_at
        executor = settings.executor
        self.slots = Slots(executor.concurrency, executor.queues, executor.limit)
        self.task_slots = TaskSlots(limited)
        self.mailbox = Mailbox(settings.job_broadcaster.buffer)
        self.book = JobBook()
        self.book.declared = set(declared)
        self.demand = Demand()
        self.nodes = LiveNodes(node)
        # In a store that nobody shares there is nobody to take this node for dead, and no heartbeat to prolong a lease.
        self.lease = Lease(settings.lease.total_seconds() if shared else inf, clock.monotonic())
        self.waiters = Waiters()
        self.pool = WorkerPool(
            tasks,
            clock,
            make_id,
            node.id,
            threads=executor.threads,
            emit=telemetry,
            abandoned_limit=executor.abandoned_threads,
            desk=FinishDesk(storage, clock, node.id, self._tell_finished),
            hook_grace=executor.hook_grace.total_seconds(),
            slots=None if lane.is_direct else self.slots.of,
        )
        self._open_channels()
        self.pool.on_ended = self.placed.nudge
        self.job_broadcaster: JobBroadcaster | None = None
        self.execution_broadcaster: ExecutionBroadcaster | None = None
        self.executor: Executor | None = None
        self.supervisor = self._supervisor()

    # ---- channels, from the top of the chain to its end

    def _open_channels(self) -> None:
        settings, clock = self.settings, self.clock
        # Commands themselves are in the mailbox, which outlives a crash; this only wakes the stage.
        self.commands = Channel[object]("commands", 1, clock)
        # Job news: at most one entry per job waits above it, so it can be short; its reader makes room quickly.
        self.news = Channel[JobNews](
            "execution_broadcaster",
            settings.execution_broadcaster.batches,
            clock,
            on_room=self.commands.nudge,
        )
        # Due executions: never more than the executor's credit, so it does not fill up but for many small batches.
        self.due = Channel[list[DueEvent]](
            "node_selector", settings.node_selector.batches, clock, on_room=self.news.nudge
        )
        # Placed executions: the same ones.
        self.placed = Channel[list[PlacedEvent]]("executor", settings.executor.batches, clock, on_room=self.due.nudge)
        # Two that nobody sends on: the node keeper and the sweeper wait for the time only.
        self.beats = Channel[object]("node_keeper", 1, clock)
        self.sweeps = Channel[object]("sweeper", 1, clock)

    def fills(self) -> list[Fill]:
        """How full the vessels of the chain are."""
        return [channel.fill() for channel in (self.news, self.due, self.placed)]

    def soonest(self, count: int) -> list[tuple[Instant, str]]:
        """The jobs that are due next."""
        return [] if self.execution_broadcaster is None else self.execution_broadcaster.soonest(count)

    def queues(self) -> list[QueueLevel]:
        """The queues that are in use or have a number of their own."""
        names = {*self.slots.queues, *self.pool.busy_queues()}
        return [self._level(queue) for queue in sorted(names)]

    def _level(self, queue: str) -> QueueLevel:
        pool, slots = self.pool, self.slots
        busy, unrecorded = pool.busy(queue), pool.unrecorded(queue)
        return QueueLevel(queue, busy, slots.of(queue), unrecorded, self.demand.credit(queue), pool.ahead(queue))

    # ---- who keeps whom alive

    def _supervisor(self) -> Supervisor:
        settings = self.settings
        stages = Supervisor(
            "stages",
            [
                Child("job_broadcaster", self._run_job_broadcaster, intensity=settings.job_broadcaster.restarts),
                Child(
                    "execution_broadcaster",
                    self._run_execution_broadcaster,
                    intensity=settings.execution_broadcaster.restarts,
                ),
                Child("node_selector", self._run_node_selector, intensity=settings.node_selector.restarts),
                Child("executor", self._run_executor, intensity=settings.executor.restarts),
            ],
            strategy=Strategy.REST_FOR_ONE,
            clock=self.clock,
            on_event=self._tell_restart,
        )
        # The stages have budgets of their own. Were they begun anew when one is spent, it would be spent four times
        # over.
        children = [Child("worker_pool", self.pool.run), Child("stages", stages.run, intensity=Intensity(restarts=0))]
        children.append(Child("node_keeper", self._run_node_keeper))
        if self._hints is not None:
            children.append(Child("listener", self._run_listener))
        if self._swept:
            children.append(Child("sweeper", self._run_sweeper))
        if settings.loop_blocked is not None:
            children.append(Child("watchdog", self._run_watchdog))
        return Supervisor(
            "scheduler", children, strategy=Strategy.REST_FOR_ONE, clock=self.clock, on_event=self._tell_restart
        )

    def _tell_restart(self, event: SupervisorEvent) -> None:
        if isinstance(event, ChildRestarted):
            error = None if event.error is None else f"{type(event.error).__name__}: {event.error}"
            self.telemetry.emit(
                events.StageRestarted(at=self.clock.now(), stage=event.name, incarnation=event.incarnation, error=error)
            )

    # ---- the stages, in the order in which an event passes them

    def _run_job_broadcaster(self) -> Awaitable[None]:
        self.job_broadcaster = JobBroadcaster(
            self.commands,
            self.mailbox,
            self.news,
            self.book,
            self.lane,
            self.clock,
            batch=self.settings.job_broadcaster.batch,
            poll=self._poll(),
            cancel=self.pool.cancel,
            withdraw=self._withdraw,
            emit=self.telemetry,
        )
        return self.job_broadcaster.run()

    def _run_execution_broadcaster(self) -> Awaitable[None]:
        settings = self.settings.execution_broadcaster
        self.execution_broadcaster = ExecutionBroadcaster(
            self.news,
            self.due,
            self.lane,
            self.clock,
            self.demand,
            batch=settings.batch,
            wait_cap=settings.wait_cap.total_seconds(),
            poll=self._poll(),
            booted=self._booted,
            make_id=self.make_id,
            ask_for_snapshot=self._ask_for_snapshot,
            jobs_changed=self.jobs_changed,
            settled=self.waiters.notify,
            emit=self.telemetry,
        )
        return self.execution_broadcaster.run()

    def _run_node_selector(self) -> Awaitable[None]:
        settings = self.settings.node_selector
        return NodeSelector(
            self.due,
            self.placed,
            self.lane,
            self.clock,
            self.demand,
            self.nodes,
            batch=settings.batch,
            concurrency=settings.concurrency,
            strategies=self._strategies,
            make_id=self.make_id,
            demand_changed=self.news.nudge,
            settled=self.waiters.notify,
            emit=self.telemetry,
        ).run()

    def _run_executor(self) -> Awaitable[None]:
        claiming = self.executor is None or self.executor.claiming
        self.executor = Executor(
            self.placed,
            self.pool,
            self.lane,
            self.clock,
            self.demand,
            self.slots,
            self.task_slots,
            self.lease,
            self.waiters,
            node_id=self.nodes.mine.id,
            heartbeat=self.settings.heartbeat.total_seconds() if self._shared else None,
            make_id=self.make_id,
            demand_changed=self.news.nudge,
            emit=self.telemetry,
        )
        self.executor.claiming = claiming
        return self.executor.run()

    def _run_node_keeper(self) -> Awaitable[None]:
        return NodeKeeper(
            self.beats,
            self.lane,
            self.clock,
            self.demand,
            self.nodes,
            self.lease,
            interval=self.settings.heartbeat.total_seconds() if self._shared else None,
            make_id=self.make_id,
            work_added=self.news.nudge,
            lease_lost=self._lease_lost,
            lease_regained=self.placed.nudge,
            emit=self.telemetry,
        ).run()

    async def _run_listener(self) -> None:
        """Look into the store at once when another process has written something."""
        assert self._hints is not None
        stop = self._hints.listen(lambda: self.loop.call_soon(self._hear_of_others))
        try:
            await anyio.sleep_forever()
        finally:
            stop()

    def _hear_of_others(self) -> None:
        self.jobs_changed()
        self.look_into_store()

    def _run_sweeper(self) -> Awaitable[None]:
        assert self.settings.retention is not None
        return Sweeper(
            self.sweeps,
            self.lane,
            self.clock,
            retention=to_micros(self.settings.retention),
            interval=self.settings.sweep.total_seconds(),
            batch=500,
        ).run()

    def _run_watchdog(self) -> Awaitable[None]:
        assert self.settings.loop_blocked is not None
        return Watchdog(self.pool, self.clock, self.settings.loop_blocked.total_seconds(), emit=self.telemetry).run()

    def _poll(self) -> float | None:
        return self.settings.execution_broadcaster.poll.total_seconds() if self._shared else None

    # ---- what one stage may ask of another

    def _ask_for_snapshot(self) -> None:
        if self.job_broadcaster is not None:
            self.job_broadcaster.ask_for_snapshot()

    def jobs_changed(self) -> None:
        """The store has changed jobs by itself: one is finished."""
        if self.job_broadcaster is not None:
            self.job_broadcaster.ask_for_sync()

    def offer(self, queue: str) -> Companion | None:
        """What is to go down with work for this queue that may start at once."""
        return None if self.executor is None else self.executor.offer(queue)

    def work_added(self, queue: str, at: Instant, tasks: Collection[str] = ()) -> None:
        """Somebody has put work into the store, for these tasks. What is full need not be looked for."""
        ready = at <= self.clock.now()
        if tasks and ready and self.task_slots.keep_waiting(tasks, queue, self._running_tasks):
            return
        self.demand.want(queue, at)
        if not ready or self.demand.credit(queue):  # else whoever makes room finds it wanted
            self.news.nudge()

    def work_promised(self, mark: str) -> None:
        """A transaction has put work into the store, and will commit or not."""
        self.demand.promise(mark)
        self.news.nudge()

    def _tell_finished(self, execution_id: str, finished: Finished) -> None:
        """From any thread: an execution has ended in a transaction of its own."""
        self.loop.call_soon(self._note_finished, execution_id, finished)

    def _note_finished(self, execution_id: str, finished: Finished) -> None:
        self.demand.note_finished(finished, self.clock.now())
        self.waiters.notify([execution_id])
        self.news.nudge()

    def _running_tasks(self) -> Iterator[str]:
        return (run.claim.work.task for run in self.pool.running().values())

    def look_into_store(self) -> None:
        """There may be work in the store that nobody has told of."""
        self.demand.unknown_work = True
        self.news.nudge()

    def _withdraw(self, job_ids: Collection[str], ending: Ending, cause: Cause | None = None) -> None:
        now = self.make_id()  # ids tell what is older: of this job there may be new executions before long

        def is_meant(claim: Claim) -> bool:
            return claim.job_id in job_ids and cause in (None, claim.cause) and claim.execution_id < now

        self.pool.withdraw(is_meant, ending, "its job was changed before it began")
        self.waiters.notify_all()  # the store has settled what waited

    def _lease_lost(self) -> None:
        """Nothing more is started; what runs goes on, unless its job says otherwise (law 3)."""
        self.pool.lease_lost()
        self.placed.nudge()

    def redeclared(self) -> None:
        """Code declares other jobs than before: which of them are fired is gone through anew."""
        self._ask_for_snapshot()

    def tuned(self) -> None:
        """The slots have changed: publish the demand anew."""
        self.pool.slots_changed()
        self.placed.nudge()

    async def claims_answered(self) -> None:
        """Until the executor knows what it has claimed; what nobody begins any more is given back."""
        if self.executor is not None:
            await self.executor.wait_at_rest()

    def stop_claiming(self) -> None:
        """Nothing more is fired or started; what the pool has not begun is given back."""
        self.demand.open = False
        if self.executor is not None:
            self.executor.claiming = False
        self.pool.give_back_waiting()
