"""The reference says what the code says: every public name, all defaults, all kinds, all events and errors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import Enum
from typing import Any

import attrs
import pytest

import clepsydra
from clepsydra import events, testing
from clepsydra.console.main import main, parser
from clepsydra.model.work import DEFAULT_QUEUE

from .pages import DOCS

REFERENCE = DOCS / "reference"
EVERYTHING = "\n".join(page.read_text("utf-8") for page in sorted(REFERENCE.glob("*.md")))

WITH_DEFAULTS: Mapping[str, Any] = {
    "Stages": clepsydra.Stages,
    "StageSettings": clepsydra.StageSettings,
    "BroadcasterSettings": clepsydra.BroadcasterSettings,
    "SelectorSettings": clepsydra.SelectorSettings,
    "ExecutorSettings": clepsydra.ExecutorSettings,
    "Intensity": clepsydra.Intensity,
    "Task": clepsydra.Task,
    "Job": clepsydra.Job,
    "Retry": clepsydra.Retry,
    "Misfire": clepsydra.Misfire,
    "Cron": clepsydra.Cron,
    "Scheduler": clepsydra.Scheduler,
    "SQLiteStorage": clepsydra.SQLiteStorage,
    "PostgresStorage": clepsydra.PostgresStorage,
    "MemoryStorage": clepsydra.MemoryStorage,
    "Supervisor": clepsydra.Supervisor,
    "Child": clepsydra.Child,
    "VirtualClock": testing.VirtualClock,
}


def test_every_public_name_is_in_the_reference() -> None:
    missing = [name for name in clepsydra.__all__ if not re.search(rf"`{name}\b", EVERYTHING)]

    assert missing == []


def test_every_name_for_tests_is_in_the_reference() -> None:
    missing = [name for name in testing.__all__ if not re.search(rf"`{name}\b", EVERYTHING)]

    assert missing == []


@pytest.mark.parametrize(
    "of", [clepsydra.Scheduler, clepsydra.Operator, clepsydra.ExecutionHandle, testing.VirtualClock]
)
def test_every_method_is_in_the_reference(of: type) -> None:
    public = [name for name in vars(of) if not name.startswith("_")]

    assert [name for name in public if not re.search(rf"`{name}\b", EVERYTHING)] == []


def test_what_a_task_sees_of_its_run_is_there() -> None:
    # The other way round: a Run has much that is not for tasks.
    found = re.search(r"^\| `Run` \|.*?\n\n", (REFERENCE / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    rows = found[0].strip().splitlines()[2:]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}

    assert "idempotency_key" in names
    assert [name for name in names if not hasattr(clepsydra.Run, name)] == []


@pytest.mark.parametrize("name", WITH_DEFAULTS)
def test_the_table_of_defaults_is_that_of_the_code(name: str) -> None:
    assert dict(table(name)) == {argument: shown(value) for argument, value in defaults(WITH_DEFAULTS[name])}


def test_every_event_has_its_fields_in_the_reference() -> None:
    page = (REFERENCE / "events.md").read_text("utf-8")
    for name, kind in vars(events).items():
        if not (isinstance(kind, type) and issubclass(kind, events.TelemetryEvent)):
            continue
        row = re.search(rf"^\| `{name}` \|.*$", page, re.MULTILINE)
        assert row is not None, name
        own = [field.name for field in attrs.fields(kind) if not field.inherited]
        assert [field for field in own if f"`{field}`" not in row[0]] == [], name


def test_every_error_is_in_the_reference_with_its_builtin_parents() -> None:
    page = (REFERENCE / "errors.md").read_text("utf-8")
    for name in clepsydra.__all__:
        kind = getattr(clepsydra, name)
        if not (isinstance(kind, type) and issubclass(kind, clepsydra.ClepsydraError)):
            continue
        row = re.search(rf"^\| `{name}` \| ([^|]*)\|.*$", page, re.MULTILINE)
        assert row is not None, name
        builtin = [each.__name__ for each in kind.__bases__ if each.__module__ == "builtins"]
        said = re.findall(r"`(\w+)`", row[1])
        assert [each for each in said if not hasattr(clepsydra, each)] == [
            each for each in builtin if each != "Exception"
        ], name


@pytest.mark.parametrize(
    ("page", "kinds"),
    [
        ("verdicts.md", clepsydra.Kind),
        ("verdicts.md", clepsydra.State),
        ("verdicts.md", clepsydra.Cause),
        ("README.md", clepsydra.JobState),
        ("README.md", clepsydra.Order),
        ("events.md", events.FailureKind),
    ],
)
def test_every_member_is_in_the_reference(page: str, kinds: type[Enum]) -> None:
    text = (REFERENCE / page).read_text("utf-8")

    assert [member.value for member in kinds if f"`{member.value}`" not in text] == []


def test_every_command_and_option_is_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    page = (REFERENCE / "command_line.md").read_text("utf-8")
    commands = re.findall(r"^    ([a-z-]+)  ", parser().format_help(), re.MULTILINE)
    assert {"run", "run-now", "executions", "completion"} <= set(commands)

    for name in commands:
        assert f"`clepsydra {name}" in page, name
        with pytest.raises(SystemExit):
            main([name, "--help"])
        help_text = capsys.readouterr().out
        every = {"all", "all on a store"} if "--no-pager" in help_text else {"all"}
        for option in set(re.findall(r"--[a-z][a-z-]+", help_text)) - {"--help"}:
            rows = re.findall(rf"^\| [^|]*`{option}`[^|]* \| ([^|]*) \|", page, re.MULTILINE)
            known = {word for row in rows for word in (row, *row.split(", "))}
            assert known & {name, *every}, f"{option} of {name}"


def table(name: str) -> Iterator[tuple[str, str]]:
    """The rows of the table under the heading of a name: the argument and its default."""
    text = (REFERENCE / "settings.md").read_text("utf-8")
    found = re.search(rf"^### `{name}`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"settings.md has no heading for {name}"
    for row in re.finditer(r"^\| `(\w+)` \| ([^|]*) \|", found[1], re.MULTILINE):
        yield row[1], row[2].strip().strip("`")


def defaults(of: Any) -> Iterator[tuple[str, object]]:
    """The arguments of a class that have a default."""
    inherited = clepsydra.StageSettings if issubclass(of, clepsydra.StageSettings) else None
    passed_over = set[str]()
    if inherited is not None and of is not inherited:
        passed_over = {field.name for field in attrs.fields(inherited)}
    for name, parameter in inspect.signature(of).parameters.items():
        if parameter.default is not parameter.empty and name not in passed_over:
            yield name, _made(of, name, parameter.default)


def _made(of: Any, name: str, default: object) -> object:
    if not attrs.has(of) or name not in attrs.fields_dict(of):
        return default
    field = attrs.fields_dict(of)[name]
    if isinstance(field.default, attrs.Factory):  # type: ignore[arg-type, unused-ignore]
        made: Any = field.default
        return made.factory()
    return default


def shown(value: object) -> str:
    """A default as the tables write it."""
    match value:
        case timedelta():
            return _length(value)
        case Enum():
            return f"{type(value).__name__}.{value.name}"
        case str():
            return "default" if value == DEFAULT_QUEUE else f'"{value}"'
        case None | bool() | int() | float():
            return repr(value)
        case clepsydra.Intensity():
            return f"{value.restarts} within {_length(value.within)}"
        case clepsydra.Retry():
            return f"one try (attempts={value.attempts})"
        case clepsydra.Misfire():
            return f'Misfire("{value.take}")'
        case _ if not isinstance(value, clepsydra.StageSettings | clepsydra.Stages) and not value:
            return "empty"
        case _:
            return f"{type(value).__name__}()"


def _length(value: timedelta) -> str:
    if value < timedelta(seconds=1):
        return f"{value / timedelta(milliseconds=1):g} ms"
    for unit, size in (("days", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1))):
        if value >= size and not value % size:
            return f"{value // size} {unit}"
    return f"{value.total_seconds():g} s"
