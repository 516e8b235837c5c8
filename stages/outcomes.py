"""What an attempt has come to: from a value, an error or a stop to the `Outcome` that the store records.

Functions of their arguments, but for the ids they make and a backoff that a task brings along. Whatever a task
does, there is an outcome: what it returns may not be JSON, what it raises may be no `Exception`, and the text of its
error may hold anything. Nothing here runs, waits or counts; who asked a task to stop, and whether it noticed, is
decided by the pool.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any

from attrs import define, field, frozen

from ..model.errors import UnknownTask
from ..model.events import FailureKind
from ..model.execution import Ending, Outcome, State
from ..model.instants import LAST, SECOND, Instant, Micros, to_micros
from ..model.payload import encode
from ..model.policies import Recovery, TimeoutFrom
from ..model.signals import Cancel, Snooze
from ..model.task import Task
from ..storage.protocol import Claim

log = logging.getLogger("clepsydra.pool")

_SUCCEEDED = Ending.SUCCEEDED  # looked up once: in the hot path a member of an enum costs as much as a call

FAILED = frozenset((Ending.FAILED, Ending.RETRY))
"""The endings of an attempt that has failed."""

LONGEST_ERROR = 64 * 1024
"""Bytes of an error's text that are kept: the last ones, which name the error."""

DEEPEST_TRACEBACK = 100
"""Frames of a traceback that are kept: the last ones."""


class StopKind(StrEnum):
    """Why a run was asked to stop."""

    CANCEL = "cancel"
    """Somebody cancelled the execution, or its lease is lost."""
    TIMEOUT = "timeout"
    INTERRUPT = "interrupt"
    """The pool ends: the attempt is not at fault."""


@frozen
class Stop:
    """A run was asked to stop."""

    kind: StopKind
    reason: str = ""


TIMED_OUT = Stop(StopKind.TIMEOUT)
INTERRUPTED = Stop(StopKind.INTERRUPT, "interrupted by a shutdown; with recovery='fail' it is not run again")


@frozen
class OutcomeMaker:
    """Makes the outcomes of one node."""

    node: str
    make_id: Callable[[], str]
    tasks: Mapping[str, Task[..., Any]] = field(factory=dict[str, Task[..., Any]])

    def returned(self, claim: Claim, value: object, at: Instant) -> Outcome:
        """It gave a value."""
        if value is None:
            alone = claim.job_id is None
            # By position, as nearly every outcome is made here: a name costs a third more.
            return Outcome(claim.execution_id, claim.attempt_id, self.node, _SUCCEEDED, at, None, None, "", 0, alone)
        if isinstance(value, Snooze | Cancel):
            return self._signalled(claim, value, at)
        try:
            result = encode(value, "result")
        except Exception as error:  # also what a Mapping of the user's raises while it is read
            return self.failed(claim, error, at)
        return self._outcome(claim, _SUCCEEDED, at, result=result)

    def raised(self, claim: Claim, error: BaseException, at: Instant) -> Outcome:
        """It raised, by itself."""
        signal = alone(error)
        if isinstance(signal, Snooze | Cancel):
            return self._signalled(claim, signal, at)
        return self.failed(claim, error, at)

    def stopped(self, claim: Claim, stop: Stop, at: Instant, error: BaseException | None = None) -> Outcome:
        """It was asked to stop, and has; `error` is what came out of it."""
        match stop.kind:
            case StopKind.CANCEL:
                return self._outcome(claim, Ending.CANCELLED, at, storable(stop.reason))
            case StopKind.TIMEOUT:
                return self.failed(claim, timed_out(claim, error), at)
            case StopKind.INTERRUPT:
                if claim.work.recovery is Recovery.FAIL:
                    return self._outcome(claim, Ending.FAILED, at, stop.reason)
                return self.given_back(claim, at)

    def failed(self, claim: Claim, error: BaseException, at: Instant) -> Outcome:
        """It failed; its retry policy says whether it is tried again."""
        # Ids are random: the jitter of a scheduled run hangs on its time instead, so that a simulation repeats.
        seed = claim.execution_id if claim.nominal is None else f"{claim.job_name}:{claim.nominal}"
        retry = claim.work.retry
        if not retry.goes_on(claim.attempt, error):
            return self._outcome(claim, Ending.FAILED, at, error_text(error))
        own = self._own_delay(claim, error)
        not_before = at + (retry.delay(claim.attempt, seed) if own is None else own)
        deadline = deadline_of(claim)
        if deadline is not None and not_before >= deadline:
            why = f"no further try: it could not begin within {_seconds(claim)} of {_base(claim)}"
            return self._outcome(claim, Ending.FAILED, at, f"{error_text(error)}\n{why}")
        return self._follow(claim, Ending.RETRY, at, not_before, error_text(error))

    def _own_delay(self, claim: Claim, error: BaseException) -> Micros | None:
        """The wait before the next try by the task's own backoff, if it has one that works."""
        task = self.tasks.get(claim.work.task)
        if task is None or task.backoff is None:
            return None
        try:
            delay = to_micros(task.backoff(claim.attempt, error), "backoff")
            if delay >= 0:
                return delay
            log.error("the backoff of %r is negative after try %d; its retry policy's is used", task, claim.attempt)
        except (Exception, SystemExit) as failure:
            log.error("the backoff of %r fails; its retry policy's is used", task, exc_info=failure)
        return None

    def given_back(self, claim: Claim, at: Instant) -> Outcome:
        """Somebody else shall run it, at once."""
        return self._follow(claim, Ending.GIVEN_BACK, at, at)

    def unbegun(self, claim: Claim, at: Instant) -> Outcome:
        """The same of what was not begun: its `start_by` is judged again."""
        outcome = self.given_back(claim, at)
        outcome.unbegun = True
        return outcome

    def withdrawn(self, claim: Claim, ending: Ending, at: Instant, reason: str) -> Outcome:
        """It was not begun."""
        if ending is Ending.GIVEN_BACK:
            return self.unbegun(claim, at)
        return self._outcome(claim, ending, at, storable(reason))

    def _signalled(self, claim: Claim, signal: Snooze | Cancel, at: Instant) -> Outcome:
        if isinstance(signal, Cancel):
            return self._outcome(claim, Ending.CANCELLED, at, storable(signal.reason))
        return self._follow(claim, Ending.SNOOZED, at, at + signal.micros)

    def _outcome(
        self, claim: Claim, ending: Ending, at: Instant, error: str | None = None, result: str | None = None
    ) -> Outcome:
        alone = claim.job_id is None
        return Outcome(claim.execution_id, claim.attempt_id, self.node, ending, at, result, error, alone=alone)

    def _follow(
        self, claim: Claim, ending: Ending, at: Instant, not_before: Instant, error: str | None = None
    ) -> Outcome:
        follower, waits_until = self.make_id(), min(not_before, LAST)
        return Outcome(claim.execution_id, claim.attempt_id, self.node, ending, at, None, error, follower, waits_until)


