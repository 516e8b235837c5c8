"""Enqueueing: calls and manual runs enter the store, in the order given, each id once and each key once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import Factory, define

from ..model.errors import DuplicateId, DuplicateKey, JobNotFound
from ..model.execution import UNSTARTED, Execution, State
from ..model.filters import ExecutionFilter, Order
from ..model.instants import Instant
from ..model.job import JobRecord
from ..model.strategies import LOCAL
from .protocol import AddResult, NewExecution
from .tables import Tables


class Enqueueing(Tables):
    """`add_executions`, over the primitives."""

    def add_executions(
        self, items: Sequence[NewExecution], now: Instant, *, unless: ExecutionFilter | None = None
    ) -> Sequence[AddResult]:
        """Enqueue, in order."""
        if not items:
            return []
        with self.transaction():
            if unless is None and _stand_alone(items) and self._add_at_once(items, now):
                return [AddResult(item.id, True) for item in items]
            if unless is not None:
                self.take_turns()
            if unless is not None and (taken := self.select_executions(unless, Order.ID, None, None)[0]):
                own = {item.id for item in items}  # a repeat finds what it added itself
                return [AddResult(row.id, row.id in own) for row in taken]
            jobs = self.jobs_by_id({item.job_id for item in items if item.job_id}, lock=True)
            known = self.executions_by_id([item.id for item in items], lock=True)
            keyed = self.unfinished_with_keys({(item.work.task, item.key) for item in items if item.key is not None})
            intake = _Intake(now, jobs, known, keyed)
            results = [intake.take(item) for item in items]
            self.insert_executions(intake.added)
            self.update_executions(intake.replaced)
        return results

    def _add_at_once(self, items: Sequence[NewExecution], now: Instant) -> bool:
        """False: one of them is there already, as hardly ever happens. What was not is its own repeat by then."""
        return self.insert_unknown(_new_row(item, None, now) for item in items)


@define
class _Intake:
    """Takes the items of one call one after another."""

    now: Instant
    jobs: Mapping[str, JobRecord]
    known: dict[str, Execution]
    keyed: dict[tuple[str, str], Execution]
    added: list[Execution] = Factory(list[Execution])
    replaced: list[Execution] = Factory(list[Execution])

    def take(self, item: NewExecution) -> AddResult:
        """Add the item, or find what stands for it. Raises on an id, a key or a job that does not fit."""
        if (same := self.known.get(item.id)) is not None:
            return _repeat(item, same)
        record = None
        if item.job_id is not None and (record := self.jobs.get(item.job_id)) is None:
            raise JobNotFound(item.job_name or item.job_id)
        if item.key is not None and (taken := self.keyed.get((item.work.task, item.key))) is not None:
            return self._conflict(item, taken)
        row = _new_row(item, record, self.now)
        self.added.append(row)
        self.known[item.id] = row
        if item.key is not None:
            self.keyed[item.work.task, item.key] = row
        return AddResult(item.id, True)

    def _conflict(self, item: NewExecution, taken: Execution) -> AddResult:
        if item.on_conflict == "raise":
            raise DuplicateKey(item.key or "", taken.id)
        if item.on_conflict == "replace" and taken.state in UNSTARTED and taken.first_started_at is None:
            taken.work, taken.start_by = item.work, item.start_by
            taken.due_at = taken.not_before = item.due_at
            self.replaced.append(taken)
        return AddResult(taken.id, False)


def _stand_alone(items: Sequence[NewExecution]) -> bool:
    """Whether nothing but their ids can be in their way."""
    return all(item.job_id is None and item.key is None for item in items) and len({item.id for item in items}) == len(
        items
    )


def _repeat(item: NewExecution, same: Execution) -> AddResult:
    """A known id is the repeat of the call that added it, if it says the same; a job's work may have changed since."""
    if same.job_id != item.job_id or same.key != item.key or (item.job_id is None and same.work != item.work):
        raise DuplicateId(item.id)
    return AddResult(item.id, True)


def _new_row(item: NewExecution, record: JobRecord | None, now: Instant) -> Execution:
    anywhere = record is None or record.job.run_on == LOCAL
    return Execution(
        item.id,
        item.work if record is None else record.job.work,
        item.cause,
        now,
        item.due_at,
        item.due_at,
        item.id,
        State.PENDING if anywhere else State.PLACING,
        item.job_id,
        item.job_name,
        item.generation if record is None else record.generation,
        start_by=item.start_by,
        key=item.key,
    )
