"""The live screen as lines of styled text: what is known of a scheduler in, a frame of exactly so many lines out. Pure.

Colours are the sixteen that a terminal names itself, so that light and dark ones both show them as their owner likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from attrs import frozen
from rich.cells import cell_len
from rich.text import Text

from .. import Instant, Kind
from .journal import Entry
from .words import SECOND, length, local_time, plural

Mode: TypeAlias = Literal["overview", "search", "job"]

_WIDE: Final = 110
"""Columns from which two lists stand beside each other."""
_BAR: Final = 10
_COLOURS: Final = {
    "succeeded": "green",
    "failed": "red",
    "retrying": "yellow",
    "skipped": "yellow",
    "not run": "yellow",
    "cancelled": "yellow",
    "store lost": "red",
    "restarted": "red",
    "node died": "red",
    "blocked": "red",
}
_STATUS: Final = {"ok": "bold green", "degraded": "bold yellow", "failed": "bold red", "stopped": "bold"}
_NAMES: Final[tuple[dict[str, str], ...]] = (
    {"execution_broadcaster": "execution broadcaster", "node_selector": "node selector"},
    {"execution_broadcaster": "broadcaster", "node_selector": "selector", "commands": "cmds", "running": "run"},
    {
        "commands": "cmd",
        "execution_broadcaster": "bcast",
        "node_selector": "select",
        "executor": "exec",
        "running": "run",
    },
)
"""Of the vessels, where there is room for them, where there is less, and where there is hardly any."""
_KEYS: Final[dict[Mode, str]] = {
    "overview": "↑↓ choose  enter look  / find  p pause  r resume  n run now  q drain and quit",
    "search": "type a part of a name  ↑↓ choose  enter look  esc back",
    "job": "p pause  r resume  n run now  esc back  q drain and quit",
}


@frozen
class Vessel:
    """A vessel of the chain and how full it is."""

    name: str
    waiting: int
    capacity: int | None
    oldest: float = 0.0
    """Seconds."""


@frozen
class Queue:
    """A queue's slots."""

    name: str
    busy: int
    slots: int
    credit: int


@frozen
class JobLook:
    """What is shown of one job."""

    name: str
    facts: Sequence[tuple[str, str]]
    upcoming: Sequence[Instant] = ()
    runs: Sequence[Entry] = ()
    """The last ones, the latest first."""
    trace: Sequence[str] = ()
    """The last lines of its last failure."""


@frozen
class Look:
    """All that a frame shows."""

    now: Instant
    node: str
    store: str
    since: Instant
    status: str
    reasons: Sequence[str] = ()
    jobs: int = 0
    counted: str = ""
    """What has happened since the start, in words."""
    vessels: Sequence[Vessel] = ()
    queues: Sequence[Queue] = ()
    due: Sequence[tuple[Instant, str]] = ()
    recent: Sequence[Entry] = ()
    failures: Sequence[Entry] = ()
    said: Sequence[str] = ()
    """The last lines of the log."""
    mode: Mode = "overview"
    chosen: int = 0
    sought: str = ""
    found: Sequence[str] = ()
    job: JobLook | None = None
    message: str = ""
    draining: str = ""


def frame(look: Look, width: int, height: int) -> list[Text]:
    """The lines of the screen, each at most so wide."""
    lines = [*_head(look, width)]
    room = max(0, height - len(lines) - 1)
    match look.mode:
        case "search":
            lines += _search(look, width, room)
        case "job" if look.job is not None:
            lines += _job(look.job, look.now, width, room)
        case _:
            lines += _overview(look, width, room)
    lines = [_fitted(line, width) for line in lines[: height - 1]]
    lines += [Text() for _ in range(height - 1 - len(lines))]
    return [*lines, _fitted(_foot(look), width)]


# --- the parts ------------------------------------------------------------------------------------------------------


def _head(look: Look, width: int) -> Iterator[Text]:
    left = Text.assemble(
        ("clepsydra ", "bold"), f"{look.node}  ", (look.store, "dim"), f"  up {length(look.now - look.since)}"
    )
    right = Text(f"{plural(look.jobs, 'job')}  ").append(look.status, _STATUS.get(look.status, "bold"))
    yield _apart(left, right, width)
    if look.draining:
        yield Text(f"  {look.draining}", "bold yellow")
        return
    for reason in look.reasons[:3]:
        yield Text(f"  {_clean(reason)}", "yellow")


