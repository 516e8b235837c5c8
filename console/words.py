"""How the command line says things: lengths of time, moments, tables, and colour where a terminal wants it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TextIO

from .. import Instant, to_datetime

MILLISECOND, SECOND = 1_000, 1_000_000
_NAMES_AN_ERROR = re.compile(r"(?: +\| )?([A-Za-z_][\w.]*(?:: .*)?)")  # behind a bar inside an exception group
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def length(micros: int) -> str:
    """A length of time in its two largest units: `3h 12m`, `4.2s`, `12ms`.

    >>> length(11_520_000_000), length(4_200_000), length(12_345), length(678)
    ('3h 12m', '4.2s', '12ms', '0.7ms')
    """
    if micros < 10 * MILLISECOND:
        return f"{max(micros, 0) / MILLISECOND:.1f}ms"
    if micros < SECOND:
        return f"{micros // MILLISECOND}ms"
    if micros < 60 * SECOND:
        return f"{micros / SECOND:.3g}s" if micros < 59_950_000 else "1m"
    seconds = micros // SECOND
    parts: list[str] = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def stamp(at: Instant) -> str:
    """A moment as logs want it: UTC, to the millisecond.

    >>> stamp(1_800_000_000_123_456)
    '2027-01-15T08:00:00.123Z'
    """
    return f"{to_datetime(at).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def local_time(at: Instant) -> str:
    """The time of day on this machine's clock, to the millisecond."""
    return to_datetime(at).astimezone().strftime("%H:%M:%S.%f")[:-3]


def moment(at: datetime) -> str:
    """A moment with its offset, to the second or finer if it has more: `2027-03-28 03:00:00+02:00`."""
    fine = "milliseconds" if at.microsecond else "seconds"
    return at.isoformat(" ", timespec=fine)


def utc(at: datetime) -> str:
    """The same moment in UTC: `2027-03-28T01:00:00Z`."""
    fine = "milliseconds" if at.microsecond else "seconds"
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=fine)}Z"


def one_line(text: str | None) -> str:
    """What an error's text comes to: of a traceback the line that names the last error, of others the first line."""
    lines = [line for line in (text or "").splitlines() if line.strip()]
    traces = [number for number, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    if not traces:
        return lines[0].strip() if lines else ""
    named = (match[1] for line in lines[traces[-1] :] if (match := _NAMES_AN_ERROR.fullmatch(line)))
    return next(named, lines[-1].strip())


def value(text: str) -> str:
    """A value for a `key=value` line: quoted when it has spaces, quotes, or nothing at all."""
    plain = text.isprintable() and text and not any(sign in text for sign in " \"'=")
    return text if plain else json.dumps(text, ensure_ascii=False)


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its noun.

    >>> plural(1, "job"), plural(2, "job"), plural(0, "retry", "retries")
    ('1 job', '2 jobs', '0 retries')
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def table(rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset(), indent: str = "") -> list[str]:
    """Rows as aligned lines, two spaces between columns; the columns of `right` are aligned to the right."""
    lines = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in lines if column < len(row)) for column in range(max(map(len, lines)))]
    return [indent + "  ".join(_cells(row, widths, right)).rstrip() for row in lines]


def _cells(row: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> Iterable[str]:
    for column, (text, width) in enumerate(zip(row, widths, strict=False)):
        yield text.rjust(width) if column in right else text.ljust(width)


def width_of(stream: TextIO) -> int | None:
    """How many columns there are; None where it is no terminal, and everything fits."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


class Paint:
    """Colour, where it is wanted: on a terminal, and not when NO_COLOR is set (https://no-color.org)."""

    _CODES = {"red": "31", "green": "32", "yellow": "33", "grey": "90", "bold": "1"}  # noqa: RUF012 (constant)

    def __init__(self, stream: TextIO) -> None:
        self.wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def __call__(self, colour: str | None, text: str) -> str:
        """The text in that colour; as it is where there is none."""
        return f"\x1b[{self._CODES[colour]}m{text}\x1b[0m" if self.wanted and colour is not None else text
