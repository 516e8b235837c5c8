"""Job definitions as plain data and back; mistakes are told with the place where they stand."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, date, datetime
from typing import Any

import pytest

from clepsydra.model.cron import Cron
from clepsydra.model.definitions import job_from_data, job_to_data, schedule_from_data, schedule_to_data
from clepsydra.model.errors import ClepsydraError, ScheduleError
from clepsydra.model.job import Job
from clepsydra.model.policies import Misfire, Retry
from clepsydra.model.schedule import BoundSchedule, Every, Once, Reboot, Schedule
from clepsydra.model.strategies import All, Named, NodeList, Random
from clepsydra.model.task import Call

from .test_schedule_json import SCHEDULES

AT = datetime(2027, 6, 1, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_schedule_comes_back_from_data_as_it_was(schedule: Schedule) -> None:
    again = schedule_from_data(json.loads(json.dumps(schedule_to_data(schedule), default=datetime.isoformat)))

    assert again == schedule
    assert again.describe() == schedule.describe()


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("'0 3 * * *'", Cron("0 3 * * *")),
        ("{ cron = '0 3 * * *', tz = 'Europe/Zurich', gap = 'skip' }", Cron("0 3 * * *", "Europe/Zurich", gap="skip")),
        ("{ every = 90 }", Every(90)),
        ("{ every = { hours = 1, minutes = 30 }, after_completion = true }", Every(5400, after_completion=True)),
        ("{ once = 2027-06-01T09:30:00Z }", Once(AT)),
        ("{ once = '2027-06-01 09:30', tz = 'Europe/Zurich' }", Once("2027-06-01 09:30", tz="Europe/Zurich")),
        ("{ once = 2027-06-01T09:30:00, tz = 'Europe/Zurich' }", Once("2027-06-01 09:30", tz="Europe/Zurich")),
        ("{ reboot = true }", Reboot()),
        ("{ any = ['0 9 * * *', { every = 60 }] }", Cron("0 9 * * *") | Every(60)),
        ("{ every = 60, except = '* 12 * * *' }", Every(60) - Cron("* 12 * * *")),
        ("{ cron = '0 9 * * *', from = 2027-06-01T09:30:00Z }", Cron("0 9 * * *").between(AT)),
        ("{ of = { every = 60, until = 2027-06-01T09:30:00Z }, except = '* 12 * * *' }",
         Every(60).between(end=AT) - Cron("* 12 * * *")),
    ],
)  # fmt: skip
def test_a_schedule_is_written_as_one_would_say_it(text: str, schedule: Schedule) -> None:
    assert schedule_from_data(tomllib.loads(f"schedule = {text}")["schedule"]) == schedule


@pytest.mark.parametrize(
    "job",
    [
        Job("a", Call("mail.send")),
        Job(
            "a",
            Call("t", '{"x":[1,2]}'),
            Cron("0 3 * * *"),
            labels={"team": "data"},
            priority=5,
            queue="q",
            paused=True,
        ),
        Job("a", Call("t"), Every(1.5), retry=Retry(5), timeout=90, start_by=0.25, jitter=3, limit=7, max_running=2),
        Job("a", Call("t"), Every(60), retry=Retry(5, backoff=10, factor=3, on=["app.Error"]), misfire=Misfire("all")),
        Job("a", Call("t"), Every(60), misfire=Misfire("latest", window=3600, grace=5), overlap="buffer_all"),
        Job("a", Call("t"), Every(60), recovery="fail", recoveries=0, on_lease_lost="cancel", timeout_from="nominal"),
        Job("a", Call("t"), Every(60), recovery="retry", immediate=True, run_on=NodeList(["one", "two"])),
        *(Job("a", Call("t"), run_on=run_on) for run_on in (Random(), All(["one"]), Named("mine"), "local")),
    ],
    ids=repr,
)
def test_a_job_comes_back_from_data_as_it_was(job: Job) -> None:
    data = json.loads(json.dumps(job_to_data(job)))

    again = job_from_data("a", data)

    assert again == job
    assert again.says_recovery == job.says_recovery


def test_what_is_as_always_is_not_said() -> None:
    job = Job("a", Call("mail.send"), Cron("0 3 * * *"), retry=Retry(3), timeout=90)

    assert job_to_data(job) == {"task": "mail.send", "schedule": "0 3 * * *", "retry": 3, "timeout": 90}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "jobs.a.task=None: is missing"),
        ({"task": "t", "retries": 3}, "jobs.a.retries=3: is not known here; known: task, args, schedule"),
        ({"task": "t", "schedule": "0 25 * * *"}, "jobs.a.schedule: .*25"),
        (
            {"task": "t", "schedule": {"every": 60, "cron": "* * * * *"}},
            "jobs.a.schedule=.* exactly one of cron, every",
        ),
        ({"task": "t", "schedule": {"every": 0}}, "jobs.a.schedule: Every: an interval of 0 s"),
        ({"task": "t", "schedule": {"every": {"minute": 5}}}, r"jobs.a.schedule.every.minute=5: is not known here"),
        (
            {"task": "t", "schedule": {"every": {"minutes": "5"}}},
            r"jobs.a.schedule.every.minutes='5': must be a number",
        ),
        ({"task": "t", "schedule": {"any": ["* * * * *", "nope"]}}, r"jobs.a.schedule.any\[1\]: .*NOPE"),
        ({"task": "t", "schedule": {"every": 5, "from": date(2027, 1, 1)}}, "jobs.a.schedule.from=.*with an offset"),
        ({"task": "t", "schedule": {"every": 5, "tz": "UTC"}}, "jobs.a.schedule.tz='UTC': is not known here"),
        ({"task": "t", "schedule": 5}, "jobs.a.schedule=5: must be a cron expression, or a table"),
        ({"task": "t", "schedule": {"reboot": 1}}, "jobs.a.schedule.reboot=1: must be true"),
        ({"task": "t", "retry": {"attempts": 0}}, "jobs.a.retry.attempts=0: must be a whole number"),
        ({"task": "t", "retry": "3"}, "jobs.a.retry='3': must be a table"),
        ({"task": "t", "misfire": "never"}, "jobs.a.misfire.take='never': must be one of latest, all, none"),
        ({"task": "t", "timeout": {"days": 10**12}}, "jobs.a.timeout=.* longer than any duration"),
        ({"task": "t", "timeout": "5m"}, "jobs.a.timeout='5m': must be"),
        ({"task": "t", "overlap": "never"}, "jobs.a.overlap='never': must be one of skip"),
        ({"task": "t", "run_on": {"node_list": "one"}}, "jobs.a.run_on.names='one': must be a list"),
        ({"task": "t", "run_on": {}}, "jobs.a.run_on={}: must say one of random, all, node_list"),
        ("t", "jobs.a='t': must be a table"),
    ],
    ids=str,
)
def test_a_mistake_is_told_with_its_place(data: Any, says: str) -> None:
    with pytest.raises(ClepsydraError, match=says):
        job_from_data("a", data, "jobs.a")


def test_a_schedule_of_ones_own_has_no_data() -> None:
    class Mine(Schedule):
        def bind(self, job_id: str, name: str, anchor: int) -> BoundSchedule:
            raise NotImplementedError

        def describe(self) -> str:
            return "mine"

        def to_json(self) -> dict[str, Any]:
            return {}

    with pytest.raises(ScheduleError, match="Mine is no schedule that data can name"):
        schedule_to_data(Mine())
