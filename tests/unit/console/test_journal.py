"""Telemetry events as lines and counts."""

from __future__ import annotations

from typing import Any

from clepsydra import JobState, Kind, State, events
from clepsydra.console.journal import Entry, Journal, plain

AT = 1_800_000_000_000_000
RUN: dict[str, Any] = {
    "execution_id": "x",
    "task": "work",
    "queue": "default",
    "attempt": 1,
    "job": "feeds",
    "nominal": AT,
}


def heard(*happened: events.TelemetryEvent) -> tuple[Journal, list[Entry]]:
    entries: list[Entry] = []
    journal = Journal(entries.append)
    for event in happened:
        journal.hear(event)
    return journal, entries


def started(late: int = 3_000, **changed: Any) -> events.ExecutionStarted:
    return events.ExecutionStarted(at=AT + late, late_by=late, **RUN | changed)


def stopped(state: State = State.SUCCEEDED, **changed: Any) -> events.ExecutionStopped:
    return events.ExecutionStopped(at=AT + 5_000, duration=2_000, state=state, **RUN | changed)


def failed(will_retry: bool = False, **changed: Any) -> events.ExecutionFailed:
    return events.ExecutionFailed(
        at=AT + 5_000,
        duration=2_000,
        kind=events.FailureKind.EXCEPTION,
        error="Traceback (most recent call last):\n  File x\nOSError: no one there",
        will_retry=will_retry,
        **RUN | changed,
    )


def test_a_run_is_one_line_with_its_nominal_time_lateness_verdict_and_length() -> None:
    _, entries = heard(started(), stopped())

    assert [plain(entry) for entry in entries] == [
        "2027-01-15T08:00:00.005Z job=feeds nominal=2027-01-15T08:00:00.000Z late=0.003s "
        "verdict=fired state=succeeded took=0.002s"
    ]


def test_an_enqueued_run_has_its_tasks_name_and_no_verdict() -> None:
    _, entries = heard(started(job=None, nominal=None), stopped(job=None, nominal=None))

    assert plain(entries[0]) == "2027-01-15T08:00:00.005Z job=work late=0.003s state=succeeded took=0.002s"


def test_a_failure_tells_its_error_in_one_line() -> None:
    _, entries = heard(started(), failed())

    assert plain(entries[0]).endswith('state=failed took=0.002s note="OSError: no one there"')


def test_a_try_that_another_one_follows_is_told_with_its_number() -> None:
    _, entries = heard(started(), failed(will_retry=True), started(attempt=2), stopped(attempt=2))

    assert [(entry.happened, entry.attempt) for entry in entries] == [("retrying", 1), ("succeeded", 2)]
    assert "state=retrying took=0.002s attempt=1" in plain(entries[0])


def test_times_that_did_not_run_are_told_with_their_verdict() -> None:
    missed = events.ExecutionsMissed(
        at=AT, job="feeds", job_id="1", generation=0, kind=Kind.COALESCED, first=AT - 9_000_000, last=AT - 1, count=9
    )
    skipped = events.ExecutionSkipped(at=AT, kind=Kind.OVERLAP_SKIPPED, reason="busy", **RUN)
    _, entries = heard(missed, skipped)

    assert [plain(entry).split(" ", 2)[2] for entry in entries] == [
        'verdict=coalesced state="not run" from=2027-01-15T07:59:51.000Z to=2027-01-15T07:59:59.999Z note="9 times"',
        "nominal=2027-01-15T08:00:00.000Z verdict=overlap_skipped state=skipped note=busy",
    ]


def test_a_run_is_counted_once_whatever_its_tries() -> None:
    journal, _ = heard(
        started(5_000),
        failed(will_retry=True),
        started(900_000, attempt=2),
        stopped(attempt=2),
        started(7_000),
        failed(),
    )

    tally = journal.tally("feeds")
    assert (tally.runs, tally.succeeded, tally.failed, tally.retries) == (2, 1, 1, 1)
    assert (tally.late_median, tally.late_most) == (5_000, 7_000), "a retry is late on purpose"
    assert journal.summary() == "2 runs, 1 failed, 1 retry, 0 skipped"


def test_what_has_ended_is_not_kept() -> None:
    journal, _ = heard(
        *(event for number in range(100) for event in (started(attempt=number), stopped(attempt=number)))
    )

    assert vars(journal)["_late"] == {}


def test_news_of_the_machinery_have_a_line() -> None:
    news = [
        events.JobParked(at=AT, job="feeds", job_id="1", generation=0, reason="its schedule raises"),
        events.JobRemoved(at=AT, job="feeds", job_id="1", generation=0),
        events.OutcomeRefused(at=AT, attempt_id="a", **RUN),
        events.HookFailed(at=AT, hook="on_success", error="KeyError: 2", **RUN),
        events.ThreadAbandoned(at=AT, abandoned=2, **RUN),
        events.StageRestarted(at=AT, stage="executor", incarnation=2, error="ValueError: x"),
        events.StoreDegraded(at=AT, error="locked", since=AT),
        events.StoreRecovered(at=AT, outage=5_000_000),
        events.RowQuarantined(at=AT, table="jobs", row_id="7", reason="no JSON"),
        events.LoopBlocked(at=AT, duration=900_000, suspect="feeds"),
        events.SelectorFailed(at=AT, strategy="mine", execution_id="x", error="KeyError: 1"),
        events.NodeDied(at=AT, node="b", recovered=1),
    ]
    _, entries = heard(*news)

    assert [(entry.happened, entry.note) for entry in entries] == [
        ("parked", "its schedule raises"),
        ("removed", ""),
        ("refused", "the store had given this attempt up"),
        ("hook failed", "on_success: KeyError: 2"),
        ("abandoned", "its thread runs on; 2 such threads"),
        ("restarted", "executor: ValueError: x"),
        ("store lost", "locked"),
        ("recovered", "the store answers again, after 5s"),
        ("set aside", "jobs 7: no JSON"),
        ("blocked", "the event loop stood still for 900ms by feeds"),
        ("no node", "strategy mine: KeyError: 1"),
        ("node died", "b; 1 run recovered"),
    ]


def test_a_job_that_turns_is_told_and_one_that_is_only_redefined_is_not() -> None:
    facts: dict[str, Any] = {"at": AT, "job": "feeds", "job_id": "1", "old_generation": 0}
    turned = events.JobUpdated(
        old_state=JobState.ACTIVE, new_state=JobState.STOPPED, generation=0, reason="limit", **facts
    )
    redefined = events.JobUpdated(old_state=JobState.ACTIVE, new_state=JobState.ACTIVE, generation=1, **facts)
    _, entries = heard(turned, redefined)

    assert [(entry.happened, entry.note) for entry in entries] == [("stopped", "limit")]


def test_only_runs_that_went_well_are_left_out_by_who_reads_problems_only() -> None:
    _, entries = heard(started(), stopped(), started(), failed(), started(), stopped(State.CANCELLED))

    assert [entry.is_bad for entry in entries] == [False, True, True]
