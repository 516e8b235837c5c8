"""What becomes of executions without a run of theirs, as events. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ..model import events
from ..model.instants import Instant
from ..storage.protocol import Settlement


def tell_settled(emit: events.Emitter, settlements: Iterable[Settlement], at: Instant) -> None:
    """Tell whoever listens what has ended without running."""
    if emit.listening:
        for settlement in settlements:
            emit.emit(skipped(settlement, at))


def skipped(settlement: Settlement, at: Instant) -> events.ExecutionSkipped:
    """The event of one that has."""
    return events.ExecutionSkipped(
        at=at,
        execution_id=settlement.execution_id,
        task=settlement.task,
        queue=settlement.queue,
        attempt=settlement.attempt,
        job=settlement.job_name,
        nominal=settlement.nominal,
        kind=settlement.kind,
        reason=settlement.reason,
    )
