"""The commands on a store: what they print and do, on SQLite and on PostgreSQL, and how they end when they cannot."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from clepsydra import (
    BroadcasterSettings,
    Cron,
    Every,
    Job,
    Operator,
    PostgresStorage,
    Retry,
    Scheduler,
    SQLiteStorage,
    Stages,
    Storage,
    current_execution,
    storage_at,
    to_datetime,
)
from clepsydra.console.main import main
from clepsydra.storage.sqlite_schema import VERSION
from clepsydra.testing import VirtualClock

from ...postgres import Schemas

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "command_line.md"

Capture: TypeAlias = pytest.CaptureFixture[str]

SELDOM = Stages(
    execution_broadcaster=BroadcasterSettings(poll=timedelta(hours=1), wait_cap=timedelta(hours=1)),
    heartbeat=timedelta(hours=1),
    lease=timedelta(hours=5),
    sweep=timedelta(hours=5),
    loop_blocked=None,
)
"""Hours that pass in a moment: nobody else is there to be looked for."""


async def live(storage: Storage) -> None:
    """Two hours and five minutes, until now, of a scheduler that feeds, and fails to mail."""
    now = datetime.now(UTC)
    clock = VirtualClock(now - timedelta(minutes=125), patience=60)
    scheduler = Scheduler(storage, clock=clock, name="web-1", stages=SELDOM)

    @scheduler.task(name="feeds.refresh")
    async def refresh(full: bool = False) -> int:
        await current_execution().sleep(2)
        return 42

    @scheduler.task(name="mail.digest")
    async def digest() -> None:
        raise ConnectionError("smtp.example.org says \x1b[31mno")

    @scheduler.job(Every(hours=24), name="declared")
    async def declared() -> None: ...

    async with scheduler:
        await scheduler.add_job(
            Job("feeds", refresh, Every(minutes=30), args={"full": True}, labels={"tenant": "acme"})
        )
        await scheduler.add_job(
            Job("digest", digest, Every(hours=1), retry=Retry(2, backoff=60, jitter=0), queue="mail")
        )
        await clock.advance(62 * 60)
        await scheduler.pause_job("feeds")
        await clock.advance(1800)
        await scheduler.resume_job("feeds")
        await scheduler.enqueue(refresh.call(), after=timedelta(days=1), key="later")
        await clock.advance_to(now)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that a scheduler has lived in."""
    path = tmp_path_factory.mktemp("lived") / "jobs.db"
    anyio.run(live, SQLiteStorage(path, synchronous="NORMAL"))
    return path


