"""Cancelling, trying again and deleting: what people do to executions, by filter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from attrs import evolve

from ..model.execution import FINISHED, UNFINISHED, Execution, Kind, Range, State
from ..model.filters import ExecutionFilter, Order
from ..model.instants import Instant
from ..model.job import ScheduleEpoch
from .places import Places, place_anew
from .protocol import Cancelled
from .settling import cancel, past_attempt, try_again, unfinished

_RETRYABLE = frozenset((State.FAILED, State.CANCELLED, State.EXPIRED))


class Cancelling(Places):
    """`cancel_executions`, `retry_executions` and `delete_executions`, over the primitives."""

    def cancel_executions(self, where: ExecutionFilter, now: Instant) -> Sequence[Cancelled]:
        """Cancel what is unfinished: final at once."""
        with self.transaction():
            chosen = self._chosen(where, UNFINISHED)
            if not chosen:
                return []
            open_rows = [row for row in self._locked(chosen) if not row.finished and where.matches(row)]
            revision = self.next_revision()
            cancelled = [cancel(row, now, revision, "cancelled on request") for row in open_rows]
            self.update_executions(open_rows)
            self.release_held({row.job_id for row in open_rows if row.job_id and not row.occupies}, now)
        return cancelled

    def retry_executions(self, where: ExecutionFilter, now: Instant, make_id: Callable[[], str]) -> Sequence[str]:
        """Another try for what ended without success, unless its key is taken, or its place is gone with its node."""
        with self.transaction():
            chosen = self._chosen(where, _RETRYABLE)
            if not chosen:
                return []
            rows = [row for row in self._locked(chosen) if where.matches(row)]
            rows = [row for row in rows if row.state in _RETRYABLE and not row.occupies]
            jobs = self.jobs_by_id({row.job_id for row in rows if row.job_id}, lock=True)
            alive = self.alive_nodes()
            adrift = [row for row in rows if row.target and row.target not in alive]
            gone = self._own_places(adrift, jobs)
            again = self._with_free_keys([row for row in rows if row.id not in gone])
            self.insert_attempts([past_attempt(row, row.state.value, row.finished_at or now) for row in again])
            for row in again:
                try_again(row, make_id(), now, row.attempt + 1, jobs.get(row.job_id or ""))
                _revive(row)
                if row.target and row.target not in alive:
                    place_anew(row)
            self.update_executions(again)
        return [row.id for row in again]

    def _with_free_keys(self, rows: Iterable[Execution]) -> list[Execution]:
        """Those whose key no unfinished execution has, and of several with one key the first."""
        rows = list(rows)
        taken: set[tuple[str, str]] = set()
        if keys := {(row.work.task, row.key) for row in rows if row.key is not None}:
            taken.update(self.unfinished_with_keys(keys))
        free: list[Execution] = []
        for row in rows:
            if row.key is None:
                free.append(row)
            elif (row.work.task, row.key) not in taken:
                taken.add((row.work.task, row.key))
                free.append(row)
        return free

    def delete_executions(self, where: ExecutionFilter, *, force: bool = False) -> int:
        """Delete; the verdicts of what is deleted stay, as ranges of one."""
        with self.transaction():
            chosen = self._locked(self._chosen(where, None if force else FINISHED))
            chosen = [row for row in chosen if where.matches(row)]
            rows = [row for row in chosen if force or (row.finished and not row.occupies)]
            if not rows:
                return 0
            self.delete_execution_rows([row.id for row in rows])
            self._keep_verdicts(rows)
            self.release_held({row.job_id for row in rows if row.job_id and unfinished(row)}, _last_change(rows))
        return len(rows)

    def _keep_verdicts(self, rows: Iterable[Execution]) -> None:
        """Where no execution of a nominal time is left, a range of one says how it ended (law 1)."""
        deleted: dict[str, dict[Instant, Execution]] = {}
        for row in rows:
            if row.job_id is not None and row.nominal is not None:
                times = deleted.setdefault(row.job_id, {})
                if times.setdefault(row.nominal, row).verdict is not Kind.FIRED:
                    times[row.nominal] = row
        for job_id, times in deleted.items():
            left = {mark.nominal for mark in self.list_marks([job_id], min(times), max(times) + 1)}
            gone = [times[nominal] for nominal in sorted(times) if nominal not in left]
            name = next((row.job_name for row in gone if row.job_name), None)
            epochs = [] if name is None else [epoch for epoch in self.list_epochs(name) if epoch.job_id == job_id]
            self.insert_ranges(_ranges_of_one(gone, epochs))

    def _chosen(self, where: ExecutionFilter, states: Collection[State] | None) -> list[Execution]:
        """What a filter means among these states."""
        if states is not None:
            wanted = frozenset(states) if where.states is None else where.states & frozenset(states)
            where = evolve(where, states=wanted)
        return self.select_executions(where, Order.ID, None, None)[0]

    def _locked(self, rows: Sequence[Execution]) -> list[Execution]:
        """The same once nobody else can change them; they may have changed before that."""
        self.jobs_by_id({row.job_id for row in rows if row.job_id}, lock=True)
        return list(self.executions_by_id([row.id for row in rows], lock=True).values())


def _revive(row: Execution) -> None:
    row.finished_at = row.start_by = row.reason = row.result = None
    row.recoveries = 0
    if row.first_started_at is None:
        row.verdict = None  # it waits again: nothing has been decided about its time


def _ranges_of_one(rows: Sequence[Execution], epochs: Sequence[ScheduleEpoch]) -> list[Range]:
    ranges: list[Range] = []
    for row in rows:
        epoch = _epoch_at(epochs, row.nominal or 0)
        if epoch is not None and row.job_id is not None and row.nominal is not None:
            kind = row.verdict or Kind.CANCELLED
            reason = "its execution was deleted"
            ranges.append(Range(row.job_id, kind, row.nominal, row.nominal + 1, epoch.generation, reason))
    return ranges


def _epoch_at(epochs: Sequence[ScheduleEpoch], nominal: Instant) -> ScheduleEpoch | None:
    for epoch in epochs:
        if epoch.since < nominal and (epoch.until is None or nominal <= epoch.until):
            return epoch
    return None


def _last_change(rows: Iterable[Execution]) -> Instant:
    """A moment that has come for sure: `delete_executions` is not told the time."""
    return max(max(row.created_at, row.not_before, row.started_at or 0, row.finished_at or 0) for row in rows)