def timed_out(claim: Claim, error: BaseException | None = None) -> TimeoutError:
    """The error of an attempt that took too long; its traceback is that of where the task stood."""
    since = "" if deadline_of(claim) is None else f", counted from {_base(claim)}"
    late = TimeoutError(f"timed out after {_seconds(claim)}{since}")
    return late.with_traceback(None if error is None else error.__traceback__)


def deadline_of(claim: Claim) -> Instant | None:
    """When all attempts must be over, where the timeout is counted from the nominal time."""
    work = claim.work
    if work.timeout is None or work.timeout_from is not TimeoutFrom.NOMINAL:
        return None
    return (claim.due_at if claim.nominal is None else claim.nominal) + work.timeout


def _seconds(claim: Claim) -> str:
    return f"{(claim.work.timeout or 0) / SECOND:g} s"


def _base(claim: Claim) -> str:
    return "when it was due" if claim.nominal is None else "its nominal time"


@define
class Conclusion:
    """What an attempt with hooks has come to, before those at its end are called."""

    outcome: Outcome
    result: object
    error: BaseException | None
    """What it has failed with."""
    hook: str = ""
    """The one that a thread has just called."""


def why_unstorable(value: object) -> Exception | None:
    """Why a result is none."""
    try:
        encode(value, "result")
    except Exception as error:  # also what a Mapping of the user's raises while it is read
        return error
    return None


def failure_kind(error: BaseException | None, stop: Stop | None, cancelled: type[BaseException]) -> FailureKind:
    """What a failed attempt failed with; `cancelled` is the event loop's own class for it."""
    if stop is not None and stop.kind is StopKind.TIMEOUT:
        return FailureKind.TIMEOUT
    if stop is not None or is_cancellation(error, cancelled):
        return FailureKind.CANCELLED
    if isinstance(error, SystemExit):
        return FailureKind.EXIT
    if isinstance(error, UnknownTask):
        return FailureKind.UNKNOWN_TASK
    return FailureKind.EXCEPTION


def state_after(ending: Ending) -> State:
    """The state of an execution whose attempt ended so, once that is recorded."""
    match ending:
        case Ending.SUCCEEDED:
            return State.SUCCEEDED
        case Ending.FAILED:
            return State.FAILED
        case Ending.CANCELLED:
            return State.CANCELLED
        case Ending.RETRY | Ending.SNOOZED | Ending.GIVEN_BACK:
            return State.PENDING


def is_cancellation(error: BaseException | None, cancelled: type[BaseException]) -> bool:
    """Whether this is a cancellation and nothing else: task groups wrap them together with true errors."""
    members = _members(error)
    return all(is_cancellation(each, cancelled) for each in members) if members else isinstance(error, cancelled)


def interrupt_in(error: BaseException | None) -> KeyboardInterrupt | None:
    """The KeyboardInterrupt that this is, or has in it."""
    if isinstance(error, KeyboardInterrupt):
        return error
    return next((found for each in _members(error) if (found := interrupt_in(each)) is not None), None)


def alone(error: BaseException) -> BaseException:
    """The error itself: task groups wrap even a single one into a group."""
    while len(members := _members(error)) == 1:
        (error,) = members
    return error


def _members(error: BaseException | None) -> tuple[BaseException, ...]:
    """The errors in a group; of any other error none."""
    members: Any = getattr(error, "exceptions", ())
    return members if isinstance(error, BaseExceptionGroup) else ()


def error_text(error: BaseException) -> str:
    """The error with its traceback from the task's own first line on, as text that every store can keep."""
    try:
        lines = traceback.format_exception(
            type(error), error, _beyond_this_package(error.__traceback__), limit=-DEEPEST_TRACEBACK
        )
        text = "".join(lines).rstrip("\n")
    except Exception:  # an exception's own methods are the user's code too
        text = f"{type(error).__module__}.{type(error).__qualname__}: its text cannot be made"
    return storable(text)


def storable(text: str) -> str:
    """The text without what a database may refuse (NUL, lone surrogates), and only its end if it is long."""
    data = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace")
    if len(data) > LONGEST_ERROR:
        data = data[-LONGEST_ERROR:]
    return data.decode("utf-8", "ignore")


def _beyond_this_package(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_globals.get("__package__") == __package__:
        trace = trace.tb_next
    return trace
