"""Moments and filters as a command line has them: `2027-03-28T01:30`, `2h` ago, `today`; `--state failed --since 1d`.

A moment without an offset is one of the zone that is shown. A length of time alone is so long ago.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from .. import Cause, ExecutionFilter, Instant, InvalidArgument, Kind, State, to_instant
from .errors import UsageError
from .screen import Screen
from .words import SECOND

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LENGTH: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_EXAMPLES: Final = "2027-03-28, 2027-03-28T01:30+01:00, 90m or 2d (so long ago), now, today, yesterday"


def seconds_of(text: str) -> float | None:
    """A length of time: `90m`, `1h30m`. None: it is none."""
    parts = _LENGTH.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def moment_of(text: str, screen: Screen, option: str, *, ahead: bool = False) -> datetime:
    """The moment that is meant. With `ahead` a length alone is still so long ago, and one with a plus is to come."""
    today = screen.local(screen.now).replace(hour=0, minute=0, second=0, microsecond=0)
    words = {"now": screen.local(screen.now), "today": today, "yesterday": today - timedelta(days=1)}
    if ahead:
        words["tomorrow"] = today + timedelta(days=1)
    if text in words:
        return words[text]
    length = seconds_of(text.removeprefix("+") if ahead else text)
    if length is not None:
        sign = 1 if text.startswith("+") else -1
        return screen.local(screen.now + sign * round(length * SECOND))
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is not read; write it like {_EXAMPLES}") from None
    return at.replace(tzinfo=screen.zone) if at.tzinfo is None else at


# ---- which executions

_RANGES: Final = ("finished", "due", "nominal", "created")


def add_filters(command: argparse.ArgumentParser) -> None:
    """Every way to say which executions are meant. Several of one option mean any of them, several options all."""
    group = command.add_argument_group("which executions", "several values of an option: any of them; options: all")
    states = [*(state.value for state in State), "incomplete", "unstarted", "completed", "finished"]
    many: list[tuple[str, str, dict[str, Any]]] = [
        ("--id", "ids", {"metavar": "ID"}),
        ("--job", "jobs", {"metavar": "JOB"}),
        ("--job-id", "job_ids", {"metavar": "ID"}),
        ("--task", "tasks", {"metavar": "TASK"}),
        ("--queue", "queues", {"metavar": "QUEUE"}),
        ("--state", "states", {"choices": states, "metavar": "STATE"}),
        ("--cause", "causes", {"choices": [cause.value for cause in Cause], "metavar": "CAUSE"}),
        ("--verdict", "verdicts", {"choices": [kind.value for kind in Kind], "metavar": "VERDICT"}),
        ("--key", "keys", {"metavar": "KEY"}),
        ("--node", "nodes", {"metavar": "ID"}),
    ]
    for option, name, more in many:
        choices = more.get("choices")
        help_text = f"one of {', '.join(choices)}" if choices else f"by its {option.strip('-').replace('-', ' ')}"
        group.add_argument(option, dest=name, action="append", help=help_text, **more)
    group.add_argument(
        "--label", dest="labels", action="append", default=[], metavar="KEY=VALUE", help="KEY alone: whatever its value"
    )
    group.add_argument("--group", metavar="GROUP", help="the correlation group it was enqueued with")
    group.add_argument("--correlation", metavar="ID", help="the correlation id it was enqueued with")
    group.add_argument("--since", metavar="TIME", help=f"ended at or after: {_EXAMPLES}")
    group.add_argument("--until", metavar="TIME", help="ended before")
    for name in _RANGES[1:]:
        group.add_argument(f"--{name}-from", metavar="TIME", help=f"{_WORDS[name]} at or after")
        group.add_argument(f"--{name}-to", metavar="TIME", help=f"{_WORDS[name]} before")


_WORDS: Final = {"due": "due", "nominal": "its nominal time", "created": "created"}


def filter_of(arguments: argparse.Namespace, screen: Screen, **otherwise: Any) -> ExecutionFilter:
    """The executions that the options mean; `otherwise` is for what they leave open."""
    said: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("ids", "jobs", "job_ids", "tasks", "queues", "states", "causes", "verdicts", "keys", "nodes")
        if getattr(arguments, name) is not None
    }
    said["labels"] = labels_of(arguments.labels)
    for name in ("group", "correlation"):
        if (value := getattr(arguments, name)) is not None:
            said[name] = value
    ends = {"finished": ("since", "until")}
    for name in _RANGES:
        first, last = ends.get(name, (f"{name}_from", f"{name}_to"))
        said[name] = (_end(arguments, first, screen), _end(arguments, last, screen))
    try:
        return ExecutionFilter(**(otherwise | said))
    except InvalidArgument as error:
        raise UsageError(str(error)) from error


def says_which(arguments: argparse.Namespace) -> bool:
    """Whether any of the options of `add_filters` was given."""
    known: Callable[[str], Any] = vars(arguments).get
    lists = ("ids", "jobs", "job_ids", "tasks", "queues", "states", "causes", "verdicts", "keys", "nodes", "labels")
    ranges = [f"{name}_{end}" for name in _RANGES[1:] for end in ("from", "to")]
    return any(known(name) for name in (*lists, "group", "correlation", "since", "until", *ranges))


def _end(arguments: argparse.Namespace, name: str, screen: Screen) -> Instant | None:
    text: str | None = getattr(arguments, name)
    return None if text is None else to_instant(moment_of(text, screen, f"--{name.replace('_', '-')}", ahead=True))


def labels_of(given: list[str]) -> dict[str, str | None]:
    """Labels as options have them: `tenant=acme`, or `tenant`, whatever it is."""
    labels: dict[str, str | None] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key:
            raise UsageError(f"--label {text!r} is not read; write KEY=VALUE, or KEY for any value")
        labels[key] = value if equals else None
    return labels
