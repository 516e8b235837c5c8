"""The text of a cron expression, field by field.

Every field is checked against our own grammar, so that an error names the field and says what would be right. `L`,
`W` and `#` are taken out, `H` is drawn from the job's name, and what is left is rewritten into what croniter reads as
we do. Knows nothing of zones or instants, nor how a rule is stepped.

The dialect (`clepsydra-1`): 5 fields; 6 with seconds first; 7 with the year last. Day of month and day of week are
joined by OR when both are restricted; `*`, `?` and `*/1` do not restrict, `*/2` does. Ranges wrap (`FRI-MON`, `22-4`),
but not years; `5-5` is 5; `a/n` is `a` to the field's end in steps of n; 0 and 7 are Sunday. `L` is the last day, `L-3`
three days before it, `LW` the last weekday, `15W` the weekday nearest to the 15th in its month (31W in a short month:
nearest to its last day), `FRI#2` the second Friday, `FRIL` or `L5` the last. `H` is a value drawn from the job's name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

from attrs import Factory, field, frozen

from .cron_tables import FromEnd, NearestWeekday, NthWeekday, Special
from .errors import ScheduleError, shown

LONGEST: Final = 1000
"""How many characters an expression may have."""

REBOOT: Final = "@reboot"

WORDS: Final = {
    "@secondly": "* * * * * *",
    "@minutely": "* * * * *",
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

Fields: TypeAlias = tuple[str, str, str, str, str, str, str]
"""Second, minute, hour, day of month, month, day of week, year, as text."""


@frozen
class Kind:
    """What one field of an expression may hold."""

    name: str
    low: int
    high: int
    hash_high: int
    """`H` draws from `low` to this: the 29th to 31st would leave months out."""
    names: dict[str, int] = field(factory=dict[str, int])
    values: tuple[int, ...] = field(init=False, default=Factory(lambda self: _span(self), takes_self=True))

    @property
    def size(self) -> int:
        """How many values there are, and so the longest step that means anything."""
        return len(self.values)


def _span(kind: Kind) -> tuple[int, ...]:
    return tuple(range(kind.low, kind.high + 1))


SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY, YEAR = range(7)
KINDS: Final = (
    Kind("second", 0, 59, 59),
    Kind("minute", 0, 59, 59),
    Kind("hour", 0, 23, 23),
    Kind("day of month", 1, 31, 28),
    Kind("month", 1, 12, 12, {name: number for number, name in enumerate(MONTHS, 1)}),
    Kind("day of week", 0, 6, 6, {name: number for number, name in enumerate(WEEKDAYS)}),
    Kind("year", 1970, 2099, 2099),
)

_UNRESTRICTED: Final = frozenset(("*", "?", "*/1"))

_ATOM = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d{1,4}))?", re.ASCII)
_HASH = re.compile(r"H(?:\((\d{1,4})-(\d{1,4})\))?(?:/(\d{1,4}))?", re.ASCII)
_SPECIAL_DAY = re.compile(r"(?P<last>L)(?:-(?P<before>\d{1,2}))?|(?P<lw>LW|WL)|(?P<near>\d{1,2}W|W\d{1,2})", re.ASCII)
_SPECIAL_WEEKDAY = re.compile(r"(?P<nth>\w+)#(?P<n>\d)|L(?P<last>\d)|(?P<last_>\d|[A-Z]{3})L", re.ASCII)


class FieldError(ScheduleError):
    """One field of a cron expression cannot be used; `field` names it."""

    def __init__(self, expr: str, kind: Kind, text: str, what: str) -> None:
        super().__init__(f"cron {shown(expr)}: {kind.name} {shown(text)} {what}")
        self.expr = expr
        self.field = kind.name


# --- from text to fields -------------------------------------------------------------------------------------------


def normalized(expr: object) -> str:
    """The expression in the one spelling that is stored and compared: single spaces, upper case, `@words` in lower."""
    if not isinstance(expr, str):
        raise ScheduleError(f"cron {shown(expr)}: must be text such as '*/5 * * * *', not {type(expr).__name__}")
    return _spelling(expr)


@lru_cache(maxsize=4096)  # so that a million jobs that say the same hold one text
def _spelling(expr: str) -> str:
    if len(expr) > LONGEST:
        raise ScheduleError(f"cron {shown(expr)}: has {len(expr)} characters; at most {LONGEST} are read")
    if not expr.isascii():
        raise ScheduleError(f"cron {shown(expr)}: only ASCII digits, letters and signs are read")
    text = " ".join(expr.split())
    return text.lower() if text.startswith("@") else text.upper()


@lru_cache(maxsize=4096)
def fields_of(expr: str) -> Fields:
    """The seven fields of a normalized expression, each checked but not yet expanded."""
    parts = _parts(expr)
    fields: Fields = (parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6])
    for index, text in enumerate(fields):
        _check(expr, index, text)
    return fields


def _parts(expr: str) -> list[str]:
    if expr.startswith("@"):
        if expr not in WORDS:
            raise ScheduleError(f"cron {shown(expr)}: no such word; known are {', '.join((*WORDS, REBOOT))}")
        expr = WORDS[expr]
    parts = expr.split()
    if not 5 <= len(parts) <= 7:
        wanted = "5 (minute hour day month weekday), 6 (second first) or 7 (year last)"
        raise ScheduleError(f"cron {shown(expr)}: has {len(parts)} field{'s' * (len(parts) != 1)}; expected {wanted}")
    with_second = parts if len(parts) > 5 else ["0", *parts]
    return with_second if len(with_second) == 7 else [*with_second, "*"]


def needs_name(fields: Fields) -> bool:
    """Whether the job's name decides a part of it."""
    return any(_HASH.fullmatch(atom) for text in fields if "H" in text for atom in text.split(","))


