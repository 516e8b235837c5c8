"""The command as a whole: what it prints where, and its exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clepsydra.console.main import main

JOBS = """
from clepsydra import Cron, Every, Scheduler

scheduler = Scheduler()
clean = Scheduler()
empty = Scheduler()

@scheduler.job(Cron("0 9 13 * FRI"))
async def unlucky(): ...

@clean.job(Every(minutes=5))
async def often(): ...

broken = Scheduler()

@broken.job(Cron("0 0 0 1 1 * 2020"))
async def over(): ...

short = Scheduler()

@short.job(Every(seconds=0.05))
def tick():
    import signal
    signal.raise_signal(signal.SIGTERM)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with schedulers in it."""
    known = set(sys.modules)
    (tmp_path / "my_schedulers.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("target", "options", "code", "last"),
    [
        ("clean", [], 0, "0 errors, 0 warnings, 0 to know"),
        ("scheduler", [], 0, "0 errors, 1 warning, 0 to know"),
        ("scheduler", ["--strict"], 1, "0 errors, 1 warning, 0 to know"),
        ("empty", [], 0, "0 errors, 1 warning, 0 to know"),
        ("broken", [], 1, "1 error, 0 warnings, 0 to know"),
    ],
)
def test_check_fails_for_errors_and_strictly_for_warnings(
    capsys: pytest.CaptureFixture[str], target: str, options: list[str], code: int, last: str
) -> None:
    assert main(["check", f"my_schedulers:{target}", *options]) == code

    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == last
    assert captured.err == ""


def test_check_shows_each_job_with_its_schedule_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", "my_schedulers:broken"])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "my_schedulers:broken: 1 job, 1 task"
    assert [cell for cell in lines[3].split("  ") if cell] == [
        "over",
        "at 00:00 on the 1st in January in year 2020, UTC time",
        "never",
    ]
    assert lines[5].startswith("error  over  never runs: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["nxt"], "'nxt'"),
        (["next"], "EXPR"),
        (["next", "@daily", "--count", "0"], "from 1 to 1000"),
        (["demo", "--for", "soon"], "a number of seconds above 0"),
        (["run", "jobs:x", "--backend", "curio"], "'curio'"),
    ],
)
def test_a_command_line_that_is_not_understood_ends_with_one_line_and_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.err.startswith("clepsydra: error: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_debug_shows_where_an_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "my_schedulers:nothing"]) == 2
    without = capsys.readouterr().err
    assert main(["check", "my_schedulers:nothing", "--debug"]) == 2

    with_it = capsys.readouterr().err
    assert "Traceback" not in without
    assert "Traceback" in with_it
    assert with_it.splitlines()[-1] == without.strip()


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_no_errors(capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option])

    assert ended.value.code == 0
    assert "clepsydra" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be received there")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_run_prints_a_line_per_run_and_drains_at_a_signal(capsys: pytest.CaptureFixture[str], backend: str) -> None:
    assert main(["run", "my_schedulers:short", "--backend", backend, "--log-level", "warning"]) == 0

    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines[0].endswith("MemoryStorage(keep=10000), 1 job")
    assert lines[1].startswith("job tick: next ")
    assert any(line.startswith("job=tick nominal=") and "state=succeeded" in line for line in lines)
    assert any(line.startswith("SIGTERM: draining, ") for line in lines)
    assert lines[-1].startswith("ended: ")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_demo_works_and_remembers(capsys: pytest.CaptureFixture[str], folder: Path, backend: str) -> None:
    arguments = ["demo", "--for", "1.2", "--db", str(folder / "demo.db"), "--backend", backend]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert main(arguments) == 0
    second = capsys.readouterr().out

    assert "It ran before" not in first
    assert "It ran before" in second
    assert "before it started:" in second
    for shown in (first, second):
        assert "fired            ok" in shown
        assert "1.2 s are over" in shown
        assert f"All of it is kept in {folder / 'demo.db'}" in shown