def _overview(look: Look, width: int, room: int) -> Iterator[Text]:
    yield from _vessels(look, width)
    yield from _queues(look.queues, width)
    room -= 2 + min(len(look.queues), 4)
    failures = min(len(look.failures), max(2, room // 5))
    said = min(len(look.said), 2)
    lists = room - (failures + 1 if failures else 0) - (said + 1 if said else 0)
    if width >= _WIDE:
        half = width // 2 - 1
        left = _due(look, half, lists)
        right = _recent(look.recent, width - half - 2, lists, look.counted)
        yield from _beside(left, right, half)
    else:
        upper = min(len(look.due) + 1, max(3, lists // 2))
        yield from _due(look, width, upper)
        yield from _recent(look.recent, width, lists - upper, look.counted)
    if failures:
        yield _title("failures", width)
        for entry in look.failures[:failures]:
            yield Text.assemble(
                f"  {local_time(entry.at)[:8]} ", (entry.name, "bold"), (f"  {_clean(entry.note)}", "red")
            )
    if said:
        yield _title("log", width)
        for line in look.said[-said:]:
            yield Text(f"  {_clean(line)}", "dim")


def _vessels(look: Look, width: int) -> Iterator[Text]:
    """The chain, from its top to its end, in one line; with less of its names where that is too long."""
    yield _title("vessels", width)
    lines = [_chain(look.vessels, names) for names in _NAMES]
    yield next((line for line in lines if cell_len(line.plain) <= width), lines[-1])


def _chain(vessels: Sequence[Vessel], names: Mapping[str, str]) -> Text:
    line = Text("  ")
    for number, vessel in enumerate(vessels):
        line.append(" → " if number else "", "dim").append(f"{names.get(vessel.name, vessel.name)} ")
        line.append(_level(vessel), "bold yellow" if _is_full(vessel) else "bold")
        if vessel.waiting and vessel.oldest >= 0.1:
            line.append(f" {length(round(vessel.oldest * SECOND))}", "yellow")
    return line


def _level(vessel: Vessel) -> str:
    return f"{vessel.waiting}" if vessel.capacity is None else f"{vessel.waiting}/{vessel.capacity}"


def _is_full(vessel: Vessel) -> bool:
    return vessel.capacity is not None and vessel.waiting >= vessel.capacity


def _queues(queues: Sequence[Queue], width: int) -> Iterator[Text]:
    name_width = max((cell_len(queue.name) for queue in queues), default=0)
    for number, queue in enumerate(queues[:4]):
        filled = -(-_BAR * min(queue.busy, queue.slots) // queue.slots)
        line = Text("  ").append(queue.name.ljust(min(name_width, 24)))
        line.append(f"  {'█' * filled}", "yellow" if queue.busy >= queue.slots else "green").append(
            "░" * (_BAR - filled), "dim"
        )
        line.append(f"  {queue.busy}/{queue.slots} slots, credit {queue.credit}")
        if number == 3 and len(queues) > 4:
            line.append(f"  and {plural(len(queues) - 4, 'more queue')}", "dim")
        yield line


def _due(look: Look, width: int, room: int) -> Iterator[Text]:
    yield _title("due next", width)
    for number, (due, name) in enumerate(look.due[: room - 1]):
        yield _choice(Text(f"{_countdown(due - look.now):>10}  ").append(name), number == look.chosen)
    if not look.due:
        yield Text("  nothing", "dim")


def _recent(entries: Sequence[Entry], width: int, room: int, counted: str) -> Iterator[Text]:
    yield _title(f"just ran: {counted}" if counted else "just ran", width)
    yield from _runs(entries[: room - 1], width)


def _runs(entries: Sequence[Entry], width: int) -> Iterator[Text]:
    """Columns: when, whose, how late, what became of it, how long it took, and what there is to say."""
    names = min(max((cell_len(entry.name) for entry in entries), default=0), width // 3)
    for entry in entries:
        name = Text(entry.name or "scheduler", "bold")
        name.truncate(names, overflow="ellipsis", pad=True)
        late = "" if entry.late is None else f"+{length(entry.late)}"
        took = "" if entry.took is None else length(entry.took)
        line = Text(f"  {local_time(entry.at)[:8]}  ").append_text(name)
        line.append(f"  {late:>7}", "yellow" if (entry.late or 0) > SECOND else "dim")
        line.append(f"  {_word(entry):<9}", _COLOURS.get(entry.happened, "")).append(f"  {took:>7}", "dim")
        yield line.append(f"  {_clean(entry.note)}", "dim") if entry.note else line


def _word(entry: Entry) -> str:
    """What became of it, in a word."""
    return entry.happened if entry.verdict in (None, Kind.FIRED) else entry.verdict.value.replace("_", " ")


def _search(look: Look, width: int, room: int) -> Iterator[Text]:
    yield _title(f"jobs with {look.sought!r} in their name" if look.sought else "all jobs", width)
    yield Text("  / ", "bold").append(look.sought).append("▏", "blink")
    first = max(0, look.chosen - (room - 4))
    for number, name in enumerate(look.found[first : first + room - 3], first):
        yield _choice(Text(name), number == look.chosen)
    if not look.found:
        yield Text("  none", "dim")


def _job(job: JobLook, now: Instant, width: int, room: int) -> Iterator[Text]:
    yield _title(job.name, width)
    label_width = max((len(label) for label, _ in job.facts), default=0)
    for label, fact in job.facts:
        yield Text(f"  {label.ljust(label_width)}  ", "dim").append(_clean(fact), "")
    used = 1 + len(job.facts)
    if job.upcoming:
        yield _title("next", width)
        for due in job.upcoming[:5]:
            yield Text(f"{_countdown(due - now):>10}  ").append(f"{local_time(due)[:8]}", "dim")
        used += 1 + min(5, len(job.upcoming))
    trace = job.trace[-6:]
    yield _title("last runs", width)
    yield from _runs(job.runs[: max(1, room - used - 1 - (len(trace) + 1 if trace else 0))], width)
    if not job.runs:
        yield Text("  none that the store remembers", "dim")
    if trace:
        yield _title("last failure", width)
        for line in trace:
            yield Text(f"  {_clean(line, strip=False)}", "red")


def _foot(look: Look) -> Text:
    if look.message:
        return Text(f" {_clean(look.message)}", "reverse")
    return Text(f" {_KEYS[look.mode]}", "dim")


# --- lines ----------------------------------------------------------------------------------------------------------


def _title(text: str, width: int) -> Text:
    line = Text("─ ", "dim").append(_clean(text), "bold").append(" ")
    return line.append("─" * max(0, width - cell_len(line.plain)), "dim")


def _choice(line: Text, chosen: bool) -> Text:
    return Text.assemble(("▸ ", "bold cyan") if chosen else "  ", line)


def _countdown(micros: int) -> str:
    """How long it is until then, to the second."""
    if micros <= 0:
        return f"late {length(-micros)}" if micros < -SECOND else "now"
    seconds = -(-micros // SECOND)
    return f"in {length(seconds * SECOND)}"


def _apart(left: Text, right: Text, width: int) -> Text:
    """One at the left edge, one at the right."""
    room = width - cell_len(right.plain) - 1
    left = left.copy()
    left.truncate(max(room, 0), overflow="ellipsis", pad=True)
    return Text.assemble(left, " ", right)


def _beside(left: Iterable[Text], right: Iterable[Text], width: int) -> Iterator[Text]:
    """Two lists, the left one so wide."""
    first, second = list(left), list(right)
    for number in range(max(len(first), len(second))):
        line = first[number].copy() if number < len(first) else Text()
        line.truncate(width, overflow="ellipsis", pad=True)
        yield Text.assemble(line, "  ", second[number] if number < len(second) else "")


def _fitted(line: Text, width: int) -> Text:
    line = line.copy()
    line.truncate(width, overflow="ellipsis")
    return line


def _clean(text: str, *, strip: bool = True) -> str:
    """The text with nothing in it that a terminal would obey."""
    text = " ".join(text.split()) if strip else text.expandtabs(4)
    return "".join(sign if sign.isprintable() else "?" for sign in text)
