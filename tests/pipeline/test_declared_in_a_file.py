"""A scheduler that a TOML file declares: it says what code would say, and can be read again while it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from clepsydra import (
    Cron,
    DeclarationError,
    Every,
    ExecutorSettings,
    Intensity,
    InvalidArgument,
    Job,
    JobExists,
    JobState,
    MemoryStorage,
    Random,
    Recovery,
    Retry,
    Scheduler,
    SQLiteStorage,
    Stages,
    UnknownTask,
)
from clepsydra.pipeline.registry import Registry

from .support import World

pytestmark = pytest.mark.anyio

MODULE = """
from clepsydra import Random, Scheduler, Task

def plain():
    return "plain"

async def send(to="all"):
    return to

send_task = Task(send, "mail.send", aliases=["mail.old"])
elsewhere = Scheduler()

@elsewhere.task(name="of.scheduler")
async def of_scheduler():
    pass

anywhere = Random()
number = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the module `declared_app` is, and the working directory."""
    (tmp_path / "declared_app.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType]
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("declared_app", None)


def written(folder: Path, text: str, name: str = "clepsydra.toml") -> Path:
    path = folder / name
    path.write_text(dedent(text))
    return path


def test_everything_that_code_can_say(folder: Path) -> None:
    path = written(
        folder,
        """
        name = "one"
        storage = { url = "sqlite:///jobs.db", synchronous = "NORMAL", busy_timeout = { milliseconds = 200 } }
        declared = "if_pristine"
        recovery = "fail"
        tasks = ["declared_app"]
        strategies = { mine = "declared_app:anywhere" }

        [stages]
        grace = { minutes = 1 }
        retention = false
        [stages.executor]
        concurrency = 7
        queues = { mail = 2 }
        restarts = { restarts = 5, within = 10 }

        [jobs.digest]
        task = "mail.send"
        args = { to = "team" }
        schedule = { cron = "0 7 * * MON-FRI", tz = "Europe/Zurich" }
        retry = { attempts = 3, backoff = 10 }
        queue = "mail"
        run_on = "mine"

        [jobs."nightly clean-up"]
        task = "declared_app:plain"
        schedule = { every = { hours = 1 } }
        """,
    )

    scheduler = Scheduler.from_toml(path)

    assert scheduler.name == "one"
    assert isinstance(scheduler.storage, SQLiteStorage)
    assert scheduler.storage.path == str(folder / "jobs.db")
    assert {*scheduler.tasks} == {"mail.send", "mail.old", "of.scheduler", "declared_app.plain"}
    assert scheduler.stages == Stages(
        grace=60,
        retention=None,
        executor=ExecutorSettings(concurrency=7, queues={"mail": 2}, restarts=Intensity(5, timedelta(seconds=10))),
    )
    digest, clean_up = scheduler.declared_jobs
    assert digest == Job(
        "digest",
        scheduler.tasks["mail.send"].call(to="team"),
        Cron("0 7 * * MON-FRI", "Europe/Zurich"),
        retry=Retry(3, backoff=10),
        queue="mail",
        run_on="mine",
        recovery=Recovery.FAIL,
    )
    assert (clean_up.name, clean_up.work.task, clean_up.schedule) == (
        "nightly clean-up",
        "declared_app.plain",
        Every(3600),
    )


def test_a_table_of_the_project_file_does_as_well(folder: Path) -> None:
    path = written(
        folder,
        """
        [project]
        name = "app"
        [tool.clepsydra]
        tasks = ["declared_app:send_task"]
        [tool.clepsydra.jobs.digest]
        task = "mail.old"
        """,
        "pyproject.toml",
    )

    scheduler = Scheduler.from_toml(path, storage=MemoryStorage())

    assert [job.name for job in scheduler.declared_jobs] == ["digest"]


def test_what_code_gives_is_added_and_its_store_comes_first(folder: Path) -> None:
    path = written(folder, "storage = 'sqlite:///jobs.db'\n[jobs.a]\ntask = 'note'\nrun_on = 'other'")
    world = World()

    scheduler = Scheduler.from_toml(
        path, storage=world.storage, tasks=world.tasks.values(), strategies={"other": Random()}, clock=world.clock
    )

    assert scheduler.storage is world.storage
    assert scheduler.declared_jobs == [world.job("a", run_on="other")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("jobs = [", "is not TOML: "),
        ("colour = 1", r": colour=1: is not known here; known: name, storage, declared"),
        ("[stages]\nspeed = 1", r": stages\.speed=1: is not known here; known: job_broadcaster"),
        ("[stages]\nheartbeat = 20", r": stages\.heartbeat=.* at most a third of the lease"),
        ("[stages.executor]\nconcurrency = 0", r": stages\.executor\.concurrency=0: must be a whole number"),
        ("[stages.executor]\nqueues = { mail = 0 }", r": stages\.executor\.queues\['mail'\]=0"),
        ("[stages.executor]\nrestarts = 5", r": stages\.executor\.restarts=5: must be a table"),
        ("[stages]\ngrace = 'long'", r": stages\.grace='long': must be a timedelta or seconds"),
        ("storage = 'jobs.db'", r": storage\.url='jobs.db': must be the URL of a store"),
        ("storage = { synchronous = 'FULL' }", r": storage\.url=None: is missing"),
        ("storage = { url = 'memory:', speed = 1 }", r": storage\.speed=1: is no option of MemoryStorage"),
        ("declared = 'never'", r": declared='never': must be one of merge"),
        ("name = ''", r": name='': must be printable"),
        ("tasks = 'declared_app'", r": tasks='declared_app': must be a list"),
        ("tasks = ['nowhere']", r": tasks\[0\]='nowhere': cannot be imported: ModuleNotFoundError"),
        ("tasks = ['declared_app:gone']", r": tasks\[0\]='declared_app:gone': is not there: .*'gone'"),
        ("tasks = ['declared_app:number']", r": tasks\[0\]='declared_app:number': has no tasks"),
        ("tasks = [7]", r": tasks\[0\]=7: must be 'module', or 'module:attribute'"),
        ("jobs = 7", r": jobs=7: must be a table"),
        ("[jobs.a]\ntask = 'nobody'", r": jobs\.a: no task is called 'nobody'"),
        ("[jobs.a]\ntask = 'declared_app:elsewhere'", r": jobs\.a\.task='declared_app:elsewhere': must be one task"),
        ("[jobs.a]\ntask = 7", r": jobs\.a\.task=7: must be the name of a task"),
        ("tasks = ['declared_app']\n[jobs.a]\ntask = 'mail.send'\nargs = { whom = 1 }", r": jobs\.a.*whom"),
        (
            "tasks = ['declared_app']\n[jobs.a]\ntask = 'mail.send'\nschedule = '61 * * * *'",
            r": jobs\.a\.schedule: .*61",
        ),
    ],
)
def test_a_mistake_is_told_with_file_and_place(folder: Path, text: str, says: str) -> None:
    path = written(folder, text)

    with pytest.raises(DeclarationError, match=rf"^{path}( |){says}"):
        Scheduler.from_toml(path)


def test_a_file_that_is_not_there_or_says_nothing_of_us(folder: Path) -> None:
    with pytest.raises(DeclarationError, match="cannot be read: No such file"):
        Scheduler.from_toml(folder / "nowhere.toml")
    with pytest.raises(DeclarationError, match=r"has no table \[tool.clepsydra\]"):
        Scheduler.from_toml(written(folder, "[project]\nname = 'app'", "pyproject.toml"))
    (folder / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(DeclarationError, match="is not UTF-8"):
        Scheduler.from_toml(folder / "latin.toml")


# ---- While it runs


async def test_redeclared_is_what_a_restart_with_other_code_would_do() -> None:
    world = World()
    kept, changed, dropped = (world.job(name, Every(10)) for name in ("kept", "changed", "dropped"))
    async with world.scheduler(kept, changed, dropped) as scheduler:
        await scheduler.add_job(world.job("added", Every(10)))
        await world.pass_time(15)
        await scheduler.redeclare([kept, world.job("changed", Every(4)), world.job("new", Every(5))])
        await world.pass_time(15)

        assert world.times("kept") == [10, 20, 30]
        assert world.times("added") == [10, 20, 30]
        assert world.times("changed") == [10, 19, 23, 27]
        assert world.times("new") == [20, 25, 30]
        assert world.times("dropped") == [10]
        assert scheduler.get_job("dropped").state is JobState.ACTIVE
        assert scheduler.health().undeclared_jobs == ["dropped"]
        assert {job.name for job in scheduler.declared_jobs} == {"kept", "changed", "new"}

        await scheduler.redeclare([kept, dropped])
        await world.pass_time(10)

        assert world.times("dropped") == [10, 30, 40]  # at once for the last of the times that nobody has fired
        assert world.times("new") == [20, 25, 30]


async def test_a_job_that_is_declared_again_as_it_was_is_fired_again() -> None:
    world = World()
    kept, dropped = (world.job(name, Every(10)) for name in ("kept", "dropped"))
    async with world.scheduler(kept, dropped) as scheduler:
        await world.pass_time(15)
        await scheduler.redeclare([kept])
        await world.pass_time(10)
        await scheduler.redeclare([kept, dropped])
        await world.pass_time(10)

        assert world.times("dropped") == [10, 25, 30]
        assert world.times("kept") == [10, 20, 30]


async def test_of_two_who_redeclare_at_the_same_time_the_later_has_the_last_word() -> None:
    world = World()
    names = [f"job{index}" for index in range(300)]
    async with world.scheduler() as scheduler:
        async with anyio.create_task_group() as group:
            for every, order in ((10, names), (20, names[::-1])):
                group.start_soon(scheduler.redeclare, [world.job(name, Every(every)) for name in order])

        declared = {job.name: job.schedule for job in scheduler.declared_jobs}
        assert {name: scheduler.get_job(name).schedule for name in names} == declared


async def test_redeclared_is_all_or_nothing_for_what_cannot_be() -> None:
    world = World()
    job = world.job("tick", Every(1))
    async with world.scheduler(job) as scheduler:
        wrong: list[tuple[type[Exception], Any]] = [
            (JobExists, [job, job]),
            (UnknownTask, [Job("other", "nobody")]),
            (InvalidArgument, ["tick"]),
        ]
        for error, jobs in wrong:
            with pytest.raises(error):
                await scheduler.redeclare(jobs)
        await world.pass_time(2)

        assert world.times("tick") == [1, 2]
        assert scheduler.declared_jobs == [job]


async def test_others_have_their_turn_while_very_many_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    world, counted, most = World(), 0, 0
    checked = Registry.checked

    def counting(registry: Registry, job: Job) -> Job:
        nonlocal counted, most
        counted += 1
        most = max(most, counted)
        return checked(registry, job)

    async def others() -> None:
        nonlocal counted
        while True:
            counted = 0
            await checkpoint()

    async with world.scheduler() as scheduler, anyio.create_task_group() as group:
        group.start_soon(others)
        monkeypatch.setattr(Registry, "checked", counting)
        await scheduler.redeclare(world.job(f"job {number}", Every(60)) for number in range(300))
        group.cancel_scope.cancel()

    assert most <= 2 * 64  # trio may give two that take turns their turns in the order A B, B A


async def test_a_file_is_read_again(folder: Path) -> None:
    world = World()
    text = """
        tasks = ["declared_app"]
        [stages]
        loop_blocked = false
        [stages.executor]
        concurrency = 1
        {settings}
        [jobs.tick]
        task = "{task}"
        schedule = {{ every = {every} }}
    """
    path = written(folder, text.format(task="mail.send", every=10, settings=""))
    scheduler = Scheduler.from_toml(path, clock=world.clock)
    async with scheduler:
        await world.pass_time(10)
        assert await scheduler.reload() == []
        written(folder, text.format(task="declared_app:plain", every=2, settings="queues = { mail = 3 }\nthreads = 5"))

        assert await scheduler.reload() == ["stages.executor"]
        await world.pass_time(4)

        history = await scheduler.executions()
        assert sorted(execution.work.task for execution in history.items) == [*2 * ["declared_app.plain"], "mail.send"]

        known = set(scheduler.tasks)
        written(folder, "tasks = ['declared_app:elsewhere']\n[jobs.a]\ntask = 'nobody'")
        with pytest.raises(DeclarationError, match=r"jobs\.a: no task is called 'nobody'"):
            await scheduler.reload()
        assert set(scheduler.tasks) == known

        written(folder, "jobs = 7")
        with pytest.raises(DeclarationError, match="jobs=7: must be a table"):
            await scheduler.reload()
        assert scheduler.get_job("tick").schedule == Every(2)


async def test_only_what_comes_from_a_file_is_read_again() -> None:
    async with World().scheduler() as scheduler:
        with pytest.raises(DeclarationError, match="was not made from a file"):
            await scheduler.reload()