@pytest.fixture
def path(lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which CLEPSYDRA_STORE names."""
    own = tmp_path / "jobs.db"
    shutil.copy(lived, own)
    monkeypatch.setenv("CLEPSYDRA_STORE", f"sqlite:///{own}")
    return own


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Either store, which CLEPSYDRA_STORE names."""
    if request.param == "sqlite":
        yield f"sqlite:///{request.getfixturevalue('path')}"
        return
    schemas: Schemas = request.getfixturevalue("postgres")
    schema = schemas.take()
    anyio.run(live, PostgresStorage(schemas.dsn, schema=schema))
    url = f"{schemas.dsn}{'&' if '?' in schemas.dsn else '?'}schema={schema}"
    monkeypatch.setenv("CLEPSYDRA_STORE", url)
    yield url
    schemas.give_back(schema)


@pytest.fixture
def told(capsys: Capture) -> Callable[..., Any]:
    """What a command says as JSON."""

    def say(*words: str) -> Any:
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return say


@pytest.fixture
def ends(capsys: Capture) -> Callable[..., tuple[int, str]]:
    """How a command ends that cannot do what it is asked: its code, and its one line."""

    def end(*words: str) -> tuple[int, str]:
        try:
            code = main(list(words))
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1, captured.err
        assert captured.err.startswith("clepsydra: error: ")
        return code, captured.err.removeprefix("clepsydra: error: ").strip()

    return end


# ---- looking, and commands, on either store


def test_a_session_from_looking_to_removing(url: str, told: Callable[..., Any]) -> None:
    jobs = told("jobs", "--limit", "2")
    assert [job["name"] for job in jobs["items"]] == ["declared", "digest"]
    assert jobs["total"] == 3
    assert [job["name"] for job in told("jobs", "--page", jobs["next_page"])["items"]] == ["feeds"]

    job = told("job", "feeds")
    assert [time["verdict"] for time in job["last_times"]] == ["fired", "fired", "paused", "fired"]
    assert job["last_times"][0]["execution"]["result"] == 42
    assert len(job["next_times"]) == 10
    assert job["job"]["definition"]["schedule"] == {"every": 1800}

    assert told("pause", "feeds") == {"paused": ["feeds"]}
    assert told("pause", "feeds") == {"paused": []}
    assert told("resume", "--all") == {"resumed": ["feeds"]}
    (run,) = told("run-now", "feeds")["executions"]
    assert told("execution", run["id"])["execution"]["cause"] == "manual"
    assert told("cancel", run["id"]) == {"cancelled": [run["id"]]}
    assert told("retry", run["id"]) == {"retried": [run["id"]]}
    assert [row["id"] for row in told("executions", "--job", "feeds")["items"]] == [run["id"]]

    (failed,) = {row["id"] for row in told("history", "--state", "failed", "--due-from", "30m")["items"]}
    execution = told("execution", failed)
    assert [attempt["ending"] for attempt in execution["past_attempts"]] == ["retry"]
    assert "ConnectionError" in execution["execution"]["error"]
    assert told("explain", failed)["state"] == "failed"
    assert told("explain", "feeds", "now")["phase"] == "settled"
    assert told("explain", "feeds", "+2h")["obstacles"][0]["what"] == "no scheduler is at work on this store"

    assert told("stats")["executions"]["failed"] == 2
    assert told("verify")["ok"] is True
    assert told("prune", "--before", "90m", "--yes")["executions"] == 1
    assert told("migrate")["needed"] is False
    assert told("stop", "digest", "--yes") == {"stopped": ["digest"]}
    assert sorted(told("remove", "digest", "feeds", "--yes")["removed"]) == ["digest", "feeds"]
    assert [job["name"] for job in told("jobs")["items"]] == ["declared"]
    with Operator(storage_at(url)) if url.startswith("sqlite") else Operator(_postgres(url)) as operator:
        assert operator.find_job("feeds") is None


def _postgres(url: str) -> PostgresStorage:
    dsn, _, schema = url.rpartition("schema=")
    return PostgresStorage(dsn[:-1], schema=schema)


def test_definitions_go_out_and_come_in_again(
    url: str, told: Callable[..., Any], tmp_path: Path, capsys: Capture
) -> None:
    main(["pause", "digest"])
    capsys.readouterr()
    for ending in ("toml", "json"):
        file = str(tmp_path / f"jobs.{ending}")
        assert main(["export", "--output", file]) == 0
        assert capsys.readouterr().out == f"{file}: 3 jobs\n"
        assert told("import", file)["unchanged"] == ["declared", "digest", "feeds"]

    text = Path(tmp_path / "jobs.toml").read_text("utf-8")
    text = text.replace("every = 3600", "every = 7200").replace("every = 86400", "every = 60").replace("feeds]", "new]")
    Path(tmp_path / "jobs.toml").write_text(text, "utf-8")
    expected = {"added": ["new"], "changed": ["digest"], "unchanged": [], "declared by code, left alone": ["declared"]}
    file = str(tmp_path / "jobs.toml")
    assert told("import", file, "--dry-run") == {**expected, "done": False}
    assert told("import", file, "--yes") == {**expected, "done": True}
    assert told("job", "digest")["job"]["definition"]["schedule"] == {"every": 7200}
    assert told("job", "digest")["job"]["state"] == "paused"
    assert told("verify")["ok"]


def test_without_a_store_migrate_makes_one_only_when_told(
    tmp_path: Path, ends: Callable[..., tuple[int, str]], capsys: Capture
) -> None:
    store = f"sqlite:///{tmp_path}/new.db"

    assert main(["migrate", "--check", "--store", store]) == 1
    assert capsys.readouterr().out == "there is no store yet\n"
    assert ends("migrate", "--store", store)[0] == 4
    assert list(tmp_path.iterdir()) == []
    assert main(["migrate", "--create", "--store", store]) == 0
    assert capsys.readouterr().out.startswith("made, with schema version ")
    assert main(["jobs", "--store", store]) == 0


def test_an_administrator_of_postgresql_gets_the_sql(postgres: Schemas, capsys: Capture) -> None:
    url = f"{postgres.dsn}{'&' if '?' in postgres.dsn else '?'}schema=clepsydra_test_never"

    assert main(["migrate", "--sql", "--store", url]) == 0
    assert 'CREATE SCHEMA IF NOT EXISTS "clepsydra_test_never"' in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent there")
def test_a_service_at_work_does_what_it_is_told_from_another_shell(
    tmp_path: Path, told: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "jobs.db"
    (tmp_path / "service.py").write_text(SERVICE)
    monkeypatch.setenv("CLEPSYDRA_STORE", str(store))
    service = subprocess.Popen(
        [sys.executable, "-m", "clepsydra", "run", "service:scheduler"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    guard = threading.Timer(300, service.kill)
    guard.start()
    try:
        assert service.stdout is not None
        wait_for_line(service.stdout, "job hourly: next ")
        assert [node["alive"] for node in told("stats")["nodes"]] == [True]
        assert told("explain", "hourly", "+90m")["will_run"] is True
        told("run-now", "hourly")
        wait_for_line(service.stdout, "job=hourly late=")
        told("pause", "hourly")
        wait_for_line(service.stdout, "job=hourly state=paused")
        service.terminate()
        assert service.wait() == 0
    finally:
        guard.cancel()
        service.kill()
        service.wait()
        if service.stdout is not None:
            service.stdout.close()

    assert told("stats")["nodes"] == []


SERVICE = """
import os
from clepsydra import Every, Scheduler, SQLiteStorage

scheduler = Scheduler(SQLiteStorage(os.environ["CLEPSYDRA_STORE"]))

@scheduler.job(Every(hours=1))
async def hourly(): ...
"""


def wait_for_line(lines: Iterable[str], part: str) -> None:
    seen: list[str] = []
    for line in lines:
        seen.append(line)
        if part in line:
            return
    raise AssertionError(f"{part!r} is not in {seen}")


# ---- what is shown


def test_jobs_are_a_table(path: Path, capsys: Capture) -> None:
    assert main(["jobs"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["JOB", "STATE", "NEXT", "(UTC)", "SCHEDULE", "TASK", "QUEUE"]
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["declared", "active"],
        ["digest", "active"],
        ["feeds", "active"],
    ]
    assert lines[-1] == "3 jobs"
    assert not any("\x1b" in line for line in lines)


def test_a_job_shows_its_last_times_as_a_strip(path: Path, capsys: Capture) -> None:
    assert main(["job", "feeds"]) == 0

    out = capsys.readouterr().out
    assert "✓ ✓ p ✓   ✓ succeeded, p paused" in out
    assert "schedule    every 30 minutes" in out
    assert "args        full=true" in out


def test_an_execution_shows_its_attempts_in_time_and_its_traceback_made_harmless(path: Path, capsys: Capture) -> None:
    assert main(["history", "--state", "failed", "--limit", "1", "--json"]) == 0
    failed = json.loads(capsys.readouterr().out)["items"][0]["id"]
    assert main(["execution", failed]) == 0

    out = capsys.readouterr().out
    tries = [line.split() for line in out.splitlines() if line.strip()[:2] in ("1 ", "2 ")]
    assert [line[4] for line in tries] == ["failed", "failed"]
    assert all("█" in part for part in (tries[0][5], tries[1][5]))
    assert "Traceback (most recent call last):" in out
    assert "says \\x1b[31mno" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ([], 5),
        (["--job", "feeds"], 3),
        (["--job", "feeds", "--job", "digest"], 5),
        (["--task", "mail.digest"], 2),
        (["--queue", "mail"], 2),
        (["--state", "succeeded"], 3),
        (["--state", "incomplete"], 1),
        (["--cause", "enqueue", "--state", "unstarted"], 1),
        (["--verdict", "paused"], 0),
        (["--label", "tenant"], 3),
        (["--label", "tenant=globex"], 0),
        (["--key", "later", "--state", "pending"], 1),
        (["--since", "85m"], 4),
        (["--until", "85m"], 1),
        (["--nominal-from", "85m", "--nominal-to", "25m"], 2),
        (["--due-from", "+20h", "--state", "pending"], 1),
        (["--due-from", "+30h", "--state", "pending"], 0),
        (["--created-to", "2020-01-01"], 0),
        (["--node", "none"], 0),
        (["--id", "none"], 0),
        (["--group", "g"], 0),
        (["--correlation", "c"], 0),
    ],
    ids=str,
)
def test_history_has_a_filter_for_everything(path: Path, capsys: Capture, options: list[str], count: int) -> None:
    assert main(["history", "--count", *options]) == 0

    assert int(capsys.readouterr().out) == count


def test_verdicts_lists_times_that_never_ran_too_page_by_page(path: Path, told: Callable[..., Any]) -> None:
    first = told("verdicts", "feeds", "--limit", "3")
    rest = told("verdicts", "feeds", "--page", first["next_page"])

    assert [time["verdict"] for time in [*first["items"], *rest["items"]]] == ["fired", "fired", "paused", "fired"]
    assert rest["next_page"] is None
    assert [time["verdict"] for time in told("verdicts", "feeds", "--verdict", "paused")["items"]] == ["paused"]
    assert told("verdicts", "feeds", "--count", "--until", "20m") == {"fired": 2, "paused": 1}


# ---- how it ends


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["job", "feds"], 3, "no job is called 'feds'; did you mean 'feeds'?"),
        (["pause", "nothing-like-it"], 3, "known jobs: 'declared', 'digest', 'feeds'"),
        (["execution", "x"], 3, "no execution has the id 'x'"),
        (["cancel", "x"], 3, "no execution has the id 'x'"),
        (["verdicts", "feds"], 3, "did you mean 'feeds'?"),
        (["explain", "feds", "now"], 3, "did you mean 'feeds'?"),
        (["export", "feds"], 3, "no job is called 'feds'"),
        (["pause"], 2, "name one or more jobs, or give --all"),
        (["pause", "feeds", "--all"], 2, "one or the other"),
        (["retry"], 2, "give --all or a filter"),
        (["remove", "feeds"], 2, "remove 1 job ('feeds'): there is no terminal to ask on; give --yes"),
        (["cancel", "--all"], 2, "cancel 1 execution: there is no terminal to ask on"),
        (["prune", "--before", "1d"], 2, "delete 0 executions that ended before"),
        (["prune", "--before", "+1d"], 2, "'+1d' is not read"),
        (["prune", "--before", "2999-01-01"], 2, "is to come; give a moment that has passed"),
        (["history", "--since", "lately"], 2, "--since 'lately' is not read; write it like 2027-03-28"),
        (["history", "--label", "=x"], 2, "write KEY=VALUE, or KEY for any value"),
        (["history", "--page", "abc"], 2, "--page 'abc' is no page of this list"),
        (["history", "--state", "lost"], 2, "invalid choice: 'lost'"),
        (["jobs", "--tz", "Mars"], 2, "--tz 'Mars' is no time zone; write it like Europe/Zurich"),
        (["jobs", "--limit", "0"], 2, "must be a whole number from 1 to 1000"),
        (["import", "missing.toml"], 2, "'missing.toml' cannot be read: No such file or directory"),
        (["jobs", "--store", "mysql://host/db"], 2, "--store=mysql://host/db: must be the URL of a store"),
        (["jobs", "--store", "memory:"], 2, "would be a new store that forgets"),
        (["jobs", "--store", "nowhere.db"], 4, "clepsydra migrate --create"),
        (["jobs", "--store", "postgresql://app:secret@127.0.0.1:1/db"], 4, "of db at 127.0.0.1:1 cannot be reached"),
        (
            ["jobs", "--store", "postgresql://app:secret@host/db?schema=pg_own"],
            2,
            "--store: schema='pg_own': must be a name",
        ),
        (["jobs", "--store", "postgresql://[host/db?password=secret"], 2, "--store: must be a connection string"),
        (["jobs", "--store", "sqlite:///jobs.db?mode=ro"], 2, "mode='ro': is no option of SQLiteStorage"),
        (["jobs", "--store", "."], 4, "is a directory; name a file in it"),
        (["migrate", "--sql"], 2, "--sql is for postgresql:// stores"),
    ],
    ids=str,
)
def test_what_cannot_be_done_ends_with_a_line_and_a_code(
    path: Path, ends: Callable[..., tuple[int, str]], words: list[str], code: int, said: str
) -> None:
    before = path.read_bytes()

    ended, line = ends(*words)

    assert (ended, said in line) == (code, True), line
    assert "secret" not in line
    assert path.read_bytes() == before


