"""What `health()` tells: whether the scheduler works, why not, and how full its vessels are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from attrs import asdict, frozen

from ..stages.channel import Fill
from ..stages.slots import QueueLevel
from ..stages.worker_pool import PoolStatistics
from ..storage.lane import LaneStatistics
from .runtime import Runtime
from .supervisor import Branch


@frozen
class Health:
    """A scheduler at one moment. Made from memory only: it is there while the store is not."""

    status: Literal["ok", "degraded", "failed", "stopped"]
    reasons: Sequence[str]
    """Why it is not `ok`, in words."""
    node: str
    jobs: int
    vessels: Sequence[Fill]
    """The channels of the chain: what waits in them, and for how long."""
    queues: Sequence[QueueLevel]
    """Queues that are in use, or have a concurrency of their own."""
    commands: int
    """Commands that wait for their answer."""
    pool: PoolStatistics | None
    store: LaneStatistics | None
    stages: Branch | None
    """The supervision tree, with restarts."""
    undeclared_jobs: Sequence[str]
    """Jobs that code declared earlier and this code does not: not fired by this node."""
    unknown_tasks: Sequence[str]
    """Tasks that jobs name and this node has no code for: their executions wait."""

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return self.status == "ok"

    def as_dict(self) -> dict[str, object]:
        """Plain dicts and lists, for a health endpoint."""
        return asdict(self)


def complaints(runtime: Runtime, abandoned: bool, now: float) -> Iterator[str]:
    """What is wrong with a run of the scheduler, in words."""
    lane = runtime.lane
    if lane.state == "degraded":
        yield f"the store does not answer: {lane.last_error}"
    if not runtime.chain.lease.held(now):
        yield "the node's lease could not be renewed; nothing new is started"
    if abandoned:
        yield "too many threads of plain functions ignore their deadline"
    if runtime.draining:
        yield "it is draining"
