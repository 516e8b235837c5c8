"""Where the answer of a command goes: a terminal of some width, a pipe, or a program that wants JSON.

On a terminal tables are fitted and long answers go to a pager; a pipe gets whole lines, without colour. With `--json`
there is one document and nothing else. Times are shown in one zone, which is UTC unless `--tz` names another.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from .. import Instant, to_datetime
from .errors import CommandError, UsageError
from .tables import Cell, Column, fitted
from .words import SECOND, Paint, length, plural, width_of

_PAGER: Final = "less"


class Screen:
    """What a command answers to."""

    def __init__(self, arguments: argparse.Namespace, now: Instant) -> None:
        self.now = now
        self.as_json: bool = arguments.json
        self.zone = _zone(arguments.tz)
        self.zone_name: str = arguments.tz
        self.paint = Paint(sys.stdout)
        self._is_terminal = sys.stdout.isatty()
        self._paged: bool = self._is_terminal and sys.stdin.isatty() and not arguments.no_pager
        self.width = width_of(sys.stdout)

    # ---- answering

    def document(self, value: object) -> None:
        """One JSON document."""
        print(json.dumps(value, ensure_ascii=False, indent=2))

    def lines(self, lines: Iterable[str]) -> None:
        """Lines of text; by way of a pager where they are more than the terminal has."""
        told = list(lines)
        if self._paged and len(told) >= shutil.get_terminal_size().lines and self._page(told):
            return
        for line in told:
            print(line)

    def _page(self, lines: Sequence[str]) -> bool:
        """Whether there was a pager. That nobody reads to the end is no error."""
        command = shlex.split(os.environ.get("PAGER", _PAGER))
        if not command or shutil.which(command[0]) is None:
            return False
        environment = {"LESS": "FRSX", **os.environ}
        subprocess.run(command, input="\n".join(lines) + "\n", text=True, env=environment, check=False)
        return True

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], indent: str = "") -> list[str]:
        """A table that fits."""
        return fitted(columns, rows, self.width, self.paint, indent)

    def prose(self, lines: Iterable[str]) -> list[str]:
        """Sentences, folded between words where they are wider than the terminal."""
        width = self.width
        return list(lines) if width is None else [part for line in lines for part in textwrap.wrap(line, width) or [""]]

    # ---- moments

    def time(self, at: Instant | None) -> str:
        """A moment in eleven characters at most: the time today, the day and the time this year, else the date."""
        if at is None:
            return ""
        then, now = self.local(at), self.local(self.now)
        if then.date() == now.date():
            return f"{then:%H:%M:%S}"
        return f"{then:%m-%d %H:%M}" if then.year == now.year else f"{then:%Y-%m-%d}"

    def moment(self, at: Instant | None) -> str:
        """A moment in full, to the millisecond; with its offset where the zone has more than one."""
        if at is None:
            return ""
        moment = self.local(at)
        if self.zone_name == "UTC":
            moment = moment.replace(tzinfo=None)
        return moment.isoformat(" ", timespec="milliseconds" if at % SECOND else "seconds")

    def local(self, at: Instant) -> datetime:
        """A moment in the zone."""
        return to_datetime(at, self.zone)

    def away(self, at: Instant | None) -> str:
        """How far away a moment is: `in 3h 12m`, `4.2s ago`."""
        if at is None:
            return ""
        return f"in {length(at - self.now)}" if at > self.now else f"{length(self.now - at)} ago"


def _zone(tz: str) -> tzinfo:
    try:
        return ZoneInfo(tz)
    except (ValueError, OSError, LookupError):
        raise UsageError(f"--tz {tz!r} is no time zone; write it like Europe/Zurich or UTC") from None


def confirm(question: str, arguments: argparse.Namespace) -> None:
    """Ask before something is destroyed. Without a terminal to ask on, `--yes` has to say it."""
    if arguments.yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{question}: there is no terminal to ask on; give --yes to have it done")
    print(f"{question}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was changed")


def iso(at: Instant | datetime | None) -> str | None:
    """A moment as JSON has it: in UTC, to the microsecond where it has any."""
    if at is None:
        return None
    moment = at if isinstance(at, datetime) else to_datetime(at)
    return moment.astimezone(ZoneInfo("UTC")).isoformat().replace("+00:00", "Z")


def seconds(micros: int | None) -> float | None:
    """A length of time as JSON has it."""
    return None if micros is None else micros / SECOND


def page_hint(count: int, total: int | None, token: str | None, noun: str) -> list[str]:
    """What follows a page of a list."""
    told = plural(count, noun) if total in (None, count) else f"{count} of {plural(total or 0, noun)}"
    return [told] if token is None else [told, f"next page: --page {token}"]


def paged(items: list[Any], token: str | None, total: int | None = None) -> dict[str, Any]:
    """A page of a list as a document."""
    return {"items": items, "next_page": token} | ({} if total is None else {"total": total})
