"""The cases of `contracts.md` that values decide alone: what is refused when it is made, and what comes next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from clepsydra import Cron, Every, ExecutionFilter, InvalidArgument, Job, JobFilter, Misfire, Retry, ScheduleError, Task
from clepsydra.model.instants import HOUR, SECOND
from clepsydra.model.redeploy import first_record
from clepsydra.stages.misfire import Entry, judge


def test_or27_a_date_that_no_calendar_has_is_refused() -> None:
    """Decided differently: when the schedule is made, before anything is added."""
    with pytest.raises(ScheduleError, match="30"):
        Cron("0 0 30 2 *")


@pytest.mark.parametrize("interval", [0, -1, timedelta(0)])
def test_or28_an_interval_of_nothing_is_refused(interval: Any) -> None:
    with pytest.raises(ScheduleError, match="interval"):
        Every(interval)


@pytest.mark.parametrize(("now", "runs"), [(105, None), (150, 150), (151, 160)])
def test_or29_after_a_downtime_the_phase_of_an_interval_is_kept(now: int, runs: int | None) -> None:
    """Of 110 to 150, when the last was 100: nothing is due, exactly now is due, and what is past is passed over."""
    misfire = Misfire("none", grace=0)
    record = first_record("id", Job("tick", "tick", Every(10), misfire=misfire), False, 0, 1)
    bound = record.bind()
    assert bound is not None
    following = bound.next_after(100 * SECOND)
    assert following is not None
    assert following == 110 * SECOND
    if runs is None:
        assert following > now * SECOND
        return

    entry = Entry(record, bound, 100 * SECOND, nominal=following, due=following)
    fire = judge(entry, now * SECOND, "run")
    if not fire.execution_id:
        assert fire.to == 150 * SECOND
        later = bound.next_after(fire.to)
        assert later is not None
        fire = judge(Entry(record, bound, fire.to, nominal=later, due=later), later, "run")

    assert (fire.execution_id, fire.nominal) == ("run", runs * SECOND)


def test_or30_a_clock_slightly_behind_does_not_bring_the_last_time_again() -> None:
    bound = Cron("0 * * * *").bind("id", "hourly", 0)
    last = 1000 * HOUR

    assert bound.next_after(max(last, last - SECOND // 10)) == last + HOUR


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (3, 4), (1000, 10)])
def test_or38_a_backoff_doubles_up_to_its_bound(attempt: int, seconds: int) -> None:
    assert Retry(2000, backoff=1, factor=2, max_backoff=10, jitter=0).delay(attempt) == seconds * SECOND


def test_or45_the_names_of_tasks_are_identifiers_joined_by_dots() -> None:
    assert Task(lambda: None, "a.b_1").name == "a.b_1"
    for name in ("1a", "a..b", ""):
        with pytest.raises(InvalidArgument, match="identifiers joined by dots"):
            Task(lambda: None, name)


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (lambda: ExecutionFilter(states="started"), "pending, placing, held, running"),
        (lambda: ExecutionFilter(states=["pending", "done"]), "pending, placing, held, running"),
        (lambda: ExecutionFilter(causes="cron"), "schedule, manual, enqueue"),
        (lambda: ExecutionFilter(verdicts=["ran"]), "fired, coalesced"),
        (lambda: JobFilter(states="inactive"), "active, paused, stopped"),
    ],
)
def test_qu22_a_state_that_is_none_is_refused(make: Callable[[], object], known: str) -> None:
    with pytest.raises(InvalidArgument, match=known):
        make()
