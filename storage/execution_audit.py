"""The auditor of single executions: whether one is in a state that the ledger could have put it into. Pure.

It sees an execution with its past attempts, of a job or enqueued. What it knows of the ledger is told once, as the
sentences below; the rules themselves stand in `starting.py`, `finishing.py` and `settling.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from ..model.execution import FINISHED, Attempt, Cause, Ending, Execution, Kind, State
from ..model.job import JobRecord
from ..model.policies import Recovery
from .protocol import Life

Objection = tuple[int, str]
"""The number of a law, and what is wrong in words."""

_COUNTING: Final = frozenset(map(str, (Ending.RETRY, State.FAILED, State.CANCELLED, State.EXPIRED)))
"""How attempts end that another number follows: by a retry, or finished and tried again by hand."""

_FREE: Final = frozenset(map(str, (Ending.SNOOZED, Ending.GIVEN_BACK, "lost")))
"""How attempts end that are tried again under the same number."""


def objections(life: Life) -> Iterator[Objection]:
    """All that is wrong with one execution."""
    row = life.execution
    yield from _to_its_kind(row)
    yield from _to_its_verdict(row)
    if row.state in FINISHED:
        yield from _to_its_end(row)
    elif row.state is State.RUNNING:
        yield from _to_its_run(row)
    else:
        yield from _to_its_waiting(row)
    yield from _to_attempts(row, life.past)


def crowding(record: JobRecord, occupying: Sequence[Execution]) -> Iterator[Execution]:
    """Executions that were started though their job was occupied by as many as it may have.

    Those that began before the job was last changed are left out: under its earlier policy they may have had room.
    """
    begun = sorted(occupying, key=lambda row: (row.first_started_at or 0, row.id))
    for before, row in enumerate(begun):
        if before >= record.job.max_running and (row.first_started_at or 0) > record.updated_at:
            yield row


def _to_its_kind(row: Execution) -> Iterator[Objection]:
    of_job, of_time = row.job_id is not None, row.nominal is not None
    if of_time != (row.cause is Cause.SCHEDULE) or of_job != (row.cause is not Cause.ENQUEUE):
        has = " and ".join((f"{'a' if of_job else 'no'} job", f"{'a' if of_time else 'no'} nominal time"))
        yield 1, f"it is there by {row.cause.value}, and has {has}"


def _to_its_verdict(row: Execution) -> Iterator[Objection]:
    began, verdict = row.first_started_at is not None, row.verdict
    if row.nominal is None:
        if verdict is not None:
            yield 1, f"it has no nominal time, but a verdict: {verdict.value}"
    elif began and verdict is not Kind.FIRED:
        yield 1, f"it has started, and its verdict is {_word(verdict)} instead of fired"
    elif not began and verdict is Kind.FIRED:
        yield 1, "its verdict is fired, and it has never started"
    elif not began and verdict is None and row.state in FINISHED:
        yield 1, f"it is {row.state.value} and has no verdict"
    elif not began and verdict is not None and row.state not in FINISHED:
        yield 1, f"it is {row.state.value} and has a verdict already: {verdict.value}"


def _to_its_end(row: Execution) -> Iterator[Objection]:
    state, began = row.state, row.first_started_at is not None
    if row.finished_at is None:
        yield 3, f"it is {state.value}, and not said when it ended"
    if state in (State.SUCCEEDED, State.FAILED) and not began:
        yield 3, f"it has {state.value}, and never started"
    if state in (State.SKIPPED, State.EXPIRED) and began:
        yield 3, f"it is {state.value}, though it has started"
    if state is State.FAILED and row.error is None:
        yield 3, "it has failed without an error"
    if row.occupies and (state is not State.CANCELLED or not row.cancel_revision):
        yield 4, f"it is {state.value} and still occupies its job"


def _to_its_run(row: Execution) -> Iterator[Objection]:
    if row.node is None or row.started_at is None or row.first_started_at is None:
        yield 4, "it is running, and not said where or since when"
    if not row.occupies and row.work.recovery is not Recovery.KEEP:
        yield 4, "it is running and does not occupy its job"
    yield from _to_an_end_too_early(row)


def _to_its_waiting(row: Execution) -> Iterator[Objection]:
    if row.node is not None or row.started_at is not None:
        yield 4, f"it is {row.state.value}, and said to have been started on node {row.node}"
    if row.occupies and row.first_started_at is None:
        yield 4, f"it is {row.state.value} and occupies its job, though it has never started"
    if row.state is State.HELD and (row.occupies or row.job_id is None):
        yield 4, "it is held for its job's overlap, which it has no part in"
    yield from _to_an_end_too_early(row)


def _to_an_end_too_early(row: Execution) -> Iterator[Objection]:
    if row.finished_at is not None or row.result is not None:
        yield 3, f"it is {row.state.value}, and has ended already"
    if row.cancel_revision:
        yield 3, f"it is {row.state.value}, and was cancelled already"


def _to_attempts(row: Execution, past: Sequence[Attempt]) -> Iterator[Objection]:
    ids = [attempt.id for attempt in past]
    if row.attempt_id in ids:
        yield 3, f"its attempt {row.attempt_id} is a past one as well"
    if not past and (row.attempt_id != row.id or row.attempt != 1):
        yield 3, f"it is at attempt {row.attempt}, and has no earlier ones"
    if past and row.attempt_id == row.id:
        yield 3, f"it is at its first attempt, and has {len(past)} earlier ones"
    for attempt in past:
        yield from _to_attempt(row, attempt)
    yield from _to_numbers(row, past)


def _to_attempt(row: Execution, attempt: Attempt) -> Iterator[Objection]:
    if attempt.ending not in _COUNTING | _FREE:
        yield 3, f"attempt {attempt.id} has ended as {attempt.ending!r}, and nothing follows on that"
    if (attempt.node is None) != (attempt.started_at is None):
        yield 3, f"attempt {attempt.id} was started {'at no time' if attempt.node else 'by no node'}"
    if not 1 <= attempt.number <= row.attempt:
        yield 3, f"attempt {attempt.id} has the number {attempt.number} of {row.attempt}"


def _to_numbers(row: Execution, past: Sequence[Attempt]) -> Iterator[Objection]:
    """Each number below the present one was left once; the first of many attempts may be forgotten."""
    left = Counter(attempt.number for attempt in past if attempt.ending in _COUNTING)
    first = min((attempt.number for attempt in past), default=row.attempt)
    wrong = [number for number in range(first, row.attempt) if left[number] != 1]
    if wrong or left[row.attempt]:
        numbers = ", ".join(str(attempt.number) for attempt in past)
        yield 3, f"its attempts are not in order: numbers {numbers or 'none'} before {row.attempt}"


def _word(verdict: Kind | None) -> str:
    return "none" if verdict is None else verdict.value
