"""A simulation is the engine on a virtual clock: what it tallies is what would happen."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest

from clepsydra import Cron, Every, ExecutorSettings, Job, Kind, Once, Scheduler, Stages, Task, to_instant
from clepsydra.console.heat_map import heat_map
from clepsydra.console.simulation import Busy, Collision, Durations, Tally, expected_runs, simulate
from clepsydra.console.words import SECOND, Paint

START = datetime(2027, 3, 1, tzinfo=UTC)  # a Monday
MINUTE = 60 * SECOND


def never(*args: Any, **arguments: Any) -> None:
    raise AssertionError("a simulation does not run the user's tasks")


def at(day: int, hour: int, minute: int = 0) -> int:
    return to_instant(datetime(2027, 3, day, hour, minute, tzinfo=UTC))


def simulated(*jobs: Job, days: float = 1, durations: Durations | None = None, **options: Any) -> Tally:
    scheduler = Scheduler(jobs=jobs, tasks=[Task(never, "task"), Task(never, "other", ["old"])], **options)
    tally = Tally(UTC)
    end = START + timedelta(days=days)
    anyio.run(simulate, scheduler, scheduler.declared_jobs, START, end, durations or Durations(), tally)
    return tally


def test_every_time_is_counted_on_the_day_and_hour_where_it_falls() -> None:
    tally = simulated(Job("daily", "task", Cron("0 3 * * *")), Job("weekly", "old", Cron("30 9 * * FRI")), days=14)

    assert {name: job.runs for name, job in tally.jobs.items()} == {"daily": 14, "weekly": 2}
    assert [day[3] for day in tally.week] == [2] * 7
    assert tally.week[4][9] == 2
    assert sum(map(sum, tally.week)) == tally.runs == 16


def test_jobs_on_one_instant_collide_and_the_minute_is_a_busy_one() -> None:
    tally = simulated(
        Job("hourly", "task", Cron("0 * * * *")),
        Job("a", "task", Cron("0 6 * * *")),
        Job("b", "task", Cron("0 6 * * *")),
        durations=Durations(SECOND),
    )

    assert tally.collisions == [Collision(("a", "b", "hourly"), 1, at(1, 6))]
    assert tally.busiest[0] == Busy(3, at(1, 6))
    assert tally.most_at_once == 3


def test_what_takes_longer_than_its_interval_is_skipped_or_runs_beside_itself() -> None:
    durations = Durations(0, {"skips": [90 * SECOND], "allows": [90 * SECOND]})
    tally = simulated(
        Job("skips", "task", Cron("* * * * *")),
        Job("allows", "task", Cron("* * * * *"), overlap="allow"),
        durations=durations,
        days=1 / 24,
    )

    assert (tally.jobs["skips"].runs, tally.jobs["skips"].settled) == (30, {Kind.OVERLAP_SKIPPED: 30})
    assert (tally.jobs["allows"].runs, tally.jobs["allows"].overlapping) == (60, 59)
    assert tally.jobs["allows"].most_at_once == 2


def test_recorded_durations_are_taken_in_turn_by_job_and_else_by_task() -> None:
    durations = Durations(7, {"job": [1, 2], "task": [3]})

    assert [durations.of("job", "task", number) for number in range(3)] == [1, 2, 1]
    assert durations.of("another", "task", 5) == 3
    assert durations.of("another", "other", 0) == 7


def test_queues_timeouts_and_limits_are_the_users_own() -> None:
    tally = simulated(
        *(Job(f"job{number}", "task", Once(START + timedelta(hours=1)), queue="narrow") for number in range(3)),
        Job("timed", "task", Cron("0 2 * * *"), timeout=60),
        Job("paused", "task", Every(60), paused=True),
        Job("limited", "task", Every(60), limit=2),
        durations=Durations(10 * MINUTE),
        stages=Stages(executor=ExecutorSettings(queues={"narrow": 1})),
    )

    assert sorted(tally.jobs[f"job{number}"].late for number in range(3)) == [0, 10 * MINUTE, 20 * MINUTE]
    assert tally.jobs["timed"].failed == 1
    assert "paused" not in tally.jobs
    assert tally.jobs["limited"].runs + tally.jobs["limited"].settled[Kind.OVERLAP_SKIPPED] == 2


def test_times_that_nobody_drives_need_no_counting_beforehand() -> None:
    jobs = [
        Job("cron", "task", Cron("0 3 * * *")),
        Job("often", "task", Every(1)),
        Job("after", "task", Every(60, after_completion=True)),
        Job("manual", "task"),
    ]

    assert expected_runs(jobs, START, START + timedelta(days=10), 1000) == {"cron": 10, "often": 1000}
    assert simulated(jobs[2], durations=Durations(60 * SECOND), days=1 / 24).jobs["after"].runs == 30


def test_a_heat_map_has_a_shade_for_each_quarter_of_the_busiest_hour() -> None:
    week = [[0] * 24 for _ in range(7)]
    week[0][:5] = [1, 3, 5, 7, 8]

    lines = list(heat_map(week, Paint(sys.stdout)))

    assert lines[1].split() == ["Mon", "░░", "▒▒", "▓▓", "██", "██"]
    assert lines[2].strip() == "Tue"
    assert lines[-1].strip() == "blank: none, ░ 1 or more, ▒ 3 or more, ▓ 5 or more, █ 7 or more"
    assert list(heat_map(week, Paint(sys.stdout), ascii_only=True))[1].split() == ["Mon", "..", "::", "**", "##", "##"]
    assert "█" in list(heat_map([[1] * 24] * 7, Paint(sys.stdout)))[1]


@pytest.mark.parametrize("zone", ["Europe/Zurich", "America/New_York"])
def test_days_and_hours_are_those_of_the_zone(zone: str) -> None:
    tally = Tally(ZoneInfo(zone))
    scheduler = Scheduler(jobs=[Job("job", "task", Cron("0 3 * * MON", zone))], tasks=[Task(never, "task")])

    anyio.run(simulate, scheduler, scheduler.declared_jobs, START, START + timedelta(days=28), Durations(), tally)

    assert (tally.week[0][3], tally.runs) == (4, 4)
