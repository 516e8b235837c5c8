"""What happened, as lines, while it happens: telemetry events in, lines of text and a tally per job out.

One line for each run of a job or task, and one for whatever else an operator would ask about. A `Journal` only listens;
how a line looks is decided by who prints it: `plain` for logs, `watcher.py` has columns.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from attrs import define, field, frozen

from .. import Instant, Kind, State, events
from .words import SECOND, length, one_line, plural, stamp, value

_KEPT: Final = 10_000  # latenesses of a job that a summary looks at: the last hours of a per-second job


@frozen
class Entry:
    """A line of the journal, before it is text. What does not apply is None or empty."""

    at: Instant
    name: str
    """The job's, or the task's for enqueued work; empty for news of the scheduler itself."""
    happened: str
    """`succeeded`, `failed`, `retrying`, `skipped`, ... or what the news is about."""
    nominal: Instant | None = None
    late: int | None = None
    verdict: Kind | None = None
    took: int | None = None
    attempt: int = 1
    note: str = ""
    span: tuple[Instant, Instant] | None = None
    """From the first to the last of several nominal times that this line is about."""
    execution_id: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether an operator who reads only problems wants to see it."""
        return self.happened not in ("succeeded", "recovered", "pending")


@define
class Tally:
    """What was counted of one job or task."""

    runs: int = 0
    succeeded: int = 0
    failed: int = 0
    retries: int = 0
    skipped: int = 0
    late: deque[int] = field(factory=lambda: deque[int](maxlen=_KEPT))

    @property
    def late_median(self) -> int | None:
        """The median lateness of its starts."""
        return sorted(self.late)[(len(self.late) - 1) // 2] if self.late else None

    @property
    def late_most(self) -> int | None:
        """The greatest."""
        return max(self.late, default=None)


class Journal:
    """Listens to a scheduler: `scheduler.attach(journal.hear)`."""

    def __init__(self, write: Callable[[Entry], None]) -> None:
        self._write = write
        self._late: dict[tuple[str, int], int] = {}
        self.tallies: dict[str, Tally] = {}

    def hear(self, event: events.TelemetryEvent) -> None:
        """Count an event, and write its line if it has one."""
        match event:
            case events.ExecutionStarted():
                self._started(event)
            case events.ExecutionStopped():
                self._stopped(event)
            case events.ExecutionFailed():
                self._failed(event)
            case events.ExecutionSkipped():
                self._skipped(event)
            case events.ExecutionsMissed():
                self._write(_missed(event))
            case _:
                if (entry := _news(event)) is not None:
                    self._write(entry)

    def tally(self, name: str) -> Tally:
        """The tally of a job or a task."""
        return self.tallies.setdefault(name, Tally())

    def summary(self) -> str:
        """All tallies in one line."""
        counted = list(self.tallies.values())
        runs, failed = sum(tally.runs for tally in counted), sum(tally.failed for tally in counted)
        retries, skipped = sum(tally.retries for tally in counted), sum(tally.skipped for tally in counted)
        return f"{plural(runs, 'run')}, {failed} failed, {plural(retries, 'retry', 'retries')}, {skipped} skipped"

    def _started(self, event: events.ExecutionStarted) -> None:
        tally = self.tally(_name(event))
        self._late[event.execution_id, event.attempt] = event.late_by
        if event.attempt == 1:  # a retry is late on purpose
            tally.runs += 1
            tally.late.append(event.late_by)

    def _stopped(self, event: events.ExecutionStopped) -> None:
        self.tally(_name(event)).succeeded += event.state is State.SUCCEEDED
        self._write(self._ended(event, event.state.value, event.duration))

    def _failed(self, event: events.ExecutionFailed) -> None:
        tally = self.tally(_name(event))
        tally.retries += event.will_retry
        tally.failed += not event.will_retry
        happened = "retrying" if event.will_retry else "failed"
        self._write(self._ended(event, happened, event.duration, one_line(event.error) or event.kind.value))

    def _ended(self, event: events.ExecutionEvent, happened: str, took: int, note: str = "") -> Entry:
        return Entry(
            event.at,
            _name(event),
            happened,
            nominal=event.nominal,
            late=self._late.pop((event.execution_id, event.attempt), None),
            verdict=None if event.nominal is None else Kind.FIRED,
            took=took,
            attempt=event.attempt,
            note=note,
            execution_id=event.execution_id,
        )

    def _skipped(self, event: events.ExecutionSkipped) -> None:
        self.tally(_name(event)).skipped += 1
        self._write(
            Entry(
                event.at,
                _name(event),
                "skipped",
                nominal=event.nominal,
                verdict=event.kind,
                note=event.reason or "",
                execution_id=event.execution_id,
            )
        )


def _name(event: events.ExecutionEvent) -> str:
    return event.job or event.task or event.execution_id


def _missed(event: events.ExecutionsMissed) -> Entry:
    times = "" if event.count is None else plural(event.count, "time")
    return Entry(event.at, event.job, "not run", verdict=event.kind, note=times, span=(event.first, event.last))


def _news(event: events.TelemetryEvent) -> Entry | None:
    """What is told of jobs and of the machinery. None for what other lines say already."""
    match event:
        case events.JobParked():
            return Entry(event.at, event.job, "parked", note=event.reason)
        case events.JobUpdated():
            return (
                Entry(event.at, event.job, event.new_state.value, note=event.reason or "") if _turned(event) else None
            )
        case events.JobRemoved():
            return Entry(event.at, event.job, "removed")
        case events.OutcomeRefused():
            return Entry(event.at, _name(event), "refused", note="the store had given this attempt up")
        case events.HookFailed():
            return Entry(event.at, _name(event), "hook failed", note=f"{event.hook}: {one_line(event.error)}")
        case events.ThreadAbandoned():
            return Entry(
                event.at, _name(event), "abandoned", note=f"its thread runs on; {event.abandoned} such threads"
            )
        case events.StageRestarted():
            return Entry(
                event.at, "", "restarted", note=f"{event.stage}: {one_line(event.error) or 'with its neighbour'}"
            )
        case events.StoreDegraded():
            return Entry(event.at, "", "store lost", note=one_line(event.error))
        case events.StoreRecovered():
            return Entry(event.at, "", "recovered", note=f"the store answers again, after {length(event.outage)}")
        case events.RowQuarantined():
            return Entry(event.at, "", "set aside", note=f"{event.table} {event.row_id}: {event.reason}")
        case events.LoopBlocked():
            by = f" by {event.suspect}" if event.suspect else ""
            return Entry(event.at, "", "blocked", note=f"the event loop stood still for {length(event.duration)}{by}")
        case events.SelectorFailed():
            return Entry(event.at, "", "no node", note=f"strategy {event.strategy}: {one_line(event.error)}")
        case events.NodeDied():
            return Entry(event.at, "", "node died", note=f"{event.node}; {plural(event.recovered, 'run')} recovered")
        case _:
            return None


def _turned(event: events.JobUpdated) -> bool:
    return event.old_state is not event.new_state


def plain(entry: Entry) -> str:
    """An entry as a line for logs: time, then `key=value`."""
    facts: dict[str, str | None] = {
        "job": entry.name or None,
        "nominal": None if entry.nominal is None else stamp(entry.nominal),
        "late": None if entry.late is None else f"{entry.late / SECOND:.3f}s",
        "verdict": entry.verdict,
        "state": entry.happened,
        "took": None if entry.took is None else f"{entry.took / SECOND:.3f}s",
        "attempt": str(entry.attempt) if entry.attempt > 1 or entry.happened == "retrying" else None,
        "from": None if entry.span is None else stamp(entry.span[0]),
        "to": None if entry.span is None else stamp(entry.span[1]),
        "note": entry.note or None,
    }
    return " ".join([stamp(entry.at), *(f"{key}={value(fact)}" for key, fact in facts.items() if fact is not None)])


def as_json(entry: Entry) -> str:
    """An entry as a line of JSON: the same keys, lengths of time in seconds."""
    return json_line(
        {
            "time": stamp(entry.at),
            "job": entry.name or None,
            "nominal": None if entry.nominal is None else stamp(entry.nominal),
            "late": None if entry.late is None else entry.late / SECOND,
            "verdict": entry.verdict,
            "state": entry.happened,
            "took": None if entry.took is None else entry.took / SECOND,
            "attempt": entry.attempt,
            "from": None if entry.span is None else stamp(entry.span[0]),
            "to": None if entry.span is None else stamp(entry.span[1]),
            "note": entry.note or None,
            "execution": entry.execution_id or None,
        }
    )


def json_line(facts: Mapping[str, object]) -> str:
    """Facts as a line of JSON, without those that are None."""
    return json.dumps({key: fact for key, fact in facts.items() if fact is not None}, ensure_ascii=False)
