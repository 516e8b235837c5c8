"""`module:attribute` on the command line: what is found, and what is said when it is not."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clepsydra import Scheduler
from clepsydra.console.errors import CommandError, UsageError
from clepsydra.console.target import load_scheduler

MODULE = """
from clepsydra import Cron, Job, Scheduler

scheduler = Scheduler(name="mine")
number = 5
def make(): return Scheduler(name="made")
def with_argument(x): return Scheduler()
def none(): return None
async def later(): return Scheduler()
def broken(): raise RuntimeError("boom")
class settings:
    scheduler = Scheduler(name="nested")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with a module; what was imported from it is forgotten afterwards."""
    known = set(sys.modules)
    (tmp_path / "my_jobs.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("target", "name"),
    [("my_jobs:scheduler", "mine"), ("my_jobs:make", "made"), ("my_jobs:settings.scheduler", "nested")],
)
def test_a_scheduler_or_a_function_that_makes_one_is_found(target: str, name: str) -> None:
    scheduler = load_scheduler(target)

    assert isinstance(scheduler, Scheduler)
    assert scheduler.name == name


def test_a_file_declares_one(folder: Path) -> None:
    (folder / "some.toml").write_text("name = 'declared'\ntasks = ['my_jobs:make']")

    assert load_scheduler("some.toml").name == "declared"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("my_jobs", "write module:attribute, as in 'my_jobs:scheduler'"),
        ("my_jobs.py:scheduler", "is a path; name the module: 'my_jobs:scheduler'"),
        ("./my_jobs.py", "is a path; name the module: 'my_jobs:scheduler'"),
        ("my jobs:scheduler", "is not read"),
        ("my_jobs:", "is not read"),
        ("my_job:scheduler", "did you mean 'my_jobs'?"),
        ("my_jobs.inner:scheduler", "no module is called 'my_jobs.inner'"),
        ("my_jobs:schedule", "its schedulers: 'scheduler'"),
        ("my_jobs:number", "is an int; it must be a Scheduler"),
        ("my_jobs:with_argument", "must be callable without arguments"),
        ("my_jobs:none", "gives None; it must give a Scheduler"),
        ("my_jobs:later", "is an async function"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error_that_says_what_to_write(target: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        load_scheduler(target)


def test_a_factory_that_fails_is_told_with_its_error() -> None:
    with pytest.raises(CommandError, match="'my_jobs:broken' failed: RuntimeError: boom"):
        load_scheduler("my_jobs:broken")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nonexistent_thing", "line 1): ModuleNotFoundError: No module named 'nonexistent_thing'"),
        ("\nraise SystemExit(3)", "line 2): SystemExit: 3"),
        ("from clepsydra import Cron\nCron('61 * * * *')", "line 2): cron '61 * * * *': minute '61' is out of range"),
        (
            "from clepsydra import *\nScheduler(jobs=[Job('a', 'unknown', Every(seconds=1))])",
            "line 2): no task is called 'unknown'",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_the_line_of_the_user(
    folder: Path, source: str, said: str
) -> None:
    (folder / "failing.py").write_text(source)

    with pytest.raises(CommandError, match=r"importing 'failing' failed \(failing.py") as caught:
        load_scheduler("failing:scheduler")

    assert said in str(caught.value)
    assert not isinstance(caught.value, UsageError)


def test_a_missing_import_inside_a_module_is_not_taken_for_a_missing_module(folder: Path) -> None:
    (folder / "outer.py").write_text("import outer_nothing")

    with pytest.raises(CommandError, match="importing 'outer' failed"):
        load_scheduler("outer:scheduler")
