"""Joining a caller's transaction: what a store can do on a connection that is not its own.

An app that keeps its data in the store's own database can have work and data commit together. The store then works on
the app's connection, in the app's transaction, with the same rules as everywhere else: `ledger.py` over the same
tables. Not every store can: the one in memory has no transactions, and an adapter of a user's need not have them.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeGuard, TypeVar, runtime_checkable

import anyio
import anyio.to_thread

from ..model.errors import StoreError
from ..model.execution import Outcome, State
from ..model.instants import Instant
from .enqueueing import Enqueueing
from .finishing import Finishing
from .protocol import AddResult, Finished, NewExecution

T = TypeVar("T")


class Connection(Protocol):
    """A connection with blocking methods: that of `sqlite3`, or psycopg's `Connection`."""

    def commit(self) -> None:
        """Commit the transaction that it is in."""
        ...


class AsyncConnection(Protocol):
    """A connection whose methods are awaited: psycopg's `AsyncConnection`."""

    def commit(self) -> Awaitable[None]:
        """Commit the transaction that it is in."""
        ...


class Joined(Protocol):
    """A store on a caller's connection, for the connection's thread; `in_thread` says what that is if it has none.

    What is added or finished here is the caller's to commit. A call that raises has changed nothing.
    """

    def add_executions(self, items: Sequence[NewExecution], now: Instant) -> Sequence[AddResult]:
        """As `ExecutionStorage.add_executions`, in the transaction that the connection is in, or as its beginning."""
        ...

    def mark(self) -> str:
        """What `JoinsTransactions.has_ended` knows the present transaction by."""
        ...

    def begin(self) -> None:
        """Begin the block that `commit` or `roll_back` ends; what the transaction did before belongs to it."""
        ...

    def finish_running(self, outcome: Outcome, now: Instant) -> Finished | None:
        """Record, inside the block, how a running attempt has ended. None: it does not run, or is somebody else's."""
        ...

    def commit(self) -> None:
        """Commit the whole transaction. Raises `StoreError` if somebody has ended it since `begin`."""
        ...

    def roll_back(self) -> None:
        """Undo the whole transaction."""
        ...


class JoinedLedger(Enqueueing, Finishing):
    """What the ledger does in a caller's transaction."""

    in_block = False
    """Between `begin` and its end."""

    def finish_running(self, outcome: Outcome, now: Instant) -> Finished | None:
        """`Joined.finish`: once. A repeat is refused, because the effect beside it would be repeated, too."""
        with self.transaction():
            row = self.executions_by_id([outcome.execution_id], lock=True).get(outcome.execution_id)
            if row is None or (row.state, row.attempt_id, row.node) != (
                State.RUNNING,
                outcome.attempt_id,
                outcome.node,
            ):
                return None
            return self.finish([outcome], now)


@runtime_checkable
class JoinsTransactions(Protocol):
    """A store that can join a transaction of its caller's."""

    def on_connection(self, connection: object) -> Joined:
        """This store on a connection of the caller's. Raises `InvalidArgument` if that leads somewhere else."""
        ...

    def has_ended(self, mark: str) -> bool:
        """Whether a transaction has been committed or rolled back; False when that cannot be told yet."""
        ...


def is_awaited(connection: object) -> TypeGuard[AsyncConnection]:
    """Whether the connection's methods are to be awaited."""
    return inspect.iscoroutinefunction(getattr(connection, "commit", None))


async def in_thread(call: Callable[[], T]) -> T:
    """Do something with a `Joined` on an awaited connection: in a thread, for which the loop says the statements.

    Once begun it is seen through: nobody would know what a call that is cut off has done.
    """
    answer: list[T] = []
    with anyio.CancelScope(shield=True):
        # A limiter of its own: the app's may be taken by those who wait for this connection.
        answer.append(await anyio.to_thread.run_sync(call, limiter=anyio.CapacityLimiter(1)))
    return answer[0]


def ended_inside(where: str) -> StoreError:
    """The error of a block whose transaction is not the one that it has begun."""
    return StoreError(
        f"{where}: the transaction was committed or rolled back inside the block; leave both to it, and begin no other "
        "inside"
    )


def joining(storage: object) -> JoinsTransactions:
    """The store, as one that can join transactions. Raises `StoreError` if it cannot."""
    if not isinstance(storage, JoinsTransactions):
        raise StoreError(
            f"{type(storage).__name__} cannot take part in a transaction of yours; give the scheduler a store that "
            "keeps its work in your database: SQLiteStorage(path), on the file that your connection is to, or "
            "PostgresStorage(dsn)"
        )
    return storage
