"""Finishing: signs of life and outcomes, each fenced by its attempt and its node (law 3).

An outcome is applied once. Its repeat is recognised and answered as applied; what names an attempt that was never its
own, or is no longer, is stale: it changes nothing. The one exception frees: the end of a task that was asked to stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import Factory, define

from ..model.execution import FINAL, FINISHED, Attempt, Ending, Execution, Kind, Outcome, State
from ..model.instants import Instant
from ..model.job import JobRecord
from .holding import Holding
from .protocol import Beat, BeatAnswer, Finished
from .settling import is_ready, note_ready, past_attempt, try_again

# Looked up once: this stands in the hot path, and a member of an enum costs as much as a call.
_RUNNING = State.RUNNING


class Finishing(Holding):
    """`heartbeat` and `finish`, over the primitives."""

    def heartbeat(self, node_id: str, beats: Sequence[Beat], now: Instant) -> Mapping[str, BeatAnswer]:
        """Per attempt: kept, cancel or gone."""
        if not beats:
            return {}
        progressed: list[Execution] = []
        writes = any(beat.progress is not None for beat in beats)
        with self.transaction() if writes else self.reading():
            rows = self.executions_by_id([beat.execution_id for beat in beats], lock=writes)
            answers: dict[str, BeatAnswer] = {}
            for beat in beats:
                row = rows.get(beat.execution_id)
                answers[beat.attempt_id] = answer = _beat(row, beat, node_id)
                if row is not None and answer == "kept" and beat.progress is not None:
                    row.progress = beat.progress
                    progressed.append(row)
            self.update_executions(progressed)
        return answers

    def finish(self, outcomes: Sequence[Outcome], now: Instant) -> Finished:
        """Record how attempts ended (law 3)."""
        if not outcomes:
            return Finished()
        answer = Finished()
        with self.transaction():
            alone, others = _parted(outcomes)
            left = self._end_of_jobs(others, now, answer)
            self._finish(left, now, answer)  # first, because their jobs are locked before any execution is
            ended = self.end_at_once(list(alone.values())) if alone else frozenset[str]()
            answer.applied |= ended
            self._finish([outcome for attempt_id, outcome in alone.items() if attempt_id not in ended], now, answer)
        return answer

    def _end_of_jobs(self, outcomes: Sequence[Outcome], now: Instant, answer: Finished) -> Sequence[Outcome]:
        """End what can be ended at once; gives what is left."""
        final = {outcome.attempt_id: outcome for outcome in outcomes if outcome.ending in FINAL}
        ended = self.end_of_jobs_at_once(list(final.values())) if final else dict[str, str]()
        if not ended:
            return outcomes
        answer.applied.update(ended)
        answer.ended += [(job_id, final[attempt_id].at) for attempt_id, job_id in ended.items()]
        note_ready(answer.ready, self.release_held(set(ended.values()), now))
        return [outcome for outcome in outcomes if outcome.attempt_id not in ended]

    def _finish(self, outcomes: Sequence[Outcome], now: Instant, answer: Finished) -> None:
        if not outcomes:
            return
        rows = self.executions_by_id([outcome.execution_id for outcome in outcomes], lock=True)
        desk = _Desk(rows, self._jobs_that_go_on(rows, outcomes), answer)
        for outcome in outcomes:
            desk.report(outcome)
        self._write_outcomes(desk, now)
        if answer.stale:
            self._recognise_old_repeats(desk, outcomes)

    def _jobs_that_go_on(self, rows: Mapping[str, Execution], outcomes: Sequence[Outcome]) -> Mapping[str, JobRecord]:
        """The jobs whose definition a further attempt will take; mostly none."""
        if all(outcome.ending in FINAL for outcome in outcomes):
            return {}
        ids = {row.job_id for row in rows.values() if row.job_id and row.state is _RUNNING}
        return self.jobs_by_id(ids, lock=True) if ids else {}

    def _write_outcomes(self, desk: _Desk, now: Instant) -> None:
        finished, answer = list(desk.ended.values()), desk.answer
        self.save_ended(finished)
        if desk.changed:
            changed = list(desk.changed.values())
            self.update_executions(changed)
            finished += [row for row in changed if row.state in FINISHED and not row.occupies]
            note_ready(answer.ready, (row for row in changed if is_ready(row, now)))
        if desk.past:
            self.insert_attempts(desk.past)
        ended = [(row.job_id, row.finished_at or now) for row in finished if row.job_id is not None]
        answer.ended += ended
        note_ready(answer.ready, self.release_held({job_id for job_id, _ in ended}, now))

    def _recognise_old_repeats(self, desk: _Desk, outcomes: Sequence[Outcome]) -> None:
        """A repeat may come when further attempts have followed: its own outcome is history by then, not stale."""
        for outcome in outcomes:
            if outcome.attempt_id not in desk.answer.stale or outcome.execution_id not in desk.rows:
                continue
            recorded = (outcome.attempt_id, outcome.node, outcome.ending.value)
            past = self.attempt_rows(outcome.execution_id)
            if any((attempt.id, attempt.node, attempt.ending) == recorded for attempt in past):
                desk.answer.stale.discard(outcome.attempt_id)
                desk.answer.applied.add(outcome.attempt_id)


def _parted(outcomes: Sequence[Outcome]) -> tuple[dict[str, Outcome], list[Outcome]]:
    """By attempt those that end an execution for good and say that nothing else hangs on it; and the others."""
    alone: dict[str, Outcome] = {}
    others: list[Outcome] = []
    for outcome in outcomes:
        if outcome.alone and outcome.ending in FINAL and outcome.attempt_id not in alone:
            alone[outcome.attempt_id] = outcome
        else:
            others.append(outcome)
    return alone, others


def _beat(row: Execution | None, beat: Beat, node_id: str) -> BeatAnswer:
    if row is None or row.attempt_id != beat.attempt_id or row.node != node_id:
        return "gone"
    if row.state is State.RUNNING:
        return "kept"
    return "cancel" if row.state is State.CANCELLED and row.occupies else "gone"


@define
class _Desk:
    """Takes the outcomes of one call one after another."""

    rows: Mapping[str, Execution]
    jobs: Mapping[str, JobRecord]
    answer: Finished
    ended: dict[str, Execution] = Factory(dict[str, Execution])
    """By id, what ran and has finished."""
    changed: dict[str, Execution] = Factory(dict[str, Execution])
    """Whatever else has changed, in what way soever."""
    past: list[Attempt] = Factory(list[Attempt])

    def report(self, outcome: Outcome) -> None:
        """Apply one outcome, or find it repeated or stale."""
        row = self.rows.get(outcome.execution_id)
        if row is None:
            self.answer.stale.add(outcome.attempt_id)
        elif outcome.next_attempt_id and row.attempt_id == outcome.next_attempt_id:
            self.answer.applied.add(outcome.attempt_id)  # its own repeat: that attempt follows already
            self._note_follower(row)
        elif row.attempt_id != outcome.attempt_id or (row.node is not None and row.node != outcome.node):
            self.answer.stale.add(outcome.attempt_id)
        elif row.state in FINISHED:
            self._report_again(outcome, row)
        elif outcome.ending in FINAL:
            self._end(outcome, row)
        elif row.state is _RUNNING:
            self._go_on(outcome, row)
        else:
            self.answer.stale.add(outcome.attempt_id)  # what has not started cannot be interrupted

    def _report_again(self, outcome: Outcome, row: Execution) -> None:
        """An outcome for what is finished: its own repeat, or the end of a task that was asked to stop."""
        if row.occupies:
            row.occupies = False
            self.changed[row.id] = row
        same = FINAL.get(outcome.ending) is row.state
        (self.answer.applied if same else self.answer.stale).add(outcome.attempt_id)

    def _end(self, outcome: Outcome, row: Execution) -> None:
        self.answer.applied.add(outcome.attempt_id)
        (self.ended if row.state is _RUNNING else self.changed)[row.id] = row
        row.state = FINAL[outcome.ending]
        row.finished_at, row.occupies = outcome.at, False
        row.result, row.error = outcome.result, outcome.error
        if row.first_started_at is None and row.nominal is not None:
            row.verdict = Kind.CANCELLED
            row.reason = "ended before it started"

    def _go_on(self, outcome: Outcome, row: Execution) -> None:
        self.answer.applied.add(outcome.attempt_id)
        self.changed[row.id] = row
        self.past.append(past_attempt(row, outcome.ending.value, outcome.at, outcome.error))
        if outcome.error is not None:
            row.error = outcome.error
        follows = row.attempt + 1 if outcome.ending is Ending.RETRY else row.attempt
        if outcome.unbegun and row.job_id is None and row.attempt == 1 and row.first_started_at == row.started_at:
            row.first_started_at, row.occupies = None, False  # it has no verdict, and its `start_by` still counts
        try_again(row, outcome.next_attempt_id, outcome.not_before, follows, self.jobs.get(row.job_id or ""))
        self._note_follower(row)

    def _note_follower(self, row: Execution) -> None:
        known = self.answer.follows.get(row.work.queue)
        self.answer.follows[row.work.queue] = row.not_before if known is None else min(known, row.not_before)
