"""Every error that Clepsydra raises on purpose.

One base, `ClepsydraError`, and a flat set below it; each also has the builtin parent that says what kind of error it is
(`ValueError`, `LookupError`, ...), composes its message from data and keeps that data as attributes. A message says
what came, what is wrong with it and what would be right, and never repeats more than a line of the caller's input.
"""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 80
"""How many characters of a caller's input a message repeats at most."""


def shown(value: object) -> str:
    """The value as a message may show it: its repr on one line, cut in the middle when it is long."""
    if isinstance(value, str | bytes) and len(value) > 2 * SHOWN:
        value = value[: 2 * SHOWN]
    try:
        text = repr(value)
    except Exception:  # a user's own __repr__ may raise; the message must still be made
        text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    if len(text) <= SHOWN:
        return text
    return f"{text[: SHOWN - 20]}...{text[-10:]}"


class ClepsydraError(Exception):
    """The base of every error of this library."""


class InvalidArgument(ClepsydraError, ValueError):
    """A value given to the public face cannot be used; nothing was changed."""

    def __init__(self, argument: str, value: object, expected: str) -> None:
        super().__init__(f"{argument}={shown(value)}: {expected}")
        self.argument = argument
        self.value = value
        self.expected = expected


class ScheduleError(ClepsydraError, ValueError):
    """A schedule cannot be used: malformed, out of range, ambiguous, or it can never fire."""


class DeclarationError(ClepsydraError, ValueError):
    """A file of declarations cannot be used: it is not there, no TOML, or says what cannot be. Nothing was changed."""


class UnknownTask(ClepsydraError, LookupError):
    """No task of this name or alias is registered with this scheduler."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(f"no task is called {shown(name)}; known tasks: {_listed(known)}")
        self.name = name


class JobNotFound(ClepsydraError, LookupError):
    """No job of this name is known to the scheduler."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(f"no job is called {shown(name)}; known jobs: {_listed(known)}")
        self.name = name


class JobExists(ClepsydraError, ValueError):
    """A job of this name is declared twice, or exists where only a new one was wanted."""

    def __init__(self, name: str, detail: str = "use replace=True to give it a new definition") -> None:
        super().__init__(f"a job called {shown(name)} exists already; {detail}")
        self.name = name


class ExecutionNotFound(ClepsydraError, LookupError):
    """The store has no execution of this id: it never had, or retention has deleted it."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(
            f"no execution has the id {shown(execution_id)}; retention may have deleted it, or the transaction that it "
            "was enqueued in is not committed"
        )
        self.execution_id = execution_id


class DuplicateKey(ClepsydraError, ValueError):
    """An unfinished execution with this key exists and the caller asked for an error."""

    def __init__(self, key: str, existing: str) -> None:
        super().__init__(
            f"key {shown(key)} is taken by the unfinished execution {existing}; on_conflict='keep' returns that one"
        )
        self.key = key
        self.existing = existing


class DuplicateId(ClepsydraError, ValueError):
    """A row with this id is in the store already and says something else."""

    def __init__(self, row_id: str) -> None:
        super().__init__(f"the id {shown(row_id)} is in the store already; ids are made once and never reused")
        self.row_id = row_id


class SchedulerNotRunning(ClepsydraError, RuntimeError):
    """The scheduler has not been entered yet, is shutting down, or has ended."""


class SchedulerFailed(ClepsydraError, RuntimeError):
    """The scheduler has ended because its restart budget is spent; `__cause__` is the last crash."""


class RestartLimitReached(ClepsydraError, RuntimeError):
    """A supervisor's child crashed more often than its restart intensity allows."""

    def __init__(self, child: str, crashes: int, within: float) -> None:
        super().__init__(f"{child} crashed {crashes} times within {within:g} s; the restart budget is spent")
        self.child = child
        self.crashes = crashes
        self.within = within


class StoreError(ClepsydraError):
    """The store could not do what was asked. `transient` says whether trying again can help."""

    transient = False

    def __init__(self, message: str, *, transient: bool | None = None) -> None:
        super().__init__(message)
        if transient is not None:
            self.transient = transient


class StoreUnavailable(StoreError):
    """The store cannot be reached or is busy with others just now; the call may be repeated."""

    transient = True


class StoreContended(StoreUnavailable):
    """Another node's transaction stood in the way for a moment. The next try will mostly do: it is no outage."""


class StoreBusy(StoreError, TimeoutError):
    """The store did not answer before the call's deadline; whether the change was made is not known yet."""

    transient = True


class StoreTooNew(StoreError):
    """The store was written by a newer version of Clepsydra than this one."""

    def __init__(self, found: int, known: int, where: str) -> None:
        super().__init__(
            f"{where} has schema version {found}, this version of clepsydra knows {known} at most; "
            "upgrade clepsydra or open another store"
        )
        self.found = found
        self.known = known


class StoreCorrupt(StoreError):
    """The store is not one of ours, or is damaged beyond a single row."""


class ExecutionFailed(ClepsydraError, RuntimeError):
    """Raised by `handle.result()` when the execution ended without success."""

    def __init__(self, execution_id: str, state: str, error: str | None) -> None:
        reason = (error or "no error text was recorded").strip().splitlines()[-1]
        super().__init__(f"execution {execution_id} is {state}: {reason}")
        self.execution_id = execution_id
        self.state = state
        self.error = error


class NodeLost(ClepsydraError, RuntimeError):
    """The node that ran an attempt died, and the execution has been recovered as often as it may be."""


class LeaseLost(ClepsydraError, RuntimeError):
    """A task wanted to finish its execution in its own transaction, and the execution is not its own any more."""

    def __init__(self, execution_id: str, why: str) -> None:
        super().__init__(f"execution {execution_id} is not this attempt's to finish: {why}; nothing is committed")
        self.execution_id = execution_id


class NotInExecution(ClepsydraError, RuntimeError):
    """`current_execution()` was called outside a task that a scheduler runs."""


def _listed(names: Iterable[str], most: int = 8) -> str:
    ordered = sorted(names)
    if not ordered:
        return "none"
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(shown(name) for name in ordered[:most]) + more
