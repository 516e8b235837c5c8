"""Job definitions as plain data, for files that people write and read: TOML, JSON.

The keys are the names that `Job` and the schedules have in code, durations are seconds or a table of `timedelta`'s
units, and what is not said has its default. `job_from_data` makes the same checks as code does, and says where in the
data a mistake stands; `job_to_data` says only what differs from the defaults, and reads back as an equal job.

    schedule = "0 3 * * *"                                        # Cron, in UTC
    schedule = { cron = "0 3 * * *", tz = "Europe/Zurich" }
    schedule = { every = { minutes = 5 }, except = "* 12 * * *" }
    schedule = { any = ["0 9 * * MON-FRI", { once = 2027-06-01T09:30:00Z }], until = 2028-01-01T00:00:00Z }
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

from .algebra import Between, Difference, Union
from .cron import Cron
from .errors import InvalidArgument, ScheduleError
from .instants import SECOND, Instant, Micros, to_datetime
from .job import Job, JobState
from .policies import Misfire, Retry
from .schedule import Every, Once, Reboot, Schedule
from .strategies import All, Named, NodeList, Random, RunOn, to_run_on
from .task import Call

Data: TypeAlias = Mapping[str, Any]

_UNITS: Final = ("weeks", "days", "hours", "minutes", "seconds", "milliseconds")
_DURATIONS: Final = ("timeout", "start_by", "jitter")
_PLAIN: Final = (
    "overlap", "max_running", "timeout_from", "recovery", "recoveries", "on_lease_lost", "queue", "priority", "labels",
    "immediate", "limit", "paused",
)  # fmt: skip
KEYS: Final = ("task", "args", "schedule", "misfire", "retry", "run_on", *_DURATIONS, *_PLAIN)
"""What a job's table may say."""

_KINDS: Final = ("cron", "every", "once", "reboot", "any", "of")
_MISFIRE: Final = ("take", "window", "limit", "grace")
_RETRY: Final = ("attempts", "backoff", "factor", "max_backoff", "jitter", "on", "give_up_on")
_STRATEGIES: Final[Mapping[str, Callable[[Any], RunOn]]] = {"random": Random, "all": All, "node_list": NodeList}


# --- from data ------------------------------------------------------------------------------------------------------


def job_from_data(name: str, data: Data, at: str = "", *, task: Callable[[str], object] | None = None) -> Job:
    """The job of this name that the data defines.

    `at` is where the data stands, for errors, which are those of `Job`. `task` finds what a name under `task` means;
    without it the name is taken as it is.
    """
    here = table_of(data, at or "job", KEYS)
    if "task" not in here:
        raise InvalidArgument(below(at, "task"), None, "is missing: the name of the task that the job runs")
    options: dict[str, Any] = {key: here[key] for key in _PLAIN if key in here}
    for key in _DURATIONS:
        if key in here:
            options[key] = duration_from_data(here[key], below(at, key))
    if "misfire" in here:
        options["misfire"] = _misfire(here["misfire"], below(at, "misfire"))
    if "retry" in here:
        options["retry"] = _retry(here["retry"], below(at, "retry"))
    if "run_on" in here:
        options["run_on"] = _run_on(here["run_on"], below(at, "run_on"))
    given = here.get("schedule")
    schedule = None if given is None else schedule_from_data(given, below(at, "schedule"))
    with placed(at):
        found = here["task"] if task is None else task(here["task"])
        return Job(name, found, schedule, args=here.get("args"), **options)


def schedule_from_data(data: object, at: str = "schedule") -> Schedule:
    """The schedule that data names: a cron expression, or a table of one of the kinds, perhaps bounded."""
    if isinstance(data, str):
        with placed(at):
            return Cron(data)
    if not isinstance(data, Mapping):
        raise InvalidArgument(at, data, "must be a cron expression, or a table such as { every = { minutes = 5 } }")
    here = cast(Data, data)
    kinds = [kind for kind in _KINDS if kind in here]
    if len(kinds) != 1:
        raise InvalidArgument(at, dict(here), f"must say exactly one of {', '.join(_KINDS)}")
    schedule = _kind_from_data(kinds[0], here, at)
    with placed(at):
        if "except" in here:
            schedule = schedule - schedule_from_data(here["except"], below(at, "except"))
        if "from" in here or "until" in here:
            schedule = schedule.between(*(_moment(here.get(key), below(at, key)) for key in ("from", "until")))
    return schedule


