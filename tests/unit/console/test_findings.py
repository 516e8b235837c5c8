"""What `clepsydra check` finds about a job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from clepsydra import Cron, Every, Job, Misfire, Once, Overlap, Reboot, Schedule
from clepsydra.console.findings import findings_of

NOW = datetime(2027, 1, 15, 12, 0, tzinfo=UTC)


def found(schedule: Schedule | None, **options: object) -> list[str]:
    job = Job("job", "task", schedule, **options)  # type: ignore[arg-type]
    return [f"{finding.level}: {finding.text}" for finding in findings_of(job, NOW)]


@pytest.mark.parametrize(
    "schedule",
    [
        Cron("*/5 * * * *"),
        Every(minutes=1),
        Once(NOW + timedelta(days=1)),
        Reboot(),
        Every(hours=1, after_completion=True),
    ],
)
def test_nothing_is_said_about_an_ordinary_job(schedule: Schedule) -> None:
    assert found(schedule) == []


@pytest.mark.parametrize(
    "schedule",
    [
        Once(datetime(2020, 1, 1, tzinfo=UTC)),
        Cron("0 0 0 1 1 * 2020"),
        Cron("0 0 * * *").between(end=datetime(2021, 1, 1, tzinfo=UTC)),
        Cron("0 0 * * *") - Cron("* * * * *"),
        Cron("0 3 * * *") - Cron("* 3 * * *"),
    ],
)
def test_a_job_that_never_runs_is_an_error(schedule: Schedule) -> None:
    assert found(schedule)[0].startswith("error: never runs: ")


def test_a_job_that_runs_in_years_is_a_warning() -> None:
    assert found(Cron("0 0 29 2 *"))[0] == "warning: does not run before 2028-02-29 00:00:00+00:00"


def test_changes_of_the_clocks_are_told_with_their_dates() -> None:
    assert found(Cron("30 2 * * *", tz="Europe/Zurich")) == [
        "info: Europe/Zurich clocks go forward from 02:00 to 03:00: 02:30 does not exist on 2027-03-28; runs at 03:00",
        "info: Europe/Zurich clocks go back from 03:00 to 02:00: 02:30 comes twice on 2027-10-31; runs the first time",
    ]


def test_a_job_at_noon_is_not_touched_by_them() -> None:
    assert found(Cron("0 12 * * *", tz="Europe/Zurich")) == []


def test_those_outside_of_its_bounds_do_not_touch_it() -> None:
    summer = Cron("30 2 * * *", tz="Europe/Zurich").between(
        datetime(2027, 5, 1, tzinfo=UTC), datetime(2027, 9, 1, tzinfo=UTC)
    )

    assert found(summer) == []


def test_those_that_touch_a_member_or_an_exclusion_are_told() -> None:
    night = Cron("30 2 * * *", tz="Europe/Zurich")

    assert len(found(Cron("0 12 * * *") | night)) == 2
    assert "the exclusion's 02:30 does not exist" in found(Cron("0 * * * *") - night)[0]


def test_day_of_month_and_day_of_week_together_are_a_warning() -> None:
    (finding,) = found(Cron("0 9 13 * FRI"))

    assert finding.startswith("warning: restricts both day of month (13) and day of week (FRI): it runs when either")


@pytest.mark.parametrize("expr", ["0 9 13 * *", "0 9 * * FRI", "0 9 13 * ?", "0 0 9 13 * *"])
def test_one_of_them_is_not(expr: str) -> None:
    assert found(Cron(expr)) == []


def test_a_day_that_some_months_lack_is_told() -> None:
    assert found(Cron("0 0 31 * *")) == [
        "info: runs on day 31: shorter months are left out; 'L' is the last day of each month"
    ]


def test_a_timeout_beyond_the_interval_is_told_with_what_becomes_of_the_next_time() -> None:
    (skipping,) = found(Every(seconds=30), timeout=60)
    (waiting,) = found(Every(seconds=30), timeout=60, overlap=Overlap.BUFFER_ALL)

    assert skipping.endswith("while it runs, later times are skipped (overlap=skip)")
    assert waiting.endswith("later times all wait for their turn (overlap=buffer_all)")


def test_making_up_for_everything_is_a_warning_for_a_job_that_runs_often() -> None:
    (finding,) = found(Every(seconds=10), misfire=Misfire("all"))

    assert "after a day's downtime some 8640 runs follow" in finding
    assert found(Every(seconds=10), misfire=Misfire("all", limit=5)) == []
    assert found(Every(hours=1), misfire=Misfire("all")) == []


def test_a_jitter_beyond_the_interval_is_told() -> None:
    assert "it is cut at the next time" in found(Every(seconds=10), jitter=20)[0]


def test_jobs_that_wait_for_somebody_are_told() -> None:
    assert found(None) == ["info: has no schedule: it runs when run_job() is called"]
    assert found(Every(hours=1), paused=True) == ["info: is declared paused: it waits for resume_job()"]