def test_no_store_at_all_is_told_with_examples(
    ends: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLEPSYDRA_STORE", raising=False)

    code, line = ends("jobs")

    assert code == 2
    assert "give --store (sqlite:///jobs.db" in line
    assert "or set CLEPSYDRA_STORE" in line


def test_an_absolute_path_with_three_slashes_is_told_apart(path: Path, ends: Callable[..., tuple[int, str]]) -> None:
    code, line = ends("jobs", "--store", f"sqlite:///{str(path)[1:]}")

    assert code == 4
    assert f"an absolute path has four slashes: sqlite:///{path}" in line


def test_a_store_that_is_newer_older_locked_or_none_is_told(path: Path, ends: Callable[..., tuple[int, str]]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA user_version = 99")
    code, line = ends("jobs")
    assert (code, f"version 99, this version of clepsydra knows {VERSION} at most; upgrade" in line) == (4, True)
    connection.execute(f"PRAGMA user_version = {VERSION - 1}")
    assert f"older than {VERSION}; it is brought up to date when a scheduler is entered on it, or by" in ends("jobs")[1]
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.close()
    path.write_bytes(b"something else, and long enough to be taken for a file of SQLite" * 20)
    code, line = ends("jobs")
    assert (code, "is damaged or no SQLite database" in line) == (4, True)


def test_findings_end_verify_with_1(path: Path, capsys: Capture) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE executions SET verdict = NULL WHERE state = 'succeeded'")
    connection.close()

    assert main(["verify"]) == 1
    assert "law 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs = 5", "has no jobs; write a table for each, such as [jobs.feeds]"),
        ("[jobs", "is no TOML: "),
        ("[jobs.a]\nschedule = '@daily'", "jobs.a.task=None: is missing"),
        ("[jobs.a]\ntask = 't'\nschedule = 'x'", "jobs.a.schedule"),
        ("[jobs.a]\ntask = 'nightly'", "no task is called 'nightly'; known tasks: "),
        (
            "[jobs.a]\ntask = 'mail.digest'\nargs = { to = 'x' }",
            "task 'mail.digest' knows no to; it takes no arguments",
        ),
        ("[jobs.a]\ntask = 'mail.digest'\nschedule = '0 0 0 1 1 * 2020'", "has no time to come"),
    ],
    ids=str,
)
def test_a_file_of_jobs_that_cannot_be_used_is_told_with_the_place(
    path: Path, tmp_path: Path, ends: Callable[..., tuple[int, str]], text: str, said: str
) -> None:
    (tmp_path / "jobs.toml").write_text(text)

    code, line = ends("import", str(tmp_path / "jobs.toml"))

    assert code in (1, 2)
    assert said in line


