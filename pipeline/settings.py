"""The settings of every stage, with their defaults, checked when they are made.

Each stage has its own: how many items its channel holds, how many it handles between two waits, how often it may crash;
concurrency where it means something. The job and execution broadcasters have none, because order is what they keep:
one. Durations are `timedelta` or seconds. `docs/reference/settings.md` has the table of all defaults; a test compares
it with this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, cast

from attrs import Attribute, field, frozen

from ..model.errors import InvalidArgument
from ..model.instants import DAY, to_micros, to_timedelta
from ..model.job import check_name
from ..model.policies import count_of
from .supervisor import Intensity

MOST_IN_A_BATCH = 64
"""Law 6: never more than so many items between two checkpoints."""


def _length(value: timedelta | float) -> timedelta:
    """Seconds become a `timedelta`; what is neither is left for the validator, which knows the setting's name."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return to_timedelta(to_micros(value))
    return value  # type: ignore[return-value, unused-ignore]


def _optional_length(value: timedelta | float | None) -> timedelta | None:
    return None if value is None else _length(value)


def _at_least(seconds: float, *, optional: bool = False) -> Callable[[object, Attribute[Any], Any], None]:
    def check(_: object, setting: Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        if not isinstance(value, timedelta) or value < timedelta(seconds=seconds):
            raise InvalidArgument(setting.name, value, f"must be a timedelta or seconds, at least {seconds:g} s")

    return check


def _whole(*, most: int | None = None, optional: bool = False) -> Callable[[object, Attribute[Any], Any], None]:
    def check(_: object, setting: Attribute[Any], value: Any) -> None:
        if not (optional and value is None):
            count_of(setting.name, most=most)(value)

    return check


def _check_queues(_: object, setting: Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping):
        raise InvalidArgument(setting.name, value, "must map names of queues to their concurrency")
    for name, number in cast(Mapping[object, object], value).items():
        check_name(name, setting.name)
        count_of(f"{setting.name}[{name!r}]")(number)


@frozen(kw_only=True)
class StageSettings:
    """What every stage has."""

    buffer: int = field(default=1024, validator=_whole())
    """Items that its inbox holds before the stage above has to wait."""
    batch: int = field(default=MOST_IN_A_BATCH, validator=_whole(most=MOST_IN_A_BATCH))
    """Items that it handles between two waits."""
    restarts: Intensity = field(factory=Intensity)
    """How often it may crash within how long before the scheduler gives up."""

    @property
    def batches(self) -> int:
        """The capacity of its channel in batches."""
        return max(1, self.buffer // self.batch)


@frozen(kw_only=True)
class BroadcasterSettings(StageSettings):
    """The execution broadcaster's."""

    wait_cap: timedelta = field(default=timedelta(seconds=30), converter=_length, validator=_at_least(0.001))
    """The longest sleep: a suspended host or a stepped clock is noticed after at most this."""
    poll: timedelta = field(default=timedelta(seconds=1), converter=_length, validator=_at_least(0.01))
    """How often a store that other processes share is looked at for what they have put there."""


@frozen(kw_only=True)
class SelectorSettings(StageSettings):
    """The node selector's."""

    concurrency: int = field(default=16, validator=_whole())
    """How many choices of strategies that await may be under way at once."""


@frozen(kw_only=True)
class ExecutorSettings(StageSettings):
    """The executor's."""

    concurrency: int = field(default=64, validator=_whole())
    """Tasks that run at once in each queue without a number of its own."""
    queues: Mapping[str, int] = field(factory=dict, validator=_check_queues)
    """Concurrency by queue."""
    limit: int | None = field(default=None, validator=_whole(optional=True))
    """Tasks that run at once in all queues together; None: only the queues limit. A full queue may then stand in
    others' way.
    """
    threads: int = field(default=64, validator=_whole())
    """Threads for plain `def` tasks."""
    abandoned_threads: int = field(default=16, validator=_whole())
    """Threads that ignore their deadline before the scheduler calls itself degraded."""
    hook_grace: timedelta = field(default=timedelta(seconds=5), converter=_length, validator=_at_least(0.01))
    """How long each of a task's hooks may take at the end of an attempt."""


@frozen(kw_only=True)
class Stages:
    """All settings of a scheduler."""

    job_broadcaster: StageSettings = field(factory=StageSettings)
    execution_broadcaster: BroadcasterSettings = field(factory=BroadcasterSettings)
    node_selector: SelectorSettings = field(factory=SelectorSettings)
    executor: ExecutorSettings = field(factory=ExecutorSettings)
    call_deadline: timedelta = field(default=timedelta(seconds=30), converter=_length, validator=_at_least(0.01))
    """After so long a call to the store is taken for hung, and its connection is discarded."""
    command_deadline: timedelta = field(default=timedelta(seconds=10), converter=_length, validator=_at_least(0.01))
    """How long a command waits for the store before it raises `StoreBusy`."""
    lease: timedelta = field(default=timedelta(seconds=15), converter=_length, validator=_at_least(0.03))
    """A node that could not say for so long that it is alive stops claiming, and others take it for dead."""
    heartbeat: timedelta = field(default=timedelta(seconds=5), converter=_length, validator=_at_least(0.01))
    """How often it says so; at most a third of the lease."""
    grace: timedelta = field(default=timedelta(seconds=30), converter=_length, validator=_at_least(0))
    """How long running tasks may go on at a shutdown before they are cancelled."""
    retention: timedelta | None = field(
        default=to_timedelta(7 * DAY), converter=_optional_length, validator=_at_least(1, optional=True)
    )
    """How long finished executions and verdicts are kept in a file or database; None: for ever."""
    sweep: timedelta = field(default=timedelta(minutes=1), converter=_length, validator=_at_least(0.01))
    """How often history is swept."""
    loop_blocked: timedelta | None = field(
        default=timedelta(milliseconds=500), converter=_optional_length, validator=_at_least(0.01, optional=True)
    )
    """A task that holds the event loop for so long is named by the watchdog; None: no watchdog."""

    def __attrs_post_init__(self) -> None:
        if self.heartbeat * 3 > self.lease:
            raise InvalidArgument("heartbeat", self.heartbeat, f"must be at most a third of the lease, {self.lease}")
        for name in ("job_broadcaster", "execution_broadcaster", "node_selector", "executor"):
            if not isinstance(getattr(self, name), StageSettings):
                raise InvalidArgument(name, getattr(self, name), "must be settings of that stage")


DEFAULTS = Stages()
