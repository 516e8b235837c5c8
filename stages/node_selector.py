"""The node selector: decides on which nodes an execution runs.

Most executions may run wherever there is room first and pass straight through. For the others the job's run strategy
chooses among the nodes that are alive, and the store is told; what is for this node goes on to the executor, other
nodes find theirs in the store. Strategies are asked beside the stage's loop, so that later batches do not wait for
theirs; how much is chosen for at once is bounded by the executor's credit. A choice that leads nowhere is a recorded
verdict, not a crash.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import assert_never

import anyio
from anyio.abc import TaskStatus

from ..model import events
from ..model.clock import Clock
from ..model.strategies import All, Candidate, Local, Named, Node, NodeList, Random, RunOn, RunStrategy
from ..storage.lane import StorageLane
from ..storage.protocol import Placement
from .channel import Channel, Outbox
from .demand import Demand
from .messages import (
    DueEvent,
    ExecutionDue,
    ExecutionsDue,
    ExecutionsPlaced,
    PlacedEvent,
    PlacementWanted,
    WorkReady,
    size_of,
)
from .telling import tell_settled

log = logging.getLogger("clepsydra.node_selector")

_LONGEST_CHOICE = 10.0
"""Seconds in which a run strategy has to choose."""


class LiveNodes:
    """The nodes that are alive, as far as this process knows. Written by the node keeper."""

    def __init__(self, mine: Node) -> None:
        self.mine = mine
        self.nodes: Sequence[Node] = (mine,)


class NodeSelector:
    """Places executions.

    Receives  ExecutionsDue, ExecutionDue, PlacementWanted, WorkReady
    Sends     ExecutionsPlaced, WorkReady
    """

    def __init__(
        self,
        inbox: Channel[list[DueEvent]],
        outlet: Channel[list[PlacedEvent]],
        lane: StorageLane,
        clock: Clock,
        demand: Demand,
        nodes: LiveNodes,
        *,
        batch: int,
        concurrency: int,
        strategies: Mapping[str, RunStrategy],
        make_id: Callable[[], str],
        demand_changed: Callable[[], None],
        settled: Callable[[Iterable[str]], None],
        emit: events.Emitter,
    ) -> None:
        self._inbox, self._outbox = inbox, Outbox(outlet, batch, size_of)
        self._lane, self._clock, self._demand, self._nodes = lane, clock, demand, nodes
        self._limiter = anyio.Semaphore(concurrency)
        self._choosing: set[str] = set()
        self._batches_in_hand = 0
        self._strategies, self._make_id, self._emit = strategies, make_id, emit
        self._demand_changed, self._settled = demand_changed, settled

    async def run(self) -> None:
        """Place until cancelled."""
        try:
            with self._inbox.attended():
                async with anyio.create_task_group() as group:
                    while True:
                        batch = await self._inbox.receive()
                        if to_choose := self._place(batch or []):
                            await group.start(self._choose_and_store, to_choose)
                        self._outbox.flush()
        finally:
            self._clock.activity.ended(self._batches_in_hand)  # here, where it has ended: not while it is on its way

    def _place(self, batch: Sequence[DueEvent]) -> list[ExecutionDue | PlacementWanted]:
        """Pass on what needs no choice. Gives the others."""
        to_choose: list[ExecutionDue | PlacementWanted] = []
        for event in batch:
            match event:
                case ExecutionsDue(queue, execution_ids):
                    self._outbox.add(ExecutionsPlaced(queue, execution_ids))
                case PlacementWanted(execution_id) if execution_id in self._choosing:
                    self._demand.placing.discard(execution_id)  # found in the store while it is being chosen for
                case ExecutionDue() | PlacementWanted():
                    to_choose.append(event)
                case WorkReady():
                    self._outbox.add(event)
                case _:
                    assert_never(event)
        return to_choose

    async def _choose_and_store(
        self, wanted: Sequence[ExecutionDue | PlacementWanted], *, task_status: TaskStatus[None]
    ) -> None:
        ids = [event.execution_id for event in wanted]
        self._choosing.update(ids)
        self._clock.activity.began()
        self._batches_in_hand += 1
        task_status.started()
        await self._store(wanted, await self._choose_all(wanted))
        self._outbox.flush()
        self._choosing.difference_update(ids)
        self._batches_in_hand -= 1
        self._clock.activity.ended()

    async def _store(self, wanted: Sequence[ExecutionDue | PlacementWanted], placements: Sequence[Placement]) -> None:
        now = self._clock.now()
        placed = await self._lane.write(lambda store: store.place(placements, now))
        queues = {
            execution_id: event.queue
            for event, placement in zip(wanted, placements, strict=True)
            for _, execution_id in placement.targets
        }
        fired = {event.execution_id for event in wanted if isinstance(event, ExecutionDue)}
        stored = {event.execution_id: event.not_before for event in wanted if isinstance(event, PlacementWanted)}
        mine = self._nodes.mine.id
        for execution_id in (execution_id for execution_id, target in placed.executions if target == mine):
            queue = queues[execution_id]
            if execution_id in fired:
                fired.remove(execution_id)
                self._outbox.add(ExecutionsPlaced(queue, [execution_id]))
            else:
                self._demand.want(queue, max(now, stored.get(execution_id, now)))
        for event in wanted:
            if event.execution_id in fired:
                self._demand.settle(event.queue)  # its credit goes back: it runs elsewhere, or nowhere
        self._demand.note_placed(stored)
        self._demand.note_settled(placed.settled, now)
        self._demand_changed()
        self._settled(settlement.execution_id for settlement in placed.settled)
        tell_settled(self._emit, placed.settled, now)

    # ---- choosing

    async def _choose_all(self, wanted: Sequence[ExecutionDue | PlacementWanted]) -> list[Placement]:
        placements: dict[str, Placement] = {}

        async def choose(event: ExecutionDue | PlacementWanted) -> None:
            async with self._limiter:
                placements[event.execution_id] = await self._choose(event)

        async with anyio.create_task_group() as group:
            for event in wanted:
                group.start_soon(choose, event)
        return [placements[event.execution_id] for event in wanted]

    async def _choose(self, event: ExecutionDue | PlacementWanted) -> Placement:
        record = event.record
        if record is None:
            return Placement(event.execution_id, ((self._nodes.mine.id, event.execution_id),))
        try:
            strategy = self._strategy(record.job.run_on)
            candidate = Candidate(event.execution_id, record.name, event.nominal, record.job.work.labels)
            chosen = strategy.choose(candidate, self._nodes.nodes)
            if inspect.isawaitable(chosen):
                chosen = await self._within_reason(chosen)
            return self._placement(event.execution_id, list(chosen))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, anyio.get_cancelled_exc_class()) and anyio.current_effective_deadline() == -math.inf:
                raise  # we are being stopped; any other is the strategy's own failure, a SystemExit as well (law 10)
            self._tell_failure(event, error)
            return Placement(event.execution_id, reason=f"its run strategy failed: {type(error).__name__}: {error}")

    async def _within_reason(self, choosing: Awaitable[Iterable[str]]) -> Iterable[str]:
        chosen: Iterable[str] = ()
        in_time = False
        with self._clock.wake_after(_LONGEST_CHOICE) as waiting:
            chosen = await choosing
            in_time = True
        if waiting.fired:
            self._clock.activity.ended()
        if not in_time:
            raise TimeoutError(f"it has not chosen within {_LONGEST_CHOICE:g} s")
        return chosen

    def _strategy(self, run_on: RunOn) -> RunStrategy:
        match run_on:
            case Named(name):
                if name not in self._strategies:
                    known = ", ".join(sorted(self._strategies)) or "none"
                    raise LookupError(f"no run strategy is registered as {name!r}; known: {known}")
                return self._strategies[name]
            case Random() | All() | NodeList():
                return run_on
            case Local():
                return Random((self._nodes.mine.name,))
            case _:
                assert_never(run_on)

    def _placement(self, execution_id: str, chosen: Sequence[str]) -> Placement:
        alive = {node.id for node in self._nodes.nodes}
        targets: list[tuple[str, str]] = []
        for node_id in dict.fromkeys(chosen):
            targets.append((node_id, self._make_id() if targets else execution_id))
        dead = tuple(node_id for node_id, _ in targets if node_id not in alive)
        return Placement(execution_id, tuple(targets), dead, reason="no node is alive that its strategy allows")

    def _tell_failure(self, event: ExecutionDue | PlacementWanted, error: BaseException) -> None:
        name = "?" if event.record is None else type(event.record.job.run_on).__name__
        log.warning("the run strategy of execution %s failed: %s", event.execution_id, error)
        if self._emit.listening:
            self._emit.emit(
                events.SelectorFailed(
                    at=self._clock.now(), strategy=name, execution_id=event.execution_id, error=str(error)
                )
            )