def _kind_from_data(kind: str, data: Data, at: str) -> Schedule:
    options = {"cron": ("tz", "gap", "fold"), "every": ("after_completion",), "once": ("tz",)}.get(kind, ())
    here = table_of(data, at, (kind, *options, "except", "from", "until"))
    given = here[kind]
    with placed(at):
        match kind:
            case "cron":
                return Cron(given, **{key: here[key] for key in options if key in here})
            case "every":
                length = duration_from_data(given, below(at, "every"))
                return Every(length, after_completion=here.get("after_completion", False))
            case "once":
                return Once(given, here.get("tz"))
            case "reboot":
                if given is not True:
                    raise InvalidArgument("reboot", given, "must be true; leave the schedule out for none")
                return Reboot()
            case "any":
                return _union(given, below(at, "any"))
            case _:
                return schedule_from_data(given, below(at, "of"))


def _union(data: object, at: str) -> Schedule:
    given = data
    if not isinstance(data, Sequence) or isinstance(data, str) or not data:
        raise InvalidArgument(at, given, "must be a list of schedules")
    parts = [schedule_from_data(part, f"{at}[{index}]") for index, part in enumerate(cast(Sequence[object], data))]
    with placed(at):
        return Union.of(*parts)


def _moment(data: object, at: str) -> datetime | None:
    """An offset date-time, as TOML has it and JSON can only write."""
    if isinstance(data, str):
        try:
            data = datetime.fromisoformat(data)
        except ValueError:
            raise InvalidArgument(at, data, "must be a date and time with an offset, 2027-06-01T09:30:00Z") from None
    if data is not None and (not isinstance(data, datetime) or data.utcoffset() is None):
        raise InvalidArgument(at, data, "must be a date and time with an offset, 2027-06-01T09:30:00Z")
    return data


def duration_from_data(data: object, at: str) -> Any:
    """Seconds as they are, a table of units as a `timedelta`. What is neither is left for those who check it."""
    if not isinstance(data, Mapping):
        return data
    units = table_of(cast(object, data), at, _UNITS)
    for unit, value in units.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidArgument(below(at, unit), value, "must be a number")
    try:
        return timedelta(**units)
    except (OverflowError, ValueError):
        raise InvalidArgument(at, dict(units), "is longer than any duration can be") from None


def _misfire(data: object, at: str) -> Misfire:
    with placed(at):
        if isinstance(data, str):
            return Misfire(cast(Any, data))
        here = dict(table_of(data, at, _MISFIRE))
        take = here.pop("take", "latest")
        for key in ("window", "grace"):
            if key in here:
                here[key] = duration_from_data(here[key], key)
        return Misfire(take, **here)


def _retry(data: object, at: str) -> Retry:
    with placed(at):
        if isinstance(data, int):
            return Retry(data)
        here = dict(table_of(data, at, _RETRY))
        for key in ("backoff", "max_backoff"):
            if key in here:
                here[key] = duration_from_data(here[key], key)
        return Retry(**here)


def _run_on(data: object, at: str) -> RunOn:
    with placed(at):
        if isinstance(data, str):
            return _STRATEGIES[data](()) if data in ("random", "all") else to_run_on(data)
        here = table_of(data, at, tuple(_STRATEGIES))
        if len(here) != 1:
            raise InvalidArgument("run_on", dict(here), f"must say one of {', '.join(_STRATEGIES)}")
        ((kind, names),) = here.items()
        return _STRATEGIES[kind](names)


def table_of(data: object, at: str, known: Sequence[str]) -> Data:
    """The data, if it is a table that says nothing unknown."""
    if not isinstance(data, Mapping):
        raise InvalidArgument(at, data, "must be a table")
    table = cast(Data, data)
    for key, value in table.items():
        if key not in known:
            raise InvalidArgument(below(at, str(key)), value, f"is not known here; known: {', '.join(known)}")
    return table


def below(at: str, key: str) -> str:
    """The place of a key within a table."""
    return f"{at}.{key}" if at else key


@contextmanager
def placed(at: str) -> Generator[None]:
    """Errors of what is made inside say where in the data it stands, once."""
    try:
        yield
    except InvalidArgument as error:
        if not at or error.argument.startswith(at):
            raise
        place = at if f".{at}".endswith(f".{error.argument}") else below(at, error.argument)
        raise InvalidArgument(place, error.value, error.expected) from None
    except ScheduleError as error:
        if not at or str(error).startswith(at):
            raise
        raise ScheduleError(f"{at}: {error}") from None


# --- to data --------------------------------------------------------------------------------------------------------


def job_to_data(job: Job) -> dict[str, Any]:
    """The definition as plain data, without what is as it would be anyway; moments are `datetime`s in UTC."""
    defaults = _defaults()
    return {key: value for key, value in _all_of(job).items() if key not in defaults or value != defaults[key]}


