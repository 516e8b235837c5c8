"""`clepsydra simulate`: what it prints of a span of time, and of what a deployment changes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from clepsydra import Cron, Every, Job, Scheduler, SQLiteStorage
from clepsydra.console.errors import OK, PROBLEM, STORE, USAGE
from clepsydra.console.main import main

MODULE = """
from clepsydra import Cron, Every, Scheduler

scheduler = Scheduler()

@scheduler.job(Cron("30 2 * * *", tz="Europe/Zurich"), name="backup")
@scheduler.job(Cron("30 2 * * *", tz="Europe/Zurich"), name="export")
@scheduler.job(Every(hours=1), name="hourly")
def work():
    raise AssertionError("the user's tasks do not run")

other = Scheduler(tasks=scheduler.tasks.values())
other.job(Cron("0 4 * * *", tz="Europe/Zurich"), name="backup")(scheduler.tasks["my_app.work"])
other.job(Every(hours=1), name="hourly", timeout=60)(scheduler.tasks["my_app.work"])

often = Scheduler()
@often.job(Every(1))
def tick(): ...
"""
SPAN = ("--from", "2027-03-27", "--to", "2027-03-30", "--tz", "Europe/Zurich")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "my_app.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_app", None)


def test_it_tells_counts_hours_collisions_and_changes_of_the_clocks(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["simulate", "my_app:scheduler", *SPAN, "--assume", "90m", "--assume", "backup=10s"])
    text = capsys.readouterr().out

    assert code == OK
    for part in (
        "2027-03-27 00:00:00+01:00 to 2027-03-30 00:00:00+02:00, 2d 23h",
        "of 3 jobs",
        "overlap skipped",
        "Runs by day of the week and hour, Europe/Zurich",
        "Busiest minutes",
        "Jobs at the same instant\n  3 times, first 2027-03-27 02:30:00+01:00: backup, export",
        "Europe/Zurich clocks go forward from 02:00 to 03:00: backup",
    ):
        assert part in text


def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "my_app:scheduler", *SPAN, "--without", "hourly", "--json"]) == OK
    document = json.loads(capsys.readouterr().out)

    assert (document["from"], document["runs"]) == ("2027-03-26T23:00:00Z", 6)
    assert {name: job["runs"] for name, job in document["jobs"].items()} == {"backup": 3, "export": 3}
    assert document["collisions"] == [{"jobs": ["backup", "export"], "times": 3, "first": "2027-03-27T01:30:00Z"}]
    assert document["week"][5][2] == 2
    assert sorted(change["job"] for change in document["clock_changes"]) == ["backup", "export"]


def test_another_version_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "my_app:other", *SPAN, "--diff", "my_app:scheduler"]) == PROBLEM
    text = capsys.readouterr().out

    for part in (
        "~ backup: changed, 3 runs\n    schedule: {'cron': '30 2 * * *'",
        "no longer: 2027-03-27 02:30:00+01:00",
        "newly: 2027-03-27 04:00:00+01:00",
        "what waits of the old schedule is superseded",
        "- export: removed, 3 runs fewer",
        "~ hourly: changed, 71 runs\n    timeout: - -> 60",
    ):
        assert part in text
    assert main(["simulate", "my_app:scheduler", *SPAN, "--diff", "my_app:scheduler"]) == OK
    assert capsys.readouterr().out == "nothing changes\n"


def test_what_a_store_has_and_has_recorded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def live() -> None:
        def work() -> None: ...

        scheduler = Scheduler(SQLiteStorage(folder / "jobs.db"), name="node")
        task = scheduler.task(name="my_app.work")(work)
        scheduler.job(Cron("30 2 * * *", tz="Europe/Zurich"), name="backup")(task)
        scheduler.job(Every(hours=1), name="gone")(task)
        async with scheduler:
            await scheduler.add_job(Job("of nobody", task, Every(hours=1)))
            await (await scheduler.run_job("backup")).wait()

    anyio.run(live)
    store = f"sqlite:///{folder}/jobs.db"

    assert main(["simulate", "my_app:scheduler", *SPAN, "--diff", store, "--json"]) == PROBLEM
    found = {change["job"]: change["change"] for change in json.loads(capsys.readouterr().out)}
    assert found == {"export": "added", "gone": "removed", "hourly": "added"}
    assert main(["simulate", "my_app:scheduler", *SPAN, "--diff", store]) == PROBLEM
    assert "1 job that no code declares: left as they are" in capsys.readouterr().out
    assert main(["simulate", "my_app:scheduler", *SPAN, "--recorded", store]) == OK
    assert main(["simulate", "my_app:scheduler", *SPAN, "--recorded", "sqlite:///nowhere.db"]) == STORE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["my_app:scheduler", "--from", "2027-03-27", "--to", "2027-03-27"], "--to 2027-03-27 is not after --from"),
        (["my_app:scheduler", "--from", "someday"], "--from 'someday' is not read"),
        (["my_app:scheduler", "--assume", "backup=long"], "--assume 'backup=long' is not read"),
        (["my_app:scheduler", "--assume", "nobody=5s"], "no job or task is called 'nobody'"),
        (["my_app:scheduler", "--without", "nobody"], "there is no such job; there are backup, export, hourly"),
        (["my_app:scheduler", "--tz", "Nowhere/Else"], "is no time zone"),
        (["my_app:often"], "more than 2,000,000 runs, more than 2,000,000 of them of 'tick'; simulate a shorter time"),
    ],
)
def test_what_cannot_be_simulated_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *arguments]) == USAGE
    assert said in capsys.readouterr().err
