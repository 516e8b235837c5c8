"""The lines of a crontab as values: text in, job lines and remarks out. Pure; it opens no file and runs nothing.

What a line means is what Debian's cron makes of it: settings with quotes and without expansion, `%` as the end of the
command and the newlines of its standard input, the two day fields joined by "and" as soon as one of them begins with a
star. Fields are read by `Cron`, which takes more than cron does. `CRON_TZ` is the zone of the lines below it, and
`CLEPSYDRA_TIMEOUT` and `CLEPSYDRA_OVERLAP` are settings of the same sort.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from attrs import define, field, frozen

from .. import Cron, Overlap, Reboot, Schedule, ScheduleError

ZONE: Final = "CRON_TZ"
TIMEOUT: Final = "CLEPSYDRA_TIMEOUT"
OVERLAP: Final = "CLEPSYDRA_OVERLAP"
WITHOUT_EFFECT: Final = {
    "MAILTO": "output is logged, nothing is mailed",
    "MAILFROM": "nothing is mailed",
    "RANDOM_DELAY": "lines run at the time that they name",
    "START_HOURS_RANGE": "lines run at the time that they name",
    "TZ": f"it is the zone of the commands only; that of the schedules is {ZONE}",
}
LONGEST_TITLE: Final = 64

_NAME = re.compile(r"#+\s*name:\s*(.*?)\s*", re.IGNORECASE)
_SETTING = re.compile(
    r"""(?:"(?P<name_2>[^"=]+)"|'(?P<name_1>[^'=]+)'|(?P<name>[^\s='"][^\s=]*))\s*=\s*"""
    r"""(?:"(?P<value_2>[^"]*)"|'(?P<value_1>[^']*)'|(?P<value>[^\s'"].*?))\s*"""
)
_MEANT_AS_SETTING = re.compile(r"[A-Za-z_]\w*\s*=\s*(?P<value>.*)")
_COMMAND = re.compile(r"(?:[^%\\]|\\.|\\$)*", re.DOTALL)
_ESCAPED = re.compile(r"\\([%\\])")  # in the command; in what it reads only the percent sign
_LIKE_A_FIELD = re.compile(r"(?:[\d*/,-]*\*[\d*/,-]*|\d+)(?!\S)")
_WEEKDAYS: Final = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_EVERY: Final = frozenset(("*", "?", "*/1"))


@frozen
class Remark:
    """What is to be said about a line. An error keeps the whole file from being used."""

    number: int
    level: Literal["error", "note"]
    text: str


@frozen
class JobLine:
    """A line that runs something."""

    number: int
    title: str
    """From the comment above it, or the command; not unique yet."""
    schedule: Schedule
    command: str
    """For the shell: without what `%` has cut off."""
    stdin: str
    user: str | None
    """The user column of the system format."""
    settings: Mapping[str, str] = field(hash=False)
    """The settings above it."""


@frozen
class Crontab:
    """What a text says."""

    lines: tuple[JobLine, ...]
    remarks: tuple[Remark, ...]

    @property
    def errors(self) -> tuple[Remark, ...]:
        """Those remarks for which it must not be used."""
        return tuple(remark for remark in self.remarks if remark.level == "error")


class _Misread(Exception):
    """This line cannot be read; the text says why, and what would be right."""


def read_crontab(text: str, *, system: bool = False, tz: str = "UTC") -> Crontab:
    """Read a crontab; `system`: each line has a user before its command. `tz` counts until a `CRON_TZ`."""
    reader = _Reader(system, tz)
    for number, line in enumerate(text.split("\n"), 1):
        reader.read(number, line.removesuffix("\r").strip(" \t"))
    reader.forget_name()
    return Crontab(tuple(reader.lines), tuple(reader.remarks))


@define
class _Reader:
    """Goes down the lines; remembers the settings and the name that the next line is to have."""

    system: bool
    tz: str
    settings: dict[str, str] = field(factory=dict[str, str])
    lines: list[JobLine] = field(factory=list[JobLine])
    remarks: list[Remark] = field(factory=list[Remark])
    name: tuple[int, str] | None = None

    def read(self, number: int, line: str) -> None:
        """Take the next line."""
        try:
            self._read(number, line)
        except _Misread as error:
            self.name = None
            self.remarks.append(Remark(number, "error", str(error)))

    def _read(self, number: int, line: str) -> None:
        if "\0" in line:
            raise _Misread("holds a NUL character, which no command and no setting can have")
        if line.startswith("#"):
            self._comment(number, line)
        elif not line:
            self.forget_name()
        elif (setting := setting_of(line)) is not None:
            self._set(number, *setting)
        else:
            self._job(number, line)

    def _comment(self, number: int, line: str) -> None:
        named = _NAME.fullmatch(line)
        if named is None:
            return
        self.forget_name()
        if not named[1] or not named[1].isprintable() or len(named[1]) > LONGEST_TITLE:
            raise _Misread(f"a name is printable text of 1 to {LONGEST_TITLE} characters, as in '# name: backup'")
        self.name = number, named[1]

    def forget_name(self) -> None:
        """Between a name and its line there are no empty lines."""
        if self.name is not None:
            self.remarks.append(Remark(self.name[0], "note", f"the name {self.name[1]!r} stands above no job"))
            self.name = None

    def _set(self, number: int, name: str, value: str) -> None:
        check = {ZONE: _check_zone, TIMEOUT: timeout_of, OVERLAP: overlap_of}.get(name)
        if check is not None:
            check(value)
        if name in WITHOUT_EFFECT:
            self.remarks.append(Remark(number, "note", f"{name} has no effect here: {WITHOUT_EFFECT[name]}"))
        self.settings = {**self.settings, name: value}  # the lines above keep theirs

    def _job(self, number: int, line: str) -> None:
        name, self.name = self.name, None
        timing, rest = timing_of(line)
        schedule = schedule_of(timing, self.settings.get(ZONE, self.tz))
        user, rest = user_of(rest) if self.system else (None, rest)
        if not rest:
            raise _Misread(f"has no command; a line is: {'TIMES USER COMMAND' if self.system else 'TIMES COMMAND'}")
        if schedule is None:
            self.remarks.append(Remark(number, "note", f"{timing!r} names a day that does not exist: it never runs"))
            return
        if _LIKE_A_FIELD.match(rest):
            self.remarks.append(Remark(number, "note", f"the command is {rest!r}; times have five fields"))
        command, stdin = command_of(rest)
        title = title_of(command or rest) if name is None else name[1]
        self.lines.append(JobLine(number, title, schedule, command, stdin, user, self.settings))


# --- settings ------------------------------------------------------------------------------------------------------


def setting_of(line: str) -> tuple[str, str] | None:
    """Name and value of `NAME = value`, or None for a line that is none.

    >>> setting_of("A = one two  "), setting_of('B="  two "'), setting_of("* * * * * C=1 env")
    (('A', 'one two'), ('B', '  two '), None)
    """
    found = _SETTING.fullmatch(line)
    if found is not None:
        name = found["name"] or found["name_1"] or found["name_2"]
        return name, next(found[group] for group in ("value", "value_1", "value_2") if found[group] is not None)
    meant = _MEANT_AS_SETTING.fullmatch(line)
    if meant is None:
        return None
    if not meant["value"]:
        raise _Misread(f"an empty value is written with quotes: {line.rstrip('= ')}=''")
    raise _Misread("a value that begins with a quote ends with the same quote, and nothing follows it")


def timeout_of(value: str) -> timedelta | None:
    """A length of time in seconds; None, as long as it takes, for an empty one."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise _Misread(f"{TIMEOUT}={value}: must be a number of seconds above 0, or '' for no limit")
    return timedelta(seconds=seconds)