def is_wildcard(fields: Fields) -> bool:
    """Whether the beat of real time is kept over a DST change: minute, hour or second begins with `*` or is `H/n`."""
    return any(text.startswith("*") or (text.startswith("H") and "/" in text) for text in fields[:3])


def _check(expr: str, index: int, text: str) -> None:
    problem = _problem_in(index, text)
    if problem is not None:
        raise FieldError(expr, KINDS[index], *problem)


@lru_cache(maxsize=4096)  # few fields make many expressions
def _problem_in(index: int, text: str) -> tuple[str, str] | None:
    """The first element of a field's list that is not right, and what is wrong with it."""
    for atom in text.split(","):
        problem = _problem(index, KINDS[index], atom)
        if problem:
            return atom if atom else text, problem
    return None


def _problem(index: int, kind: Kind, atom: str) -> str | None:
    """What is wrong with one element of a field's list, said so that it can be put right."""
    if not atom:
        return "has an empty element; write values separated by single commas"
    if atom == "*" or _value(index, kind, atom) is not None:
        return None
    if atom == "?":
        return None if index in (DAY, WEEKDAY) else "'?' is read in day of month and day of week only; write '*'"
    if atom[0] == "R" and (atom == "R" or atom[1] in "(/"):
        return "is random, and two nodes would disagree; 'H' draws a fixed value from the job's name"
    if hashed := _HASH.fullmatch(atom):
        return _hash_problem(index, kind, hashed)
    if index == DAY and (special := _SPECIAL_DAY.fullmatch(atom)):
        return _special_day_problem(special)
    if index == WEEKDAY and (special := _SPECIAL_WEEKDAY.fullmatch(atom)):
        return _special_weekday_problem(kind, special)
    if plain := _ATOM.fullmatch(atom):
        return _plain_problem(index, kind, plain)
    return f"is not read; {_right(index, kind)}"


