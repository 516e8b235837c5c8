"""A scheduler's declarations in a TOML file: name, store, tasks, settings and jobs, under the names they have in code.

The file's top level, or the table `tool.clepsydra` of a `pyproject.toml`. What it says is checked as code is, and each
error names the file and the place in it. Tasks and strategies are code: the file says where they are, `module` or
`module:attribute`, and reading it imports them. `false` stands for the None of settings that may have none.
"""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

from attrs import Factory, fields_dict, frozen

from ..model.definitions import Data, below, duration_from_data, job_from_data, placed, table_of
from ..model.errors import ClepsydraError, DeclarationError, InvalidArgument
from ..model.job import Job
from ..model.strategies import RunStrategy
from ..model.task import Task
from ..storage.protocol import Storage
from ..storage.urls import storage_at
from .entered import Entered
from .settings import DEFAULTS, BroadcasterSettings, ExecutorSettings, SelectorSettings, Stages, StageSettings
from .supervisor import Intensity

KEYS: Final = ("name", "storage", "declared", "recovery", "tasks", "strategies", "stages", "jobs")
_PLAIN: Final = ("name", "declared", "recovery")

_WITHIN: Final[Mapping[str, type]] = {
    "job_broadcaster": StageSettings,
    "execution_broadcaster": BroadcasterSettings,
    "node_selector": SelectorSettings,
    "executor": ExecutorSettings,
    "restarts": Intensity,
}


@frozen
class DeclaredFile:
    """What a file says."""

    path: Path
    data: Data
    storage: Storage | None
    """The store that it names, not opened."""
    tasks: Sequence[Task[..., Any]]
    strategies: Mapping[str, RunStrategy]
    stages: Stages
    jobs: Sequence[Job]
    plain: Mapping[str, Any] = Factory(dict[str, Any])
    """Of `name`, `declared` and `recovery` what is said: the scheduler checks it."""


def read_declared_file(path: Path) -> DeclaredFile:
    """Read, import and check. Raises `DeclarationError`, with the file, the place in it and what would be right."""
    with placed_in(path):
        return _declared(path, _top(path))


@contextmanager
def placed_in(path: Path, at: str = "") -> Generator[None]:
    """Errors of what is made inside say in which file it stands, and where."""
    try:
        yield
    except DeclarationError:
        raise
    except ClepsydraError as error:
        raise DeclarationError(f"{path}: {at}{': ' if at else ''}{error}") from error


