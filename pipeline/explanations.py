"""The answers of `explain`: from the rows that were read to data and to sentences. Pure.

An answer first says which time or execution it speaks of, then what became of it, then where the time went; of what is
to come, whether it will run and what could stop it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from attrs import evolve

from ..model.execution import FINISHED, Cause, Execution, Kind, Range, State
from ..model.explanation import Explanation, Hindrance, Obstacle, Phase, Try, Vessel, Wait
from ..model.instants import SECOND, Instant, to_datetime, to_timedelta
from ..model.job import JobRecord
from ..model.schedule import duration_in_words, zone_info
from ..model.strategies import Node
from ..stages.misfire import due_of
from .explaining import Looked, Told, latest_named
from .prospects import Here, clock_changes, obstacles_to_start, obstacles_to_time
from .spent_time import tries_of, waits_of

_MEANING: Mapping[Kind, str] = {
    Kind.COALESCED: "a later time ran for it",
    Kind.MISSED: "it was too late for its misfire policy",
    Kind.PAUSED: "the job was paused",
    Kind.EXCLUDED: "the schedule excludes it",
    Kind.OVERLAP_SKIPPED: "its job was busy with an earlier run",
    Kind.SUPERSEDED: "the job was given another schedule before it started",
    Kind.REMOVED: "the job was removed before it started",
    Kind.CANCELLED: "it was cancelled, or its job stopped, before it started",
    Kind.EXPIRED: "its start_by had passed before it started",
    Kind.NO_NODE: "there was no node to run it",
}
_CAUSES: Mapping[Cause, str] = {
    Cause.SCHEDULE: "by its schedule",
    Cause.MANUAL: "run by hand",
    Cause.ENQUEUE: "enqueued",
    Cause.IMMEDIATE: "the first run of a new job",
}
_ENDED: Mapping[str, str] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "retry": "failed",
    "cancelled": "was cancelled",
    "snoozed": "asked to be called again later",
    "given_back": "was given back: interrupted by a shutdown, or not begun in time",
    "lost": "was lost with its node",
    "running": "is running",
}


# ---- a nominal time


def explain_time(looked: Looked, here: Here) -> Explanation:
    """Why a nominal time ran, or did not, or what will become of it."""
    nominal = looked.nominal
    common = Explanation(
        job=looked.name,
        asked=to_datetime(looked.asked),
        nominal=None if nominal is None else to_datetime(nominal),
        phase=Phase.OUTSIDE,
    )
    if nominal is None:
        return _outside(common, looked)
    if looked.executions:
        first, *others = (_of_told(told, looked.now, here, looked.zone) for told in looked.executions)
        its = f"Its execution is {first.execution_id}."
        told = evolve(first, asked=common.asked, others=others, sentences=[its, *first.sentences])
    elif looked.span is not None:
        told = _settled(common, looked)
    elif looked.page is not None and nominal < looked.page.horizon:
        told = evolve(common, sentences=[_retention(looked, looked.page.horizon)])
    elif looked.record is not None and nominal > looked.record.cursor:
        told = _undecided(common, looked, here)
    else:
        told = evolve(common, sentences=["Nothing accounts for it, which should never be: verify() looks for more."])
    told = _introduced(_not_named(told, looked), looked)
    return evolve(told, others=[*told.others, *(explain_time(life, here) for life in looked.earlier)])


def _introduced(told: Explanation, looked: Looked) -> Explanation:
    """Say first which time is explained, and at last what the clocks have to do with it."""
    zone = looked.zone
    nominal = looked.nominal or looked.asked
    first = f"Job {looked.name!r}, nominal time {_at(nominal, zone)}"
    if nominal != looked.asked:
        first += f", the last one up to {_at(looked.asked, zone)}"
    changes = [each for each in told.obstacles if each.kind is Hindrance.CLOCK_CHANGE]
    if looked.epoch is not None and not changes:
        changes = list(clock_changes(looked.epoch.schedule, looked.name, nominal, looked.asked))
        told = evolve(told, obstacles=[*told.obstacles, *changes])
    last = [f"{_sentence(change.what)}" for change in changes]
    return evolve(told, sentences=[f"{first}.", *told.sentences, *last])


def _outside(common: Explanation, looked: Looked) -> Explanation:
    """The name has no time so early, or none that a calendar names."""
    record, zone = looked.record, looked.zone
    if record is None:
        why = "the job is gone, and none of its times is remembered"
    elif record.schedule is None or record.schedule.driven_by != "time":
        why = "no calendar names its times, and it has not run up to then"
    else:
        why = f"it was added at {_at(record.created_at, zone)} and owes nothing for times before"
    first = f"Job {looked.name!r} has no time up to {_at(looked.asked, zone)}: {why}."
    return _not_named(evolve(common, sentences=[first]), looked)


def _not_named(told: Explanation, looked: Looked) -> Explanation:
    """Of a time to come that the schedule does not name."""
    if not looked.names_none:
        return told
    obstacle = _why_none(looked)
    will_run = False if obstacle.certain else None
    first = "Nothing runs at the time that was asked for" if obstacle.certain else "Of the time that was asked for"
    sentences = [*told.sentences, f"{first}: {obstacle.what}."]
    return evolve(told, will_run=will_run, obstacles=[*told.obstacles, obstacle], sentences=sentences)


def _why_none(looked: Looked) -> Obstacle:
    record, zone = looked.record, looked.zone
    if record is None:
        return Obstacle(Hindrance.REMOVED, "the job was removed", True)
    bound = record.bind()
    if bound is None:
        return Obstacle(Hindrance.NO_SCHEDULE, "the job has no schedule, and runs by run_job() only", True)
    if bound.driven_by != "time":
        return _event_driven(record)
    following = bound.next_after(looked.asked)
    if following is None:
        what = f"the schedule names no time after {_at(looked.nominal or looked.now, zone)}"
        return Obstacle(Hindrance.BOUNDS, what, True)
    what = f"the schedule names no time from now up to then; the next one is {_at(following, zone)}"
    return Obstacle(Hindrance.NOT_SCHEDULED, what, True)


def _event_driven(record: JobRecord) -> Obstacle:
    described = record.schedule.describe() if record.schedule else ""
    return Obstacle(Hindrance.NO_SCHEDULE, f"its next time is named by an event, not by a calendar: {described}")


def _retention(looked: Looked, horizon: Instant) -> str:
    return (
        f"What became of it is not remembered: retention keeps the history of the job from "
        f"{_at(horizon, looked.zone)} on."
    )


def _settled(common: Explanation, looked: Looked) -> Explanation:
    """It is one of a run of times that were settled together."""
    span = looked.span
    assert span is not None
    zone = looked.zone
    because = f" ({span.reason})" if span.reason and span.reason != _MEANING[span.kind] else ""
    sentences = [f"It did not run: {_MEANING.get(span.kind, span.kind.value)}{because}."]
    first, last = _ends(looked, span)
    if last > first:
        sentences.append(
            f"It was settled together with all {span.kind.value} times from {_at(first, zone)} to {_at(last, zone)}."
        )
    if looked.stood_in is not None:
        sentences.append(f"The run of {_at(looked.stood_in, zone)} stood for it.")
    return evolve(common, phase=Phase.SETTLED, kind=span.kind, reason=span.reason, sentences=sentences)


def _ends(looked: Looked, span: Range) -> tuple[Instant, Instant]:
    """The first and the last time that a range holds."""
    epoch = looked.epoch
    bound = None if epoch is None else epoch.schedule.bind(epoch.job_id, epoch.name, epoch.anchor)
    if bound is None or bound.driven_by != "time":
        return span.start, span.end - 1
    first = next(iter(bound.times(span.start, span.end)), span.start)
    return first, latest_named(bound, span.end - 1) or first


# ---- what is to come


def _undecided(common: Explanation, looked: Looked, here: Here) -> Explanation:
    """It has no execution yet, and no verdict."""
    record, nominal, now = looked.record, looked.nominal, looked.now
    assert record is not None
    assert nominal is not None
    bound = record.bind()
    due = nominal if bound is None else due_of(record.job, bound, nominal)
    obstacles = list(obstacles_to_time(record, nominal, now, looked.unfinished, here))
    will_run = not any(obstacle.certain for obstacle in obstacles)
    overdue = due <= now
    zone = looked.zone
    if overdue:
        first = f"It was due at {_at(due, zone)}, {_length(now - due)} ago, and nothing is decided about it yet."
    else:
        first = f"It is due at {_at(due, zone)}, in {_length(due - now)}."
    return evolve(
        common,
        phase=Phase.OVERDUE if overdue else Phase.TO_COME,
        task=record.job.work.task,
        queue=record.job.work.queue,
        due=to_datetime(due),
        late_by=to_timedelta(now - due) if overdue else None,
        waits=[Wait(Vessel.TIMELINE, to_datetime(due), None, to_timedelta(now - due))] if overdue else (),
        slots=here.slots(record.job.work.queue)[0],
        will_run=will_run,
        obstacles=obstacles,
        sentences=[first, *_prospects(obstacles, will_run)],
    )


def _prospects(obstacles: Sequence[Obstacle], will_run: bool) -> Iterator[str]:
    certain = [obstacle.what for obstacle in obstacles if obstacle.certain]
    if will_run:
        yield "As things stand it will run."
    else:
        yield f"As things stand it will not run: {'; '.join(certain)}."
    possible = [o.what for o in obstacles if not o.certain and o.kind is not Hindrance.CLOCK_CHANGE]
    if possible:
        yield f"What could stop or delay it: {'; '.join(possible)}."


# ---- an execution


def explain_execution(told: Told, now: Instant, here: Here) -> Explanation:
    """Why an execution ran, ran late, or did not; and what it waits for."""
    row = told.row
    of = f"Execution {row.id}, of {f'job {row.job_name!r}' if row.job_name else f'task {row.work.task!r}'}"
    when = _CAUSES[row.cause] if row.nominal is None else f"nominal time {_at(row.nominal)}"
    answer = _of_told(told, now, here, "UTC")
    return evolve(answer, sentences=[f"{of}, {when}.", *answer.sentences])


def _of_told(told: Told, now: Instant, here: Here, zone: str) -> Explanation:
    row = told.row
    waits = [_explained(wait, told, zone) for wait in waits_of(row, told.past, now)]
    tries = tries_of(row, told.past)
    obstacles = [] if row.finished or row.state is State.RUNNING else list(obstacles_to_start(row, now, here))
    answer = Explanation(
        job=row.job_name,
        nominal=row.nominal_time,
        phase=_phase(row),
        kind=row.verdict,
        reason=row.reason,
        state=row.state,
        execution_id=row.id,
        task=row.work.task,
        queue=row.work.queue,
        target=row.target or None,
        due=row.due,
        fired=row.created_time,
        started=None if row.first_started_at is None else to_datetime(row.first_started_at),
        ended=row.finished_time,
        ready=to_datetime(row.not_before) if _phase(row) is Phase.WAITING and row.not_before > now else None,
        late_by=_late_by(row, now),
        waits=waits,
        tries=tries,
        node=next((each.node for each in reversed(tries) if each.node), None),
        slots=here.slots(row.work.queue)[0],
        will_run=None if _phase(row) is not Phase.WAITING else not any(each.certain for each in obstacles),
        obstacles=obstacles,
    )
    return evolve(answer, sentences=list(_sentences(answer, told, zone)))


def _phase(row: Execution) -> Phase:
    if row.state in FINISHED:
        return Phase.SETTLED
    return Phase.RUNNING if row.state is State.RUNNING else Phase.WAITING


def _late_by(row: Execution, now: Instant) -> timedelta | None:
    if row.first_started_at is not None:
        return to_timedelta(max(row.first_started_at - row.due_at, 0))
    return None if row.finished or row.due_at > now else to_timedelta(now - row.due_at)


def _explained(wait: Wait, told: Told, zone: str) -> Wait:
    """What is known of the reason."""
    match wait.vessel:
        case Vessel.TIMELINE:
            return evolve(wait, why=_why_unfired(told, zone))
        case Vessel.QUEUE if told.busy and wait.length >= timedelta(seconds=1):
            return evolve(wait, why=_busy(told))
        case _:
            return wait


def _why_unfired(told: Told, zone: str) -> str:
    due = told.row.due_at
    if told.nodes and all(node.started_at > due for node in told.nodes):
        first = min(told.nodes, key=lambda node: node.started_at)
        return f"of the nodes that are known none ran then; {first.name} was started at {_at(first.started_at, zone)}"
    if told.busy:
        return _busy(told)
    return "the rows do not say why: a suspended host, a clock that was set, or a store that did not answer"


def _busy(told: Told) -> str:
    if told.busy == 1:
        return f"another execution of queue {told.row.work.queue!r} was running when it was due"
    return f"{told.busy} others of queue {told.row.work.queue!r} were running when it was due"


# ---- sentences


def _sentences(answer: Explanation, told: Told, zone: str) -> Iterator[str]:
    row = told.row
    if row.target:
        yield f"It is for {_node(row.target, told.nodes)}."
    yield _became(row)
    if told.stood_in is not None:
        yield f"The run of {_at(told.stood_in, zone)} stood for it."
    yield _started(row, told.nodes, zone)
    for wait in answer.waits:
        if wait.length >= timedelta(milliseconds=1):
            yield _waited(wait, row, zone)
    if len(answer.tries) > 1 or any(each.error for each in answer.tries):
        yield from (_tried(each, told.nodes) for each in answer.tries)
    if answer.ready is not None:
        yield f"It is ready to start at {_shown(answer.ready, zone)}."
    if answer.will_run is not None:
        yield from _prospects(answer.obstacles, answer.will_run)


def _became(row: Execution) -> str:
    because = f": {row.reason}" if row.reason else ""
    if row.verdict not in (None, Kind.FIRED):
        meaning = _MEANING.get(row.verdict, row.verdict.value)
        return f"It did not run: {meaning}{f' ({row.reason})' if row.reason else ''}."
    match row.state:
        case State.RUNNING:
            return "It is running."
        case State.HELD:
            return "It has not started: its job's overlap policy holds it."
        case State.PLACING:
            return "It has not started: no node has been chosen for it yet."
        case State.PENDING:
            again = "waits for its next attempt" if row.first_started_at is not None else "has not started"
            return f"It {again}."
        case State.EXPIRED | State.SKIPPED:
            return f"It did not run{because}."
        case _:
            return f"It {'ran, and ' if row.first_started_at is not None else ''}{_ENDED[row.state.value]}{because}."


def _started(row: Execution, nodes: Sequence[Node], zone: str) -> str:
    due = f"It was due at {_at(row.due_at, zone)}"
    if row.first_started_at is None:
        made = row.created_at
        ended = f", and was settled at {_at(row.finished_at, zone)}" if row.finished_at is not None else ""
        return f"{due}, its execution was made at {_at(made, zone)}{ended}."
    late = row.first_started_at - row.due_at
    how = "on time" if late < SECOND // 1000 else f"{_length(late)} late"
    where = f" on {_node(row.node, nodes)}" if row.node and row.attempt_id == row.id else ""
    return f"{due}, and started {how}, at {_at(row.first_started_at, zone)}{where}, in queue {row.work.queue!r}."


def _waited(wait: Wait, row: Execution, zone: str) -> str:
    length = _length(wait.length // timedelta(microseconds=1))
    still = " so far" if wait.until is None else ""
    what = {
        Vessel.JITTER: "between its nominal time and its being due: the job's jitter",
        Vessel.DELAY: "until it was due, as was asked for",
        Vessel.TIMELINE: "in the timeline, due and not fired",
        Vessel.PLACING: "for the node selector",
        Vessel.HELD: "held by its job's overlap policy",
        Vessel.QUEUE: f"in queue {row.work.queue!r} for a slot",
        Vessel.RETRY: "between attempts: its backoff",
        Vessel.SNOOZE: "as its task had asked: a snooze",
        Vessel.ENDED: "as ended, until it was given another try",
    }[wait.vessel]
    until = "" if wait.until is None else f", until {_shown(wait.until, zone)}"
    return f"It waited {length}{still} {what}{until}{f': {wait.why}' if wait.why else ''}."


def _tried(one: Try, nodes: Sequence[Node]) -> str:
    ran = ""
    if one.started is not None and one.ended is not None:
        ran = f" ran {_length((one.ended - one.started) // timedelta(microseconds=1))} and"
    where = f" on {_node(one.node, nodes)}" if one.node else ""
    error = f": {one.error.strip().splitlines()[-1]}" if one.error and one.error.strip() else ""
    return f"Attempt {one.number}{where}{ran} {_ENDED.get(one.ending, one.ending)}{error}."


def _node(node_id: str | None, nodes: Sequence[Node]) -> str:
    name = next((node.name for node in nodes if node.id == node_id), None)
    return f"node {node_id}" if name is None else f"node {name} ({node_id})"


def _at(instant: Instant, zone: str = "UTC") -> str:
    return _shown(to_datetime(instant), zone)


def _shown(at: datetime, zone: str) -> str:
    return at.astimezone(zone_info(zone)).isoformat(" ", "milliseconds" if at.microsecond else "seconds")


def _length(micros: int) -> str:
    if micros > SECOND:
        micros -= micros % 1000
    return duration_in_words(micros) or "0 seconds"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