def _right(index: int, kind: Kind) -> str:
    extra = {DAY: ", L, L-3, LW, 15W", WEEKDAY: ", FRI#2, FRIL"}.get(index, "")
    names = f" or {next(iter(kind.names))} to {list(kind.names)[-1]}" if kind.names else ""
    high = 7 if index == WEEKDAY else kind.high
    return f"values are {kind.low} to {high}{names}, as *, a, a-b, */n, a-b/n, lists of these{extra}"


def _value(index: int, kind: Kind, text: str) -> int | None:
    """The number that a digit string or a name stands for, if it is in the field's range."""
    if text in kind.names:
        return kind.names[text]
    if not (text.isdigit() and len(text) <= 4):
        return None
    value = int(text)
    return value if kind.low <= value <= kind.high or (index == WEEKDAY and value == 7) else None


def _plain_problem(index: int, kind: Kind, match: re.Match[str]) -> str | None:
    _, low, high, step = match.groups()
    if index == DAY and high == "L":
        high = "31"
    for bound in (low, high):
        if bound is not None and _value(index, kind, bound) is None:
            return f"is {'out of range' if bound.isdigit() else 'not read'}; {_right(index, kind)}"
    if index == YEAR and high is not None and int(high) < int(low):
        return "ends before it begins; years do not wrap around"
    return _step_problem(kind, step)


def _step_problem(kind: Kind, step: str | None) -> str | None:
    if step is None or 1 <= int(step) <= kind.size:
        return None
    return f"has a step of {int(step)}; steps in this field are 1 to {kind.size}"


def _hash_problem(index: int, kind: Kind, match: re.Match[str]) -> str | None:
    low, high, step = match.groups()
    if index == YEAR and low is None:
        return "would draw one year for ever; give the years as H(2030-2040)"
    if low is not None and not kind.low <= int(low) < int(high) <= kind.high:
        return f"draws from no range; write H(a-b) with a below b, both from {kind.low} to {kind.high}"
    return _step_problem(kind, step)


def _special_day_problem(match: re.Match[str]) -> str | None:
    before, near = match["before"], match["near"]
    if before is not None and not 1 <= int(before) <= 30:
        return "counts back from the last day; write L-1 to L-30"
    if near is not None and not 1 <= int(near.strip("W")) <= 31:
        return "is out of range; write 1W to 31W, or LW for the last weekday"
    return None


def _special_weekday_problem(kind: Kind, match: re.Match[str]) -> str | None:
    day = match["nth"] or match["last"] or match["last_"]
    if _value(WEEKDAY, kind, day) is None:
        return f"names no weekday; {_right(WEEKDAY, kind)}"
    if match["n"] is not None and not 1 <= int(match["n"]) <= 5:
        return "asks for a week that no month has; write #1 to #5, or FRIL for the last Friday"
    return None


# --- H: a value from the job's name --------------------------------------------------------------------------------


def resolved(fields: Fields, name: str) -> Fields:
    """The fields with each `H` replaced by what the job's name gives."""
    if not name:
        expr = shown(spelled(fields))
        raise ScheduleError(
            f"cron {expr}: 'H' draws from the job's name, and there is none; name the job, or pass name="
        )
    # Each field draws from bytes of its own: croniter shifts one number, so its `H H` meets a sixth of all minutes.
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=56).digest()
    draws = [int.from_bytes(digest[8 * index : 8 * index + 8], "big") for index in range(7)]
    return _without_hash(fields, lambda index, match: _drawn(KINDS[index], match, draws[index]))


def widest(fields: Fields) -> Fields:
    """The fields with each `H` replaced by all that it may draw."""
    return _without_hash(fields, lambda index, match: "{}-{}".format(*_range(KINDS[index], match)))


def _without_hash(fields: Fields, instead: Callable[[int, re.Match[str]], str]) -> Fields:
    def changed(index: int) -> str:
        atoms = fields[index].split(",")
        return ",".join(instead(index, match) if (match := _HASH.fullmatch(atom)) else atom for atom in atoms)

    return (changed(0), changed(1), changed(2), changed(3), changed(4), changed(5), changed(6))