def _top(path: Path) -> Data:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeclarationError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DeclarationError(
            f"{path} is not UTF-8, as TOML has to be: {error.reason} at byte {error.start}"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise DeclarationError(f"{path} is not TOML: {error}") from None
    if path.name != "pyproject.toml":
        return data
    found = data.get("tool", {}).get("clepsydra")
    if found is None:
        raise DeclarationError(f"{path} has no table [tool.clepsydra]")
    return cast(Data, found)


def _declared(path: Path, data: Data) -> DeclaredFile:
    here = table_of(data, "", KEYS)
    found = _Tasks()
    for index, where in enumerate(_list(here.get("tasks", []), "tasks")):
        found.add(where, f"tasks[{index}]")
    jobs = [
        job_from_data(name, job, below("jobs", name), task=found.named(below(f"jobs.{name}", "task")))
        for name, job in _table(here.get("jobs", {}), "jobs").items()
    ]
    strategies = _table(here.get("strategies", {}), "strategies")
    return DeclaredFile(
        path,
        here,
        _storage(here["storage"]) if "storage" in here else None,
        list(found.tasks.values()),
        {name: _imported(where, below("strategies", name)) for name, where in strategies.items()},
        cast(Stages, _settings(Stages, here["stages"], "stages")) if "stages" in here else DEFAULTS,
        jobs,
        {key: here[key] for key in _PLAIN if key in here},
    )


def _storage(data: object) -> Storage:
    """A URL, or a table of `url` and the options of that store."""
    options: dict[str, Any] = {"url": data} if isinstance(data, str) else {**_table(data, "storage")}
    if "url" not in options:
        raise InvalidArgument("storage.url", None, "is missing: the URL of the store, such as 'sqlite:///jobs.db'")
    url = options.pop("url")
    with placed("storage"):
        return storage_at(url, **{key: duration_from_data(value, key) for key, value in options.items()})


def _settings(kind: type, data: object, at: str) -> object:
    """Settings of a class, those within them too."""
    values: dict[str, Any] = {}
    for key, value in table_of(data, at, tuple(fields_dict(kind))).items():
        if key in _WITHIN and kind is not Intensity:
            values[key] = _settings(_WITHIN[key], value, below(at, key))
        elif value is False:
            values[key] = None  # TOML has no word for it
        else:
            values[key] = value if key == "queues" else duration_from_data(value, below(at, key))
    with placed(at):
        return kind(**values)


class _Tasks:
    """Tasks as the file finds them, by name and by alias."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task[..., Any]] = {}
        self._by_any_name: dict[str, Task[..., Any]] = {}

    def add(self, where: object, at: str) -> Task[..., Any] | None:
        """Those of a module, or the one at `module:attribute`."""
        thing = _imported(where, at)
        if isinstance(thing, Task):
            return self._known(cast(Task[..., Any], thing))
        if isinstance(thing, Entered | ModuleType) or not callable(thing):
            tasks = _tasks_in(thing)
            if not tasks:
                raise InvalidArgument(at, where, "has no tasks: functions decorated with @task(), or a scheduler's own")
            for task in tasks:
                self._known(task)
            return None
        with placed(at):
            return self._known(Task(thing))

    def named(self, at: str) -> Any:
        """What finds the task that a job names: one of these, or one at `module:attribute`."""

        def find(name: object) -> object:
            if not isinstance(name, str):
                raise InvalidArgument("task", name, "must be the name of a task, or where it is: 'module:function'")
            if ":" not in name:
                return self._by_any_name.get(name, name)
            task = self.add(name, at)
            if task is None:
                raise InvalidArgument("task", name, "must be one task, or a function")
            return task

        return find

    def _known(self, task: Task[..., Any]) -> Task[..., Any]:
        known = self.tasks.get(task.name)
        if known is not None and known.function is task.function:
            return known
        self.tasks[task.name] = task
        self._by_any_name.update(dict.fromkeys((task.name, *task.aliases), task))
        return task


def _tasks_in(thing: object) -> list[Task[..., Any]]:
    """Those of a scheduler, or of a module: its own, and those of schedulers that stand in it."""
    if isinstance(thing, Entered):
        return list({task.name: task for task in thing.tasks.values()}.values())
    found: dict[str, Task[..., Any]] = {}
    for value in list(vars(thing).values()) if isinstance(thing, ModuleType) else ():
        if isinstance(value, Task):
            found.setdefault(value.name, cast(Task[..., Any], value))
        elif isinstance(value, Entered):
            found.update((task.name, task) for task in _tasks_in(value))
    return list(found.values())


def _imported(where: object, at: str) -> Any:
    """What is at `module` or `module:attribute`."""
    if not isinstance(where, str) or not where:
        raise InvalidArgument(at, where, "must be 'module', or 'module:attribute'")
    module_name, _, attribute = where.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise InvalidArgument(at, where, f"cannot be imported: {type(error).__name__}: {error}") from error
    try:
        return reduce(getattr, attribute.split(".") if attribute else (), module)
    except AttributeError as error:
        raise InvalidArgument(at, where, f"is not there: {error}") from None


def _list(data: object, at: str) -> Sequence[object]:
    if not isinstance(data, list):
        raise InvalidArgument(at, data, "must be a list of 'module' or 'module:attribute'")
    return cast(list[object], data)


def _table(data: object, at: str) -> Data:
    if not isinstance(data, Mapping):
        raise InvalidArgument(at, data, "must be a table")
    return cast(Data, data)