def test_a_job_whose_task_is_not_there_yet_is_imported_when_that_is_said(
    path: Path, tmp_path: Path, told: Callable[..., Any]
) -> None:
    (tmp_path / "jobs.json").write_text('{"jobs": {"soon": {"task": "not.yet", "args": {"a": null}}}}')

    assert told("import", str(tmp_path / "jobs.json"), "--any-task")["added"] == ["soon"]


def test_toml_without_a_word_for_it_says_which_format_has_one(path: Path, ends: Callable[..., tuple[int, str]]) -> None:
    with Operator(SQLiteStorage(path)) as operator:
        operator.add_job(Job("null", "feeds.refresh", Cron("@daily"), args={"full": None}))

    assert ends("export") == (1, "TOML has no word for null, and a job has it among its arguments; use --format json")


# ---- completion


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["ex"], ["executions", "execution", "explain", "export"]),
        (["job", "d"], ["declared", "digest"]),
        (["pause", "feeds", "f"], ["feeds"]),
        (["history", "--state", "s"], ["succeeded", "skipped"]),
        (["history", "--job", "fe"], ["feeds"]),
        (["history", "--ver"], ["--verdict"]),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["nothing", ""], []),
        (["run", ""], []),
    ],
    ids=str,
)
def test_shells_are_told_what_may_follow(path: Path, capsys: Capture, words: list[str], found: list[str]) -> None:
    assert main(["__complete", *words]) == 0

    assert capsys.readouterr().out.split() == found