def _drawn(kind: Kind, match: re.Match[str], draw: int) -> str:
    first, last = _range(kind, match)
    step = match[3]
    if step is None:
        return str(first + draw % (last - first + 1))
    start = first + draw % min(int(step), last - first + 1)
    return f"{start}-{last}/{step}"


def _range(kind: Kind, match: re.Match[str]) -> tuple[int, int]:
    """From what to what it draws."""
    low, high, step = match.groups()
    if low is not None:
        return int(low), int(high)
    return kind.low, kind.high if step else kind.hash_high


# --- as croniter is to see it --------------------------------------------------------------------------------------


def spelled(fields: Fields) -> str:
    """The fields as an expression again, with no more of them than it needs."""
    shortened = fields[:-1] if fields[YEAR] == "*" else fields
    return " ".join(shortened[1:] if len(shortened) == 6 and shortened[0] == "0" else shortened)


def unrestricted(text: str) -> bool:
    return not _UNRESTRICTED.isdisjoint(text.split(","))


@lru_cache(maxsize=4096)
def split_field(index: int, text: str) -> tuple[str, tuple[Special, ...]]:
    """A field as croniter is to see it ('' for nothing), and what croniter must not see."""
    if text == "*":
        return text, ()
    if (value := _value(index, KINDS[index], text)) is not None:
        return str(value % 7 if index == WEEKDAY else value), ()
    plain: list[str] = []
    taken: list[Special] = []
    for atom in text.split(","):
        if index == DAY and (special := _SPECIAL_DAY.fullmatch(atom)):
            taken.append(_special_day(special))
        elif index == WEEKDAY and (special := _SPECIAL_WEEKDAY.fullmatch(atom)):
            taken.append(_special_weekday(special))
        else:
            plain += _rewritten(index, atom)
    return ",".join(plain), tuple(taken)


def _special_day(match: re.Match[str]) -> Special:
    if match["near"]:
        return NearestWeekday(int(match["near"].strip("W")))
    if match["lw"]:
        return NearestWeekday(31)  # read as the last day, and the weekday nearest to that is the last one
    return FromEnd(int(match["before"] or 0))


def _special_weekday(match: re.Match[str]) -> Special:
    day = _value(WEEKDAY, KINDS[WEEKDAY], match["nth"] or match["last"] or match["last_"]) or 0
    return NthWeekday(day % 7, int(match["n"]) if match["n"] else None)


def _rewritten(index: int, atom: str) -> list[str]:
    """One element in a form that croniter reads as we do: no equal, wrapping or open-ended ranges, no Sunday as 7."""
    match = _ATOM.fullmatch(atom)
    if match is None or match[1]:
        return ["*"] if atom == "?" else [atom]
    kind = KINDS[index]
    low, high, step = match[2], match[3], int(match[4] or 1)
    first = _value(index, kind, low) or 0
    last = kind.high if high in (None, "L") else _value(index, kind, high) or 0
    if first == last or (high is None and match[4] is None):
        return [str(first % 7 if index == WEEKDAY else first)]
    first = 0 if first > kind.high else first  # Sunday as 7
    if first <= last <= kind.high:
        return _stepped(first, last, step)
    return _wrapped(kind, first, last, step)


def _stepped(first: int, last: int, step: int) -> list[str]:
    if first + step > last:
        return [str(first)]
    return [f"{first}-{last}" if step == 1 else f"{first}-{last}/{step}"]


def _wrapped(kind: Kind, first: int, last: int, step: int) -> list[str]:
    """A range over the end of its field, `22-4` or `5-7`, as single values: croniter miscounts its steps."""
    length = (last - first) % kind.size if last < first else last - first
    return [str(kind.low + (first - kind.low + ahead) % kind.size) for ahead in range(0, length + 1, step)]
