"""Which jobs or executions are meant: frozen values that every store answers alike.

`None` means any; an empty collection means nothing; ranges are half open `[from, to)`; labels must all match, a label
with value None only has to exist. Conditions are joined by and.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias, TypeVar, cast

from attrs import field, frozen

from .errors import InvalidArgument
from .execution import FINISHED, UNFINISHED, UNSTARTED, Cause, Execution, Kind, State
from .instants import Instant, to_instant
from .job import JobRecord, JobState
from .payload import correlation_labels

Between: TypeAlias = tuple[Instant | None, Instant | None]
"""A half-open range; None at an end leaves it open. Filters also take aware datetimes."""

LabelFilter: TypeAlias = tuple[tuple[str, str | None], ...]

STATE_SETS: Mapping[str, frozenset[State]] = {
    "completed": frozenset((State.SUCCEEDED,)),
    "incomplete": UNFINISHED,
    "unstarted": UNSTARTED,
    "finished": FINISHED,
}
"""Words that stand for several states: Que's lists (with `failed`, which is a state), and two of our own."""

Member = TypeVar("Member", bound=StrEnum)


def _frozen_set(values: Iterable[str] | str | None) -> frozenset[str] | None:
    if values is None:
        return None
    return frozenset((values,)) if isinstance(values, str) else frozenset(values)


def _job_states(values: Iterable[JobState | str] | JobState | str | None) -> frozenset[JobState] | None:
    return _members("states", JobState, values, {})


def _states(values: Iterable[State | str] | State | str | None) -> frozenset[State] | None:
    return _members("states", State, values, STATE_SETS)


def _causes(values: Iterable[Cause | str] | Cause | str | None) -> frozenset[Cause] | None:
    return _members("causes", Cause, values, {})


def _kinds(values: Iterable[Kind | str] | Kind | str | None) -> frozenset[Kind] | None:
    return _members("verdicts", Kind, values, {})


def _members(
    argument: str, enum: type[Member], values: Iterable[str] | str | None, sets: Mapping[str, Collection[Member]]
) -> frozenset[Member] | None:
    """Members of an enum, from themselves, their words and the names of sets of them."""
    words = _frozen_set(values)
    if words is None:
        return None
    found = set[Member]()
    for word in words:
        if word in sets:
            found.update(sets[word])
            continue
        try:
            found.add(enum(word))
        except ValueError:
            known = ", ".join([*(member.value for member in enum), *sets])
            raise InvalidArgument(argument, word, f"must be among {known}") from None
    return frozenset(found)


def _label_pairs(labels: Mapping[str, str | None] | Iterable[tuple[str, str | None]]) -> LabelFilter:
    mapping = cast("Mapping[str, str | None]", labels) if isinstance(labels, Mapping) else None
    pairs = cast("Iterable[tuple[str, str | None]]", labels) if mapping is None else mapping.items()
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


def _between(value: tuple[Instant | datetime | None, Instant | datetime | None]) -> Between:
    if not isinstance(value, tuple) or len(value) != 2:
        raise InvalidArgument("range", value, "must be a pair (from, to), half open; None leaves an end open")
    return _instant(value[0]), _instant(value[1])


def _instant(value: Instant | datetime | None) -> Instant | None:
    return to_instant(value, "range") if isinstance(value, datetime) else value


@frozen
class JobFilter:
    """Which jobs."""

    ids: frozenset[str] | None = field(default=None, converter=_frozen_set)
    names: frozenset[str] | None = field(default=None, converter=_frozen_set)
    tasks: frozenset[str] | None = field(default=None, converter=_frozen_set)
    states: frozenset[JobState] | None = field(default=None, converter=_job_states)
    labels: LabelFilter = field(default=(), converter=_label_pairs)
    created: Between = field(default=(None, None), converter=_between)
    declared: bool | None = None

    def matches(self, record: JobRecord) -> bool:
        """Whether a job is meant."""
        return (
            _among(self.ids, record.id)
            and _among(self.names, record.name)
            and _among(self.tasks, record.job.work.task)
            and _among(self.states, record.state)
            and _labelled(self.labels, record.job.work.labels)
            and _within(self.created, record.created_at)
            and (self.declared is None or self.declared == record.declared)
        )


