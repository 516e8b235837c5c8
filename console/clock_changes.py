"""Which changes of the clocks touch a schedule. Pure.

Crons stand in a schedule wherever `|`, `-` and `between` have put them; its JSON form is the one public view of that,
so it is read here. Schedules that are not driven by a wall clock are not touched by anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from attrs import frozen

from .. import Cron, Instant, Schedule, Transition, to_datetime, to_instant, transitions


@frozen
class Part:
    """A cron inside a schedule: from when to when it counts, and whether it names times that are left out."""

    cron: Cron
    start: Instant
    end: Instant
    excludes: bool = False


@frozen
class ClockChange:
    """A change of a zone's offset that touches a schedule."""

    at: Instant
    tz: str
    offsets: tuple[int, int]
    """Before and after, in seconds east of UTC."""
    effect: str
    """In words, with the date."""

    @property
    def first_affected(self) -> Instant:
        """From here on times of the schedule may be touched: a fold begins before its change."""
        before, after = self.offsets
        return self.at - max(0, before - after) * 1_000_000

    def describe(self) -> str:
        """What the clocks do: `clocks go from 02:00 to 03:00`."""
        was, now = (_wall(self.at, offset) for offset in self.offsets)
        return f"{self.tz} clocks go {'forward' if self.offsets[1] > self.offsets[0] else 'back'} from {was} to {now}"


def _wall(at: Instant, offset: int) -> str:
    return f"{to_datetime(at) + timedelta(seconds=offset):%H:%M}"


def clock_changes(schedule: Schedule, start: datetime, end: datetime, name: str = "") -> list[ClockChange]:
    """The changes in `[start, end)` that touch a schedule of a job of this name, in order."""
    found = {
        change: None
        for part in parts(schedule.to_json(), to_instant(start), to_instant(end))
        for change in _of(part, name)
    }
    return sorted(found, key=lambda change: change.at)


def parts(data: Mapping[str, Any], start: Instant, end: Instant, excludes: bool = False) -> Iterator[Part]:
    """The crons in the JSON form of a schedule."""
    match data.get("kind"):
        case "cron":
            yield Part(Cron.from_json(data), start, end, excludes)
        case "union":
            for member in data["members"]:
                yield from parts(member, start, end, excludes)
        case "difference":
            yield from parts(data["of"], start, end, excludes)
            yield from parts(data["without"], start, end, not excludes)
        case "between":
            first = max(start, _instant(data["start"], start))
            yield from parts(data["of"], first, min(end, _instant(data["end"], end)), excludes)
        case _:
            return


def _instant(text: str | None, otherwise: Instant) -> Instant:
    return otherwise if text is None else to_instant(datetime.fromisoformat(text))


def _of(part: Part, name: str) -> Iterator[ClockChange]:
    cron = part.cron
    for transition in transitions(cron.tz, part.start, part.end) if part.start < part.end else ():
        if (effect := cron.touched_by(transition, name)) is not None:
            yield _change(transition, cron.tz, f"the exclusion's {effect}" if part.excludes else effect)


def _change(transition: Transition, tz: str, effect: str) -> ClockChange:
    return ClockChange(transition.at, tz, (transition.offset_before, transition.offset_after), effect)