def overlap_of(value: str) -> Overlap:
    """What becomes of a time while the command of an earlier one still runs."""
    try:
        return Overlap(value)
    except ValueError:
        known = ", ".join(overlap.value for overlap in Overlap)
        raise _Misread(f"{OVERLAP}={value}: is not known; known are {known}") from None


def _check_zone(value: str) -> None:
    try:
        Cron("* * * * *", tz=value)
    except ScheduleError as error:
        raise _Misread(str(error)) from None


# --- times ---------------------------------------------------------------------------------------------------------


def timing_of(line: str) -> tuple[str, str]:
    """The `@word` or the five fields, and what follows them."""
    count = 1 if line.startswith("@") else 5
    parts = re.split(r"[ \t]+", line, maxsplit=count)
    if len(parts) < count or any(part.split() != [part] for part in parts[:count]):
        raise _Misread(f"is neither NAME=value nor five fields (minute hour day month weekday) and a command: {line!r}")
    return " ".join(parts[:count]), parts[count] if len(parts) > count else ""


def user_of(text: str) -> tuple[str, str]:
    """The user column and what follows it."""
    user, *rest = re.split(r"[ \t]+", text, maxsplit=1)
    return user, "".join(rest)


def schedule_of(timing: str, tz: str) -> Schedule | None:
    """When a line runs; None: never, because no such day exists."""
    try:
        return _joined_as_cron_does(timing, tz)
    except ScheduleError as error:
        if _names_a_day_that_never_comes(timing):
            return None
        raise _Misread(str(error)) from None


