"""Law 8: all time comes from one `Clock`. Only the module of the real clock asks the system what time it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import clepsydra

PACKAGE = Path(clepsydra.__file__).parent
LAYERS = ("model", "storage", "stages", "pipeline", "console", "testing")
THE_CLOCK = PACKAGE / "model" / "clock.py"

ASKS_FOR_THE_TIME = {
    *(f"time.{name}" for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")),
    *(f"time.{name}_ns" for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")),
    "time.clock_gettime",
    "time.clock_gettime_ns",
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "anyio.current_time",
    "trio.current_time",
}


def test_only_the_clock_asks_what_time_it_is() -> None:
    asking = [
        f"{file.relative_to(PACKAGE)}:{line} uses {name}"
        for file in package_files()
        if file != THE_CLOCK
        for line, name in questions(file.read_text(encoding="utf-8"))
    ]

    assert asking == [], "take a Clock as an argument instead (model/clock.py)"


def test_the_clock_itself_does_ask() -> None:
    assert list(questions(THE_CLOCK.read_text(encoding="utf-8"))) != []


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.monotonic()",
        "import time as t\nt.time_ns()",
        "from time import perf_counter\nstarted = perf_counter()",
        "from time import time as read\ndef f(read=read): ...",
        "import datetime\ndatetime.datetime.now(datetime.UTC)",
        "from datetime import datetime\ndatetime.utcnow()",
        "from datetime import datetime as dt, date\ndt.now()\ndate.today()",
        "import datetime as dt\nfactory = dt.datetime.now",
        "import anyio\nanyio.current_time()",
    ],
)
def test_each_way_to_ask_is_seen(source: str) -> None:
    assert list(questions(source))


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.struct_time",
        "clock.now()\nself.clock.monotonic()",
        "from datetime import datetime\ndatetime.fromtimestamp(0)",
        '"""time.time() is asked by nobody"""',
    ],
)
def test_other_uses_of_time_are_fine(source: str) -> None:
    assert not list(questions(source))


def package_files() -> Iterator[Path]:
    yield from PACKAGE.glob("*.py")
    for layer in LAYERS:
        yield from (PACKAGE / layer).rglob("*.py")


def questions(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each mention of a function that asks the system for the time, whatever it was imported as."""
    tree = ast.parse(source)
    known_as = dict(imported_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, *rest = ast.unparse(node).split(".")
            name = ".".join([known_as.get(first, ""), *rest])
            if name in ASKS_FOR_THE_TIME:
                yield node.lineno, name


def imported_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
