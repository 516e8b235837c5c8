"""What is to come: whether a nominal time will run, as things stand, and what could stop it. Pure.

Knows a job as the store has it, and what this process knows of itself. An obstacle is certain when it stops the time
unless somebody does something; else it may.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from attrs import frozen

from ..model.algebra import Between, Difference, Union
from ..model.calendar import transitions
from ..model.cron import Cron
from ..model.execution import Execution, Kind, State
from ..model.explanation import Hindrance, Obstacle
from ..model.instants import DAY, SECOND, Instant, to_datetime
from ..model.job import Job, JobRecord, JobState
from ..model.overlap import Decision, judge
from ..model.schedule import BoundSchedule, Schedule, duration_in_words
from ..model.strategies import All, Candidate, Named, Node, NodeList, Random
from ..stages import misfire
from ..stages.misfire import Entry, due_of
from ..storage.protocol import TaskRoom, TaskRow

_MOST_COUNTED = 10_000


@frozen
class Here:
    """What a scheduler knows of itself."""

    node: Node
    alive: Sequence[Node]
    tasks: Collection[str]
    """The names that it has code for."""
    strategies: Collection[str] | None
    """None: nobody here can say, as with what its code declares."""
    declared: Collection[str] | None
    """The jobs that its code declares."""
    slots: Callable[[str], tuple[int | None, int | None]]
    """Of a queue: how many there are, and how many are free; None: nobody here can say."""
    task_room: Callable[[str], int | None]
    """How many more runs of a task may start; None: as many as its queue allows."""
    complaints: Sequence[str]
    """Why it is not well."""

    @property
    def is_outside(self) -> bool:
        """Whether it only looks on, and is no scheduler itself."""
        return not self.node.id

    @property
    def others(self) -> Sequence[Node]:
        """The nodes that are alive beside this one."""
        return [node for node in self.alive if node.id != self.node.id]


def seen_from_outside(nodes: Sequence[Node], tasks: Sequence[TaskRow]) -> Here:
    """What one knows who is no scheduler: which nodes there are, as far as the store can tell, and which tasks."""
    alive = [node for node in nodes if node.alive is not False]
    names = {name for task in tasks for name in (task.name, *task.aliases)}
    return Here(Node("", "", 0, 0), alive, names, None, None, lambda queue: (None, None), lambda task: None, ())


def room_of(task: str, rooms: Sequence[TaskRoom]) -> int | None:
    """How many more runs of a task there is room for; None: it has no limit of its own."""
    return min((one.room for one in rooms if task in one.names), default=None)


# ---- a nominal time


def obstacles_to_time(
    record: JobRecord, nominal: Instant, now: Instant, unfinished: Sequence[Execution], here: Here
) -> Iterator[Obstacle]:
    """What stops a time of a job that has no execution yet, or could."""
    job, bound = record.job, record.bind()
    yield from _of_the_job(record, here)
    if bound is not None and bound.driven_by == "time":
        if bound.is_excluded(nominal):
            yield Obstacle(Hindrance.EXCLUDED, "the schedule excludes it", True)
        yield from _of_the_limit(record, bound, nominal)
        yield from _of_lateness(record, bound, nominal, now)
    yield from _of_the_place(job, here)
    yield from obstacles_to_work(job.work.task, job.work.queue, here)
    yield from _of_overlap(job, unfinished)
    yield from _of_rules(job)
    if job.schedule is not None:
        yield from clock_changes(job.schedule, record.name, nominal)
    yield from (Obstacle(Hindrance.HEALTH, complaint) for complaint in here.complaints)


def _of_the_job(record: JobRecord, here: Here) -> Iterator[Obstacle]:
    because = f" ({record.reason})" if record.reason else ""
    if record.state is JobState.PAUSED:
        yield Obstacle(Hindrance.PAUSED, f"the job is paused{because}; resume_job() lets it fire again", True)
    elif record.state is JobState.STOPPED:
        yield Obstacle(Hindrance.STOPPED, f"the job is stopped{because}", True)
    if record.declared and here.declared is not None and record.name not in here.declared:
        what = "code declared the job earlier, and the code of this process does not: it does not fire it"
        yield Obstacle(Hindrance.UNDECLARED, what, not here.others)


def _of_the_limit(record: JobRecord, bound: BoundSchedule, nominal: Instant) -> Iterator[Obstacle]:
    limit = record.job.limit
    if limit is None:
        return
    left = limit - record.fired
    if left <= _MOST_COUNTED and _runs_between(bound, record.cursor, nominal, left + 1) > left:
        what = f"the job may fire {limit} times, has fired {record.fired} times, and will be finished before"
        yield Obstacle(Hindrance.LIMIT, what, True)


def _runs_between(bound: BoundSchedule, cursor: Instant, nominal: Instant, most: int) -> int:
    count, at = 0, bound.next_after(cursor)
    while at is not None and at <= nominal and count < most:
        count, at = count + 1, bound.next_after(at)
    return count


def _of_lateness(record: JobRecord, bound: BoundSchedule, nominal: Instant, now: Instant) -> Iterator[Obstacle]:
    """Of a time that is overdue already: what its misfire policy will make of it."""
    first = bound.next_after(record.cursor)
    if first is None or nominal > now or due_of(record.job, bound, nominal) > now or bound.is_excluded(nominal):
        return
    entry = Entry(record, bound, record.cursor, first, due_of(record.job, bound, first))
    fire = misfire.judge(entry, now, "asked")
    for span in fire.settled:
        if span.start <= nominal < span.end and span.kind is not Kind.EXCLUDED:
            what = f"it is overdue, and its misfire policy ({record.job.misfire.take}) makes it {span.kind.value}"
            yield Obstacle(Hindrance.MISFIRE, f"{what}: {span.reason}", True)
            return
    if fire.execution_id and fire.nominal < nominal:
        yield Obstacle(Hindrance.MISFIRE, "it is overdue, and earlier ones come first, one after another")


def _of_rules(job: Job) -> Iterator[Obstacle]:
    window = job.misfire.window
    if window is not None:
        what = f"it is missed if it has not started {_words(window)} after its time"
        yield Obstacle(Hindrance.MISFIRE, what)
    if job.misfire.take == "none":
        what = f"it is missed if no slot is free within {_words(job.misfire.grace)} of its being due"
        yield Obstacle(Hindrance.MISFIRE, what)
    if job.work.start_by is not None:
        what = f"it expires if it has not started {_words(job.work.start_by)} after it is due"
        yield Obstacle(Hindrance.START_BY, what)


def _of_overlap(job: Job, unfinished: Sequence[Execution]) -> Iterator[Obstacle]:
    held = sum(row.state is State.HELD for row in unfinished)
    running = [row for row in unfinished if row.occupies]
    decision = judge(job.overlap, job.max_running, len(running), held)
    becomes = {Decision.SKIP: "this one is skipped", Decision.HOLD: "this one is held until it has ended"}.get(decision)
    if becomes and running:
        since = running[0].first_started_at
        begun = "" if since is None else f" since {to_datetime(since)}"
        what = f"execution {running[0].id} has been running{begun}; if it still runs then, {becomes}"
        yield Obstacle(Hindrance.OVERLAP, f"{what} (overlap {job.overlap.value})")


# ---- where


def _of_the_place(job: Job, here: Here) -> Iterator[Obstacle]:
    run_on = job.run_on
    alive = ", ".join(sorted({node.name for node in here.alive})) or "none"
    if isinstance(run_on, Named) and here.strategies is not None and run_on.name not in here.strategies:
        what = f"no run strategy is registered here as {run_on.name!r}"
        yield Obstacle(Hindrance.NO_NODE, what, not here.others)
    elif isinstance(run_on, Random | NodeList) and not run_on.choose(Candidate("", job.name, None), here.alive):
        what = f"none of the nodes that it may run on, {', '.join(run_on.names)}, is alive; alive: {alive}"
        yield Obstacle(Hindrance.NO_NODE, what, True)
    elif isinstance(run_on, All) and (missing := set(run_on.names) - {node.name for node in here.alive}):
        what = f"it has no node for {', '.join(sorted(missing))}; alive: {alive}"
        yield Obstacle(Hindrance.NO_NODE, what, missing == set(run_on.names))


def obstacles_to_work(task: str, queue: str, here: Here) -> Iterator[Obstacle]:
    """What keeps work of a queue from starting here."""
    if here.is_outside and not here.alive:
        yield Obstacle(Hindrance.NO_NODE, "no scheduler is at work on this store", True)
    if here.is_outside and task not in here.tasks:
        yield Obstacle(Hindrance.NO_TASK, f"no scheduler has registered the task {task!r} with this store", True)
    elif task not in here.tasks:
        elsewhere = "; another node may have it" if here.others else ""
        what = f"this process has no code for the task {task!r}{elsewhere}"
        yield Obstacle(Hindrance.NO_TASK, what, not here.others)
    slots, free = here.slots(queue)
    if free == 0:
        yield Obstacle(Hindrance.QUEUE_FULL, f"all {slots} slots of queue {queue!r} are taken now; it would wait")
    if here.task_room(task) == 0:
        what = f"as many runs of the task {task!r} are under way as may be; it would wait"
        yield Obstacle(Hindrance.TASK_FULL, what)


def obstacles_to_start(row: Execution, now: Instant, here: Here) -> Iterator[Obstacle]:
    """What keeps an execution that waits from its next attempt."""
    yield from obstacles_to_work(row.work.task, row.work.queue, here)
    if row.target and row.target not in {node.id for node in here.alive}:
        yield Obstacle(Hindrance.NO_NODE, f"it is for node {row.target}, which is not alive")
    if row.state is State.HELD:
        yield Obstacle(Hindrance.OVERLAP, "it is held until an earlier run of its job has ended")
    if row.start_by is not None and row.first_started_at is None:
        what = f"it expires if it has not started by {to_datetime(row.start_by)}"
        yield Obstacle(Hindrance.START_BY, what, now > row.start_by)
    yield from (Obstacle(Hindrance.HEALTH, complaint) for complaint in here.complaints)


# ---- the clocks


def clock_changes(schedule: Schedule, name: str, *near: Instant) -> Iterator[Obstacle]:
    """Changes of the clocks that move, repeat or drop what the schedule names at one of these instants."""
    told: set[str] = set()
    for cron in crons_of(schedule):
        for change in transitions(cron.tz, min(near) - DAY, max(near) + DAY):
            fall = (change.offset_before - change.offset_after) * SECOND
            first, last = change.at - max(fall, 0), change.at + abs(fall)
            effect = cron.touched_by(change, name)
            if effect is not None and effect not in told and any(first <= at < last for at in near):
                told.add(effect)
                yield Obstacle(Hindrance.CLOCK_CHANGE, f"the clocks of {cron.tz} change: {effect}")


def crons_of(schedule: Schedule) -> Iterator[Cron]:
    """The crons that name the times of a schedule, wherever `|`, `-` and `between` have put them."""
    match schedule:
        case Cron():
            if schedule.driven_by == "time":
                yield schedule
        case Union():
            for member in schedule.members:
                yield from crons_of(member)
        case Difference():
            yield from crons_of(schedule.base)
        case Between():
            yield from crons_of(schedule.schedule)
        case _:
            return


def _words(micros: int) -> str:
    return duration_in_words(micros) or "0 seconds"