@frozen
class ExecutionFilter:
    """Which executions. `states` takes states and the names of sets of them: those in `STATE_SETS`."""

    ids: frozenset[str] | None = field(default=None, converter=_frozen_set)
    job_ids: frozenset[str] | None = field(default=None, converter=_frozen_set)
    jobs: frozenset[str] | None = field(default=None, converter=_frozen_set)
    """By the job's name."""
    tasks: frozenset[str] | None = field(default=None, converter=_frozen_set)
    queues: frozenset[str] | None = field(default=None, converter=_frozen_set)
    states: frozenset[State] | None = field(default=None, converter=_states)
    causes: frozenset[Cause] | None = field(default=None, converter=_causes)
    verdicts: frozenset[Kind] | None = field(default=None, converter=_kinds)
    keys: frozenset[str] | None = field(default=None, converter=_frozen_set)
    nodes: frozenset[str] | None = field(default=None, converter=_frozen_set)
    labels: LabelFilter = field(default=(), converter=_label_pairs)
    due: Between = field(default=(None, None), converter=_between)
    nominal: Between = field(default=(None, None), converter=_between)
    created: Between = field(default=(None, None), converter=_between)
    finished: Between = field(default=(None, None), converter=_between)
    group: str | None = None
    """The correlation group that `enqueue` was given. Kept as a label, and so in `labels` too."""
    correlation: str | None = None
    """The correlation id that `enqueue` was given; likewise."""

    def __attrs_post_init__(self) -> None:
        if self.group is not None or self.correlation is not None:
            own = correlation_labels(self.group, self.correlation)
            object.__setattr__(self, "labels", _label_pairs([*dict.fromkeys((*self.labels, *own.items()))]))

    def matches(self, row: Execution) -> bool:
        """Whether an execution is meant."""
        return (
            _among(self.ids, row.id)
            and _among(self.states, row.state)
            and _among(self.job_ids, row.job_id)
            and _among(self.jobs, row.job_name)
            and _among(self.tasks, row.work.task)
            and _among(self.queues, row.work.queue)
            and _among(self.causes, row.cause)
            and _among(self.verdicts, row.verdict)
            and _among(self.keys, row.key)
            and _among(self.nodes, row.node)
            and _labelled(self.labels, row.work.labels)
            and _within(self.due, row.due_at)
            and _within(self.nominal, row.nominal)
            and _within(self.created, row.created_at)
            and _within(self.finished, row.finished_at)
        )


class Order(StrEnum):
    """How a list is ordered; ties by id, ascending. Rows without the value (not finished) come last."""

    ID = "id"
    ID_DESC = "-id"
    DUE = "due"
    DUE_DESC = "-due"
    CREATED = "created"
    CREATED_DESC = "-created"
    FINISHED = "finished"
    FINISHED_DESC = "-finished"
    NAME = "name"
    """Jobs only."""
    NAME_DESC = "-name"


EVERY_JOB = JobFilter()
EVERY_EXECUTION = ExecutionFilter()


def _among(wanted: Collection[str] | None, value: str | None) -> bool:
    return wanted is None or value in wanted


def _within(between: Between, value: Instant | None) -> bool:
    first, end = between
    if first is None and end is None:
        return True
    return value is not None and (first is None or first <= value) and (end is None or value < end)


def _labelled(wanted: LabelFilter, labels: tuple[tuple[str, str], ...]) -> bool:
    if not wanted:
        return True
    has = dict(labels)
    return all(key in has and (value is None or has[key] == value) for key, value in wanted)