def test_a_shell_is_told_no_names_where_there_is_no_store(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLEPSYDRA_STORE", str(tmp_path / "none.db"))

    assert main(["__complete", "job", ""]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_by_the_script(path: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["completion", "bash"]) == 0
    program = f'clepsydra() {{ {sys.executable} -m clepsydra "$@"; }}\n'
    ask = 'COMP_WORDS=(clepsydra job di); COMP_CWORD=2; _clepsydra; echo "${COMPREPLY[@]}"\n'

    done = subprocess.run(
        ["bash", "-c", program + capsys.readouterr().out + ask], capture_output=True, text=True, check=True, timeout=300
    )

    assert done.stdout == "digest\n"


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes_by_the_script_and_files_where_it_has_nothing_to_say(
    path: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "a.cron").touch()
    assert main(["completion", "fish"]) == 0
    program = f"function clepsydra; {sys.executable} -m clepsydra $argv; end\n"
    ask = 'complete -C "clepsydra job di"; complete -C "clepsydra crontab a."\n'

    done = subprocess.run(
        ["fish", "-c", program + capsys.readouterr().out + ask],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )

    assert done.stdout.split() == ["digest", "a.cron"]


def test_moments_are_in_the_zone_that_is_asked_for(path: Path, capsys: Capture) -> None:
    with Operator(SQLiteStorage(path)) as operator:
        nominal = operator.last_verdicts("feeds", 1)[0].nominal
    assert main(["job", "feeds", "--tz", "Asia/Tokyo"]) == 0

    there = to_datetime(round(nominal.timestamp()) * 1_000_000) + timedelta(hours=9)
    assert f"{there:%Y-%m-%d %H:%M}" in capsys.readouterr().out


def test_signs_that_an_encoding_lacks_end_nothing(path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}

    done = subprocess.run(
        [sys.executable, "-m", "clepsydra", "job", "feeds"],
        capture_output=True,
        check=True,
        env=environment,
        timeout=300,
    )

    assert rb"\u2713 \u2713 p \u2713" in done.stdout


# ---- what programs rely on


def test_documents_have_the_keys_that_the_reference_promises(path: Path, told: Callable[..., Any]) -> None:
    job, run = told("job", "feeds"), told("history", "--job", "feeds", "--limit", "1")["items"][0]
    failed = told("execution", told("history", "--state", "failed", "--limit", "1")["items"][0]["id"])
    documents = {
        "job": job["job"],
        "execution": run,
        "attempt": failed["past_attempts"][0],
        "time": job["last_times"][0],
        "explanation": told("explain", run["id"]),
        "stats": told("stats"),
        "verification": told("verify"),
    }

    for name, document in documents.items():
        row = re.search(rf"^\| {name} \| (.*) \|$", REFERENCE.read_text("utf-8"), re.MULTILINE)
        assert row is not None, name
        assert re.findall(r"`(\w+)`", row[1]) == list(document), name
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", run["finished_at"])
    assert run["took"] == pytest.approx(2.0)
