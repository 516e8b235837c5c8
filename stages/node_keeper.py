"""The node keeper: keeps this node alive in the store, and takes care of what dead nodes left behind.

With every heartbeat it renews the node's lease, learns which nodes there are, and rescues the attempts of those that
have died. A heartbeat that fails only lets the lease age: a silent store cancels nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

from anyio.lowlevel import checkpoint

from ..model import events
from ..model.clock import Clock
from ..model.errors import StoreBusy, StoreError
from ..model.execution import Kind
from ..model.instants import Instant
from ..model.strategies import Node
from ..storage.lane import StorageLane
from ..storage.protocol import Rescued, Settlement
from .channel import Channel
from .demand import Demand
from .lease import Lease, Lookout
from .node_selector import LiveNodes
from .telling import skipped

log = logging.getLogger("clepsydra.node_keeper")

_MOST_AT_ONCE = 64
_SHORTEST = 0.001


class NodeKeeper:
    """Renews the lease and rescues.

    Receives  nothing but the time
    """

    def __init__(
        self,
        inbox: Channel[object],
        lane: StorageLane,
        clock: Clock,
        demand: Demand,
        nodes: LiveNodes,
        lease: Lease,
        *,
        interval: float | None,
        make_id: Callable[[], str],
        work_added: Callable[[], None],
        lease_lost: Callable[[], None],
        lease_regained: Callable[[], None],
        emit: events.Emitter,
    ) -> None:
        self._inbox, self._lane, self._clock, self._demand = inbox, lane, clock, demand
        self._nodes, self._lease = nodes, lease
        self._interval, self._make_id = interval, make_id
        self._work_added, self._emit = work_added, emit
        self._lease_lost, self._lease_regained = lease_lost, lease_regained
        self._lookout = Lookout(nodes.mine.id, lease.length)
        self._must_rescue = True
        """A node has gone, or this one has just come: there may be work of nodes that nobody remembers."""

    async def run(self) -> None:
        """Rescue what a dead node of this store left, then beat until cancelled."""
        with self._inbox.attended():
            while True:
                await self._beat()
                await self._inbox.receive(None if self._interval is None else self._no_later(self._interval))

    def _no_later(self, seconds: float) -> float:
        """So long, but not past the end of the lease, which is to be noticed when it comes."""
        left = self._lease.left(self._clock.monotonic())
        return min(seconds, max(left, _SHORTEST)) if left > 0 else seconds

    async def _beat(self) -> None:
        if not self._lease.held(self._clock.monotonic()):
            self._lease_lost()
        sent_at = self._clock.monotonic()
        try:
            nodes = await self._lane.write(
                lambda store: store.heartbeat_node(self._nodes.mine.id, self._clock.now()),
                deadline=self._no_later(self._lease.length / 3),
            )
        except StoreError as error:
            log.warning("the heartbeat of node %s failed: %s", self._nodes.mine.id, error)
            self._lookout.failed()
            if not self._lease.held(self._clock.monotonic()):
                self._lease_lost()
            return
        was_held = self._lease.held(self._clock.monotonic())
        self._lease.renew(sent_at)
        if not was_held:
            self._lease_regained()
        dead = self._lookout.observe(nodes, self._clock.monotonic())
        known = {node.id for node in self._nodes.nodes}
        self._nodes.nodes = tuple(node for node in nodes if node.id not in dead)
        self._must_rescue = self._must_rescue or bool(dead or known.difference(node.id for node in nodes))
        if self._must_rescue:
            await self._rescue(dead, nodes)

    async def _rescue(self, dead: Collection[str], nodes: Sequence[Node]) -> None:
        now = self._clock.now()
        try:
            rescued = await self._lane.write(
                lambda store: store.rescue(dead, now, self._make_id), deadline=self._no_later(self._lease.length / 3)
            )
        except StoreBusy as error:
            log.warning("nothing is rescued for now, heartbeats go first: %s", error)
            return
        self._must_rescue = False
        for queue in rescued.ready:
            self._demand.want(queue, now)
        for job_id, at in rescued.ended:
            self._demand.note_ended(job_id, at)
        self._demand.unknown_work = True  # what waited for a node that is gone is to be placed anew
        self._work_added()
        self._tell(dead, nodes, rescued)
        await self._tell_of_the_lost(rescued.failed)

    def _tell(self, dead: Collection[str], nodes: Sequence[Node], rescued: Rescued) -> None:
        for node in nodes:
            if node.id in dead:
                log.warning(
                    "node %s (%s) is dead: %d attempts recovered, %d failed",
                    node.name,
                    node.id,
                    rescued.retried,
                    len(rescued.failed),
                )
                self._emit.emit(
                    events.NodeDied(at=self._clock.now(), node=node.id, recovered=rescued.retried + rescued.kept)
                )

    async def _tell_of_the_lost(self, lost: Sequence[Settlement]) -> None:
        """What is not tried again: it failed with its node, or had not started and was meant for that node alone."""
        for start in range(0, len(lost), _MOST_AT_ONCE):
            now = self._clock.now()
            for one in lost[start : start + _MOST_AT_ONCE] if self._emit.listening else ():
                self._emit.emit(_lost(one, now))
            await checkpoint()


def _lost(one: Settlement, at: Instant) -> events.ExecutionEvent:
    if one.kind is not Kind.FIRED:
        return skipped(one, at)
    return events.ExecutionFailed(
        at=at,
        execution_id=one.execution_id,
        task=one.task,
        queue=one.queue,
        attempt=one.attempt,
        job=one.job_name,
        nominal=one.nominal,
        duration=0,  # when it stopped, nobody saw
        kind=events.FailureKind.NODE_LOST,
        error=one.reason or "",
        will_retry=False,
    )