def _names_a_day_that_never_comes(timing: str) -> bool:
    """Whether it would run if the month were another one."""
    fields = timing.split()
    try:
        Cron(" ".join([*fields[:3], "*", *fields[4:]]))
        Cron(" ".join(["0", "0", "1", fields[3], "*"]))
    except (ScheduleError, IndexError):
        return False
    return True


def _joined_as_cron_does(timing: str, tz: str) -> Schedule:
    """The expression, but for two day fields of which one begins with a star: a day must then match both.

    `Cron` would take either, as cron itself does where there is no star.
    """
    fields = timing.split()
    if timing.lower() == "@reboot":
        return Reboot()
    if len(fields) != 5 or fields[2] in _EVERY or fields[4] in _EVERY:
        return Cron(timing, tz=tz)
    minute, hour, day, month, weekday = fields
    if not day.startswith("*") and not weekday.startswith("*"):
        every_day = _every_day(day) or _every_day(weekday)
        return Cron(f"{minute} {hour} * {month} *" if every_day else timing, tz=tz)
    named = {at.weekday() for at in Cron(f"0 0 * * {weekday}").upcoming(7, after=datetime(2026, 1, 1, tzinfo=UTC))}
    others = [name for index, name in enumerate(_WEEKDAYS) if index not in named]
    every = Cron(f"{minute} {hour} {day} {month} *", tz=tz)
    return every - Cron(f"* * * * {','.join(others)}", tz=tz) if others else every


def _every_day(days: str) -> bool:
    """Whether a list of days leaves none out."""
    return not _EVERY.isdisjoint(days.split(","))


# --- commands ------------------------------------------------------------------------------------------------------


def command_of(text: str) -> tuple[str, str]:
    r"""The command, and what it reads: an unescaped `%` ends the command, further ones are newlines.

    >>> command_of(r"date +\%H"), command_of("cat%one%two"), command_of("cat")
    (('date +%H', ''), ('cat', 'one\ntwo\n'), ('cat', ''))
    """
    end = _COMMAND.match(text)
    assert end is not None
    command = _ESCAPED.sub(r"\1", end[0])
    lines = (part.replace("\\%", "%") for part in re.split(r"(?<!\\)%", text[end.end() + 1 :]))
    stdin = "\n".join(lines)
    return command, stdin + "\n" if stdin and not stdin.endswith("\n") else stdin


def title_of(command: str, longest: int = LONGEST_TITLE) -> str:
    """A command as a name: on one line, printable, and not too long; what is cut off is told by a digest."""
    plain = "".join(sign if sign.isprintable() else "?" for sign in " ".join(command.split()))
    if len(plain) <= longest:
        return plain
    digest = hashlib.sha256(plain.encode(errors="surrogateescape")).hexdigest()[:6]
    return f"{plain[: longest - 8].rstrip()} …{digest}"
