"""A cron expression in words, for people who do not read cron.

Works on the fields as they are written, so that `*/5` is "every 5 minutes" and not a list of twelve. Plain values
become clock times; what has no short form is said field by field. Knows nothing of zones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FEW = 6  # clock times are listed up to this many


def cron_in_words(fields: Sequence[str]) -> str:
    """The seven fields (second to year) of an upper-case expression in words."""
    second, minute, hour, day, month, weekday, year = ("*" if _open(text) else text for text in fields)
    dates = [part for part in (_days(day, weekday), _months(month), _years(year)) if part]
    times = _times(second, minute, hour)
    if not dates and times.startswith("at ") and _EVERY not in times:
        return f"every day {times}"
    return " ".join([times, *dates])


# --- times of day --------------------------------------------------------------------------------------------------

_EVERY: Final = "every"


def _times(second: str, minute: str, hour: str) -> str:
    if all(_plain(text) for text in (second, minute, hour)):
        clocks = _clocks(second, minute, hour)
        if len(clocks) <= _FEW:
            return f"at {_listed(clocks)}"
    small = _small(second, minute)
    if hour == "*":
        return small if _EVERY in small else f"{small} of every hour"
    return f"{small} {'during' if small.startswith(_EVERY) else 'past'} {_field(hour, 'hour', str)}"


def _clocks(second: str, minute: str, hour: str) -> list[str]:
    with_seconds = second != "0"
    every = [(int(h), int(m), int(s)) for h in hour.split(",") for m in minute.split(",") for s in second.split(",")]
    return [f"{h:02}:{m:02}:{s:02}" if with_seconds else f"{h:02}:{m:02}" for h, m, s in sorted(set(every))]


def _small(second: str, minute: str) -> str:
    """Seconds and minutes, as far as they say anything."""
    if second == "0":
        return _beat(minute, "minute")
    if minute == "*":
        return _beat(second, "second") if second.startswith("*") else f"{_beat(second, 'second')} of every minute"
    return f"{_beat(second, 'second')} of {_beat(minute, 'minute').removeprefix('at ')}"


def _beat(text: str, unit: str) -> str:
    if text == "*":
        return f"every {unit}"
    if text.startswith("*/") and text[2:].isdigit() and 60 % int(text[2:]) == 0:
        return f"every {text[2:]} {unit}s"
    words = _field(text, unit, str)
    return words if words.startswith(_EVERY) else f"at {words}"


# --- dates ---------------------------------------------------------------------------------------------------------


def _days(day: str, weekday: str) -> str:
    if day == weekday == "*":
        return ""
    by_day = f"on {_field(day, 'day', _day)}"
    by_weekday = f"on {_field(weekday, 'weekday', _weekday)}"
    if day == "*":
        return by_weekday
    return by_day if weekday == "*" else f"{by_day} and also {by_weekday}"


def _months(text: str) -> str:
    return "" if text == "*" else f"in {_field(text, 'month', _month)}"


def _years(text: str) -> str:
    return "" if text == "*" else f"in {_field(text, 'year', str)}"


def _open(text: str) -> bool:
    return any(atom in ("*", "?", "*/1") for atom in text.split(","))


def _day(text: str) -> str:
    if text == "L":
        return "the last day of the month"
    if text in ("LW", "WL"):
        return "the last weekday of the month"
    if text.startswith("L-"):
        return f"the {_ordinal(text[2:])} day before the last of the month"
    if "W" in text:
        return f"the weekday nearest to the {_ordinal(text.strip('W'))}"
    return f"the {_ordinal(text)}"


def _weekday(text: str) -> str:
    if "#" in text:
        name, n = text.split("#")
        return f"the {_ordinal(n)} {_weekday(name)} of the month"
    if "L" in text:
        return f"the last {_weekday(text.strip('L'))} of the month"
    return _WEEKDAYS[int(text)] if text.isdigit() else _called(text, _WEEKDAYS)


def _month(text: str) -> str:
    return _MONTHS[int(text) - 1] if text.isdigit() else _called(text, _MONTHS)


def _called(short: str, names: Sequence[str]) -> str:
    return next(name for name in names if name.upper().startswith(short))


# --- any field -----------------------------------------------------------------------------------------------------


_FIRST: Final = {"day": "1", "weekday": "0", "month": "1", "year": "1970"}


def _field(text: str, unit: str, say: Callable[[str], str]) -> str:
    atoms = text.split(",")
    if say is str and all(atom.replace("-", "").isdigit() for atom in atoms):
        several = len(atoms) > 1 or "-" in text
        return f"{unit}{'s' * several} {_listed([atom.replace('-', ' to ') for atom in atoms])}"
    return _listed([_atom(atom, unit, say) for atom in atoms])


def _atom(atom: str, unit: str, say: Callable[[str], str]) -> str:
    body, _, step = atom.partition("/")
    every = f"every {_ordinal(step)} {unit}" if step not in ("", "1") else ""
    if body == "*":
        return f"{every} from {say(_FIRST[unit])}" if unit in _FIRST else every
    if body.startswith("H"):
        within = f" from {body[2:-1].replace('-', ' to ')}" if "(" in body else ""
        what = f"{every} from one" if every else f"{'an' if unit == 'hour' else 'a'} {unit}"
        return f"{what}{within} drawn from the job's name"
    low, dash, high = body.partition("-")
    if dash and low != "L":
        span = f"{say(low)} to {say(high)}"
        return f"{every} from {span}" if every else span
    return f"{every} from {say(body)}" if every else say(body)


def _plain(text: str) -> bool:
    return all(atom.isdigit() for atom in text.split(","))


def _ordinal(number: str) -> str:
    value = int(number)
    ending = "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    return f"{value}{ending}"


def _listed(items: Sequence[str]) -> str:
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} and {items[-1]}"