@lru_cache(maxsize=1)
def _defaults() -> Mapping[str, Any]:
    said = _all_of(Job("job", Call("task")))
    return {key: value for key, value in said.items() if key != "task"}


def _all_of(job: Job) -> dict[str, Any]:
    work = job.work
    said: dict[str, Any] = {"task": work.task, "args": json.loads(work.args)}
    if job.schedule is not None:
        said["schedule"] = schedule_to_data(job.schedule)
    said |= {
        "misfire": _misfire_to_data(job.misfire),
        "overlap": job.overlap.value,
        "max_running": job.max_running,
        "retry": _retry_to_data(work.retry),
        "timeout": _seconds(work.timeout),
        "timeout_from": work.timeout_from.value,
        "start_by": _seconds(work.start_by),
        "recoveries": work.recoveries,
        "on_lease_lost": work.on_lease_lost.value,
        "queue": work.queue,
        "priority": work.priority,
        "labels": dict(work.labels),
        "immediate": job.immediate,
        "jitter": _seconds(job.jitter),
        "limit": job.limit,
        "run_on": _run_on_to_data(job.run_on),
        "paused": job.state is JobState.PAUSED,
    }
    if job.says_recovery:
        said["recovery"] = work.recovery.value
    return said


def schedule_to_data(schedule: Schedule) -> str | dict[str, Any]:
    """The schedule as plain data. Raises `ScheduleError` for a kind of one's own, which data cannot name."""
    match schedule:
        case Cron(expr, tz, gap, fold):
            options = {"tz": tz if tz != "UTC" else None, "gap": gap, "fold": fold}
            said = {key: value for key, value in options.items() if value is not None}
            return {"cron": expr, **said} if said else expr
        case Every():
            every = {"every": _seconds(schedule.micros)}
            return {**every, "after_completion": True} if schedule.after_completion else every
        case Once():
            once = {"once": to_datetime(schedule.instant)}
            return once if schedule.tz is None else {**once, "tz": schedule.tz}
        case Reboot():
            return {"reboot": True}
        case Union(members):
            return {"any": [schedule_to_data(member) for member in members]}
        case Difference(base, without):
            return {**_as_base(base, ("except", "from", "until")), "except": schedule_to_data(without)}
        case Between(of, start, end):
            bounds = {"from": _datetime(start), "until": _datetime(end)}
            return {**_as_base(of, ("from", "until")), **{key: at for key, at in bounds.items() if at is not None}}
        case _:
            raise ScheduleError(f"{type(schedule).__name__} is no schedule that data can name")


def _as_base(schedule: Schedule, taken: Sequence[str]) -> dict[str, Any]:
    """A table that can be given these keys."""
    data = schedule_to_data(schedule)
    if isinstance(data, str):
        return {"cron": data}
    return {"of": data} if any(key in data for key in taken) else data


def _misfire_to_data(misfire: Misfire) -> object:
    return _shortest("take", _all_of_misfire(misfire), _all_of_misfire(Misfire()))


def _all_of_misfire(misfire: Misfire) -> Data:
    return {
        "take": misfire.take,
        "window": _seconds(misfire.window),
        "limit": misfire.limit,
        "grace": _seconds(misfire.grace),
    }


def _retry_to_data(retry: Retry) -> object:
    return _shortest("attempts", _all_of_retry(retry), _all_of_retry(Retry()))


def _all_of_retry(retry: Retry) -> Data:
    return {
        "attempts": retry.attempts,
        "backoff": _seconds(retry.backoff),
        "factor": retry.factor,
        "max_backoff": _seconds(retry.max_backoff),
        "jitter": retry.jitter,
        "on": list(retry.on),
        "give_up_on": list(retry.give_up_on),
    }


def _shortest(main: str, said: Data, defaults: Data) -> object:
    """Only what differs; the main value by itself where nothing else does."""
    rest = {key: value for key, value in said.items() if key != main and value != defaults[key]}
    return {main: said[main], **rest} if rest else said[main]


def _run_on_to_data(run_on: RunOn) -> object:
    match run_on:
        case Named(name):
            return name
        case Random(names) | All(names):
            kind = type(run_on).__name__.lower()
            return {kind: list(names)} if names else kind
        case NodeList(names):
            return {"node_list": list(names)}
        case _:
            return "local"


def _seconds(micros: Micros | None) -> int | float | None:
    if micros is None:
        return None
    return micros // SECOND if micros % SECOND == 0 else micros / SECOND


def _datetime(instant: Instant | None) -> datetime | None:
    return None if instant is None else to_datetime(instant)
