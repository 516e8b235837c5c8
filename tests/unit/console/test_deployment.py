"""What a deployment changes: definitions beside one another, and the times that come and go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from clepsydra import Call, Cron, Every, Job, JobRecord, JobState, to_instant
from clepsydra.console.deployment import Change, changes, declared, stored
from clepsydra.model.redeploy import first_record

START = datetime(2027, 3, 1, tzinfo=UTC)
END = START + timedelta(days=2)
NOW = to_instant(START)


def job(schedule: Cron | Every | None = None, name: str = "job", **options: object) -> Job:
    return Job(name, Call("task"), schedule, **options)  # type: ignore[arg-type]


def record(of: Job, anchor: datetime = START, state: JobState = JobState.ACTIVE) -> JobRecord:
    first = first_record("id", of, True, to_instant(anchor), 1)
    return evolve(first, status=evolve(first.status, state=state))


def only(before: list[Job], after: list[Job]) -> Change:
    (change,) = changes(declared(before, NOW), declared(after, NOW), START, END)
    return change


DAILY, LATER = Cron("0 3 * * *"), Cron("0 4 * * *")


def test_another_schedule_tells_its_times() -> None:
    change = only([job(DAILY)], [job(LATER)])

    assert (change.kind, change.runs) == ("changed", (2, 2))
    assert change.fields == {"schedule": ("0 3 * * *", "0 4 * * *")}
    assert change.no_longer == tuple(to_instant(START + timedelta(days=day, hours=3)) for day in (0, 1))
    assert change.newly == tuple(to_instant(START + timedelta(days=day, hours=4)) for day in (0, 1))
    assert "what waits of the old schedule is superseded" in change.effect


@pytest.mark.parametrize(
    ("before", "after", "kind", "runs", "effect"),
    [
        ([], [job(DAILY)], "added", (None, 2), "counts from the deployment on"),
        ([job(DAILY)], [], "removed", (2, None), "stays in the store, and is not fired any more"),
        ([job(DAILY)], [job(DAILY)], "same", (2, 2), ""),
        ([job(DAILY)], [job(DAILY, timeout=5)], "changed", (2, 2), "what waits is kept"),
        ([job()], [job(DAILY)], "changed", (None, 2), "counts from the deployment on"),
        ([job(DAILY)], [job(DAILY, paused=True)], "same", (2, 2), ""),
    ],
)
def test_what_becomes_of_a_job(
    before: list[Job], after: list[Job], kind: str, runs: tuple[int | None, int | None], effect: str
) -> None:
    change = only(before, after)

    assert (change.kind, change.runs) == (kind, runs)
    assert change.effect.startswith(effect)


def test_an_interval_that_is_not_changed_goes_on_counting_from_where_it_did() -> None:
    before = stored([record(job(Every(hours=7)), START - timedelta(hours=5))])

    (same,) = changes(before, declared([job(Every(hours=7), timeout=5)], NOW), START, END)
    (other,) = changes(before, declared([job(Every(hours=7.5))], NOW), START, END)

    assert same.newly == same.no_longer == ()
    assert other.newly[0] == to_instant(START + timedelta(hours=7.5))


def test_what_rests_in_the_store_has_no_times_and_what_had_ended_begins_anew() -> None:
    paused = stored([record(job(DAILY), state=JobState.PAUSED)])
    ended = stored([record(job(DAILY), state=JobState.STOPPED)])

    for schedule in (DAILY, LATER):
        (rests,) = changes(paused, declared([job(schedule)], NOW), START, END)
        assert rests.runs == (0, 0)
    (anew,) = changes(ended, declared([job(LATER)], NOW), START, END)

    assert (anew.runs, anew.effect) == ((0, 2), "had ended, and begins a new life")


def test_recovery_counts_only_where_both_sides_say_it() -> None:
    said = record(job(DAILY, recovery="retry"))

    (change,) = changes(stored([said]), declared([job(DAILY)], NOW), START, END)

    assert change.kind == "same"
