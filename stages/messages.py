"""What the stages say to one another: small frozen facts, in the order in which they travel down the chain.

Channels carry lists of them. None of them is a claim: what is true is in the store, and a message that is lost or comes
twice changes nothing but the time at which somebody looks there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from attrs import frozen

from ..model.instants import Instant
from ..model.job import JobRecord

# ------------------------------------------------------------------------ job broadcaster to execution broadcaster


@frozen
class JobAdded:
    """A job is to be fired from now on, under this definition: added, replaced, resumed."""

    record: JobRecord


@frozen
class JobRemoved:
    """A job is not to be fired any more: removed, paused, stopped."""

    job_id: str  # never the record: the id is the identity
    name: str


@frozen
class RunRequested:
    """Somebody asked for a run now; the execution is in the store."""

    queue: str
    at: Instant
    placed: bool = True
    """False: the node selector chooses first where it runs."""


@frozen
class SnapshotBegun:
    """All jobs follow: forget what you know."""


@frozen
class SnapshotEnded:
    """Those were all."""


JobEvent: TypeAlias = JobAdded | JobRemoved | RunRequested | SnapshotBegun | SnapshotEnded


@frozen
class JobNews:
    """Some job events in a row. A gap in the sequence means that some were lost: ask for a snapshot."""

    sequence: int
    events: Sequence[JobEvent]


# ----------------------------------------------------- execution broadcaster to node selector, and on to the executor


@frozen
class ExecutionsDue:
    """Executions of one queue are in the store and due, and may run wherever there is room first."""

    queue: str
    execution_ids: Sequence[str]


@frozen
class ExecutionDue:
    """An execution is in the store and due, and its job's run strategy is to say where it runs."""

    execution_id: str
    queue: str
    record: JobRecord
    nominal: Instant


@frozen
class PlacementWanted:
    """An execution in the store waits for a node, and whoever was to choose one has not."""

    execution_id: str
    queue: str
    record: JobRecord | None
    nominal: Instant | None
    not_before: Instant


@frozen
class WorkReady:
    """The store has ready work in a queue; so many of the executor's free slots are meant for it."""

    queue: str
    slots: int


DueEvent: TypeAlias = ExecutionsDue | ExecutionDue | PlacementWanted | WorkReady


@frozen
class ExecutionsPlaced:
    """Executions of one queue that may start on this node."""

    queue: str
    execution_ids: Sequence[str]


PlacedEvent: TypeAlias = ExecutionsPlaced | WorkReady


def size_of(message: DueEvent | PlacedEvent) -> int:
    """How much of a batch a message is: as much as the executions that it names."""
    return len(message.execution_ids) if isinstance(message, ExecutionsDue | ExecutionsPlaced) else 1
