"""Rescuing: what becomes of the work of nodes that are dead, by the `recovery` of each execution.

A crash uses no attempt of `Retry`. What was bound to a node is placed anew where it may move (`places.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from attrs import Factory, define

from ..model.execution import UNSTARTED, Attempt, Execution, Kind, State
from ..model.instants import Instant
from ..model.job import JobRecord
from ..model.policies import Recovery
from .places import Places, place_anew
from .protocol import Rescued, Settlement
from .settling import is_ready, note_ready, past_attempt, settle, try_again


class Rescuing(Places):
    """`rescue`, over the primitives."""

    def rescue(self, node_ids: Collection[str], now: Instant, make_id: Callable[[], str]) -> Rescued:
        """Treat what dead nodes left behind; nodes that nobody knows are dead as well."""
        with self.transaction():
            self.take_turns()  # two who saw the same node die
            alive = self.alive_nodes(but=node_ids)
            running = [row for row in self.running_rows(None, None, None) if _is_left_running(row, alive)]
            # Read before anything is written: what runs has a target too, and is treated as what runs.
            seen = {row.id for row in running}
            waiting = [row for row in self.targeted_rows(alive) if row.id not in seen]
            jobs = self.jobs_by_id({row.job_id for row in (*running, *waiting) if row.job_id}, lock=True)
            rows = self.executions_by_id([row.id for row in (*running, *waiting)], lock=True)
            alive |= self.alive_nodes(but=node_ids)  # whoever stands in a row that was read had come before
            running = [rows[row.id] for row in running if row.id in rows and _is_left_running(rows[row.id], alive)]
            waiting = [rows[row.id] for row in waiting if row.id in rows and _is_left_waiting(rows[row.id], alive)]
            rescuer = _Rescuer(now, make_id, jobs, self._own_places([*running, *waiting], jobs))
            for row in running:
                rescuer.recover(row)
            for row in waiting:
                rescuer.place_anew(row)
            self._write_rescue(rescuer, [*running, *waiting])
            self.forget_nodes(node_ids)
        return rescuer.answer

    def _write_rescue(self, rescuer: _Rescuer, rows: list[Execution]) -> None:
        now, answer = rescuer.now, rescuer.answer
        self.insert_attempts(rescuer.past)
        self.update_executions(rows)
        note_ready(answer.ready, (row for row in rows if is_ready(row, now)))
        answer.ended = [(row.job_id, now) for row in rows if row.job_id is not None and row.finished]
        freed = {row.job_id for row in rows if row.job_id is not None and not row.occupies}
        note_ready(answer.ready, self.release_held(freed, now))


def _is_left_running(row: Execution, alive: Collection[str]) -> bool:
    return row.occupies and row.node not in alive


def _is_left_waiting(row: Execution, alive: Collection[str]) -> bool:
    return row.state in UNSTARTED and bool(row.target) and row.target not in alive


@define
class _Rescuer:
    """Takes what dead nodes left behind row by row."""

    now: Instant
    make_id: Callable[[], str]
    jobs: Mapping[str, JobRecord]
    own_places: Collection[str]
    past: list[Attempt] = Factory(list[Attempt])
    answer: Rescued = Factory(Rescued)

    def recover(self, row: Execution) -> None:
        """An attempt that ran on a dead node."""
        if row.state is not State.RUNNING:  # cancelled, and nobody is left to stop it
            row.occupies = False
        elif row.work.recovery is Recovery.KEEP:
            row.occupies = False
            self.answer.kept += 1
        elif row.work.recovery is Recovery.FAIL or _is_spent(row) or row.id in self.own_places:
            self._fail(row)
        else:
            self._retry(row)

    def place_anew(self, row: Execution) -> None:
        """What waited for a dead node."""
        if row.id in self.own_places:
            self.answer.failed.append(settle(row, Kind.NO_NODE, "its node died before it could start", self.now))
            return
        place_anew(row)

    def _fail(self, row: Execution) -> None:
        times = f", after {row.recoveries} recoveries" if row.recoveries else ""
        row.state, row.finished_at, row.occupies = State.FAILED, self.now, False
        row.error = f"NodeLost: node {row.node} died while it ran{times}"
        queue, task = row.work.queue, row.work.task
        self.answer.failed.append(
            Settlement(row.id, row.job_name, row.nominal, Kind.FIRED, row.error, queue, task, row.attempt, row.job_id)
        )

    def _retry(self, row: Execution) -> None:
        self.past.append(past_attempt(row, "lost", self.now, f"NodeLost: node {row.node} died while it ran"))
        row.recoveries += 1
        self.answer.retried += 1
        try_again(row, self.make_id(), self.now, row.attempt, self.jobs.get(row.job_id or ""))
        if row.target:
            place_anew(row)


def _is_spent(row: Execution) -> bool:
    limit = row.work.recoveries
    return row.work.recovery is Recovery.RETRY and limit is not None and row.recoveries >= limit
