"""`clepsydra executions`, `history`, `execution`, `cancel`, `retry`: what operators see and do of executions."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from .. import Attempt, Execution, ExecutionFilter, Instant, Operator, Order, State
from .arguments import AddCommand
from .documents import late_by, of_attempt, of_execution, took
from .errors import OK, UsageError
from .screen import Screen, confirm, page_hint, paged
from .store_jobs import STATE_COLOURS, add_paging, described, reason_of
from .stores import Does, add_store_command, add_yes
from .tables import Cell, Column, harmless
from .times import add_filters, filter_of, says_which
from .words import length, plural

_ORDERS: Final = [order.value for order in Order if "name" not in order.value]
_BAR: Final = 30
_ENDED: Final[Mapping[str, str]] = {"retry": "failed", "given_back": "given back", "lost": "lost with its node"}


# ---- lists


def add_executions(add: AddCommand) -> None:
    """`clepsydra executions`."""
    command = add_store_command(
        add,
        "executions",
        _list("id", "incomplete", _of_waiting),
        "list what runs and what waits to run",
        "With --state, also what has ended.",
    )
    _add_list(command, "id")


def add_history(add: AddCommand) -> None:
    """`clepsydra history`."""
    command = add_store_command(
        add,
        "history",
        _list("-finished", "finished", _of_ended),
        "list what has ended, the latest first",
        "What became of nominal times that never ran, 'verdicts' tells.",
    )
    _add_list(command, "-finished")


def _add_list(command: argparse.ArgumentParser, order: str) -> None:
    add_filters(command)
    command.add_argument("--order", choices=_ORDERS, metavar="ORDER", help=f"{', '.join(_ORDERS)} (default: {order})")
    add_paging(command)
    command.add_argument("--count", action="store_true", help="only how many there are")


def _list(order: str, states: str, table: Callable[[Screen, Sequence[Execution]], list[str]]) -> Does:
    def does(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
        where = filter_of(arguments, screen, states=states)
        if arguments.count:
            return _count(operator.count_executions(where), screen)
        page = operator.executions(
            where, order=arguments.order or order, limit=arguments.limit, cursor=arguments.page, total=True
        )
        if screen.as_json:
            screen.document(paged([of_execution(row) for row in page.items], page.cursor, page.total))
            return OK
        hint = page_hint(len(page.items), page.total, page.cursor, "execution")
        screen.lines([*table(screen, page.items), "", *hint])
        return OK

    return does


def _count(count: int, screen: Screen) -> int:
    if screen.as_json:
        screen.document({"total": count})
    else:
        print(count)
    return OK


def _of_waiting(screen: Screen, rows: Sequence[Execution]) -> list[str]:
    columns = (
        Column("EXECUTION"),
        Column("STATE"),
        Column("OF", least=10),
        Column(f"DUE ({screen.zone_name})", least=11),
        Column("", rank=3, right=True),
        Column("TRY", rank=4, right=True),
        Column("QUEUE", least=7, rank=5),
        Column("NODE", least=8, rank=7),
        Column("WHY", least=10, rank=6),
    )
    return screen.table(columns, [_waiting(screen, row) for row in rows])


def _waiting(screen: Screen, row: Execution) -> list[Cell]:
    at = row.started_at if row.state is State.RUNNING else row.not_before
    return [
        row.id,
        _state(row),
        name_of(row),
        screen.time(at),
        screen.away(at),
        str(row.attempt) if row.attempt > 1 else "",
        row.work.queue,
        row.node or "",
        reason_of(row),
    ]


def _of_ended(screen: Screen, rows: Sequence[Execution]) -> list[str]:
    columns = (
        Column("ENDED", least=11),
        Column("STATE"),
        Column("OF", least=10),
        Column("TOOK", rank=3, right=True),
        Column("EXECUTION"),
        Column("LATE", rank=4, right=True),
        Column("TRY", rank=5, right=True),
        Column("QUEUE", least=7, rank=7),
        Column("REASON", least=10, rank=6),
    )
    return screen.table(columns, [_ended(screen, row) for row in rows])


def _ended(screen: Screen, row: Execution) -> list[Cell]:
    return [
        screen.time(row.finished_at),
        _state(row),
        name_of(row),
        _length(took(row)),
        row.id,
        _length(late_by(row)),
        str(row.attempt) if row.attempt > 1 else "",
        row.work.queue,
        reason_of(row),
    ]


def _state(row: Execution) -> Cell:
    return row.state.value, STATE_COLOURS.get(row.state.value)


def name_of(row: Execution) -> str:
    """What it is an execution of: its job, or else its task."""
    return row.job_name or row.work.task


def _length(micros: int | None) -> str:
    return "" if micros is None else length(micros)


# ---- one execution


def add_execution(add: AddCommand) -> None:
    """`clepsydra execution`."""
    command = add_store_command(add, "execution", _execution, "show an execution: its attempts in time, its traceback")
    command.add_argument("id", metavar="ID")


def _execution(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    row = operator.get_execution(arguments.id)
    past = operator.attempts(row.id)
    if screen.as_json:
        screen.document({"execution": of_execution(row), "past_attempts": [of_attempt(each) for each in past]})
        return OK
    names = {node.id: node.name for node in operator.nodes()}
    told = [screen.paint("bold", f"{name_of(row)}  {row.id}"), *described(list(_facts(row, names, screen)))]
    told += ["", *_timeline(row, past, screen)]
    if row.error:
        told += ["", *(f"  {line}" for line in harmless(row.error.rstrip()))]
    screen.lines(told)
    return OK


def _facts(row: Execution, names: Mapping[str, str], screen: Screen) -> Iterator[tuple[str, str]]:
    because = f": {row.reason}" if row.reason else ""
    yield "state", screen.paint(STATE_COLOURS.get(row.state.value), row.state.value) + because
    if row.job_name:
        yield "job", row.job_name
    yield "task", row.work.task
    yield "cause", row.cause.value
    moments = {
        "nominal": row.nominal,
        "due": row.due_at,
        "created": row.created_at,
        "started": row.first_started_at,
        "ended": row.finished_at,
    }
    for name, at in moments.items():
        if at is not None:
            late = f", {length(late_by(row) or 0)} late" if name == "started" else ""
            yield name, screen.moment(at) + late
    yield "queue", f"{row.work.queue}, priority {row.work.priority}"
    texts = {
        "verdict": row.verdict.value if row.verdict else None,
        "node": f"{names[row.node]} ({row.node})" if row.node and row.node in names else row.node,
        "for node": names.get(row.target, row.target) or None,
        "key": row.key,
        "labels": ", ".join(f"{key}={value}" for key, value in row.work.labels) or None,
        "arguments": row.work.args if row.work.args != "{}" else None,
        "progress": row.progress,
        "result": row.result,
        "recoveries": str(row.recoveries) if row.recoveries else None,
    }
    yield from ((name, "\n".join(harmless(text))) for name, text in texts.items() if text is not None)


@frozen
class _Stretch:
    """One attempt on the time line."""

    number: int
    ready: Instant
    started: Instant | None
    ended: Instant
    how: str
    error: str | None

    @property
    def why(self) -> str:
        """The last line of its error."""
        return (self.error or "").strip().rpartition("\n")[2]


def _timeline(row: Execution, past: Sequence[Attempt], screen: Screen) -> list[str]:
    """A line for each attempt: when it was ready, when it ran, how it ended, and a bar of both."""
    stretches = [
        _Stretch(each.number, each.not_before, each.started_at, each.ended_at, each.ending, each.error)
        for each in past
        if each.id != row.attempt_id
    ]
    end = row.finished_at or screen.now
    stretches.append(_Stretch(row.attempt, row.not_before, row.started_at, end, row.state.value, row.error))
    first = min(row.due_at, *(each.ready for each in stretches))
    last = max(each.ended for each in stretches)
    columns = (
        Column("TRY", right=True),
        Column("STARTED", least=11),
        Column("WAITED", rank=2, right=True),
        Column("RAN", rank=2, right=True),
        Column("BECAME", least=9),
        Column(f"WAITED ░ AND RAN █, {length(last - first)}", least=_BAR, rank=1),
        Column("ERROR", least=12, rank=3),
    )
    return screen.table(columns, [_stretch(each, first, last, screen) for each in stretches])


def _stretch(each: _Stretch, first: Instant, last: Instant, screen: Screen) -> list[Cell]:
    colour = STATE_COLOURS.get("failed" if each.how == "retry" else each.how)
    waited = (each.started or each.ended) - each.ready
    return [
        str(each.number),
        screen.time(each.started),
        length(max(waited, 0)),
        "" if each.started is None else length(each.ended - each.started),
        (_ENDED.get(each.how, each.how), colour),
        (bar(each.ready, each.started, each.ended, first, last), colour),
        each.why,
    ]


def bar(ready: Instant, started: Instant | None, ended: Instant, first: Instant, last: Instant) -> str:
    """A stretch of waiting and one of running within a span of time; what took any time is seen.

    >>> bar(0, 50, 100, 0, 300)
    '░░░░░█████'
    """
    span = max(last - first, 1)

    def place(at: Instant) -> int:
        return min(max((at - first) * _BAR // span, 0), _BAR)

    begin, turn, stop = place(ready), place(ended if started is None else started), place(ended)
    ran = max(stop - turn, 1) if started is not None else 0
    turn = min(turn, _BAR - ran)
    return " " * min(begin, turn) + "░" * max(turn - begin, 0) + "█" * ran


# ---- commands on executions


def add_cancel(add: AddCommand) -> None:
    """`clepsydra cancel`."""
    command = add_store_command(
        add, "cancel", _cancel, "cancel executions that have not ended; what runs is asked to stop"
    )
    _add_which(command)
    add_yes(command)


def add_retry(add: AddCommand) -> None:
    """`clepsydra retry`."""
    command = add_store_command(add, "retry", _retry, "give what failed, was cancelled or expired another try, now")
    _add_which(command)


def _add_which(command: argparse.ArgumentParser) -> None:
    command.add_argument("executions", metavar="ID", nargs="*")
    add_filters(command)
    command.add_argument("--all", action="store_true", help="all that can be")


def _cancel(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    where = _which(arguments, operator, screen)
    if not arguments.executions:
        count = operator.count_executions(filter_of(arguments, screen, states="incomplete"))
        confirm(f"cancel {plural(count, 'execution')}", arguments)
    cancelled = operator.cancel_executions(where)
    if screen.as_json:
        screen.document({"cancelled": [one.execution_id for one in cancelled]})
        return OK
    for one in cancelled:
        running = f", asked to stop on node {one.node}" if one.attempt_id else ""
        print(f"{one.execution_id}: {one.job_name or one.task} cancelled{running}")
    if not cancelled:
        print("nothing to cancel: no execution that is meant has not ended")
    return OK


def _retry(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    again = operator.retry_executions(_which(arguments, operator, screen))
    if screen.as_json:
        screen.document({"retried": list(again)})
        return OK
    for execution_id in again:
        print(f"{execution_id}: waits for another try")
    if not again:
        print("nothing to retry: no execution that is meant has failed, expired or been cancelled and is free to go on")
    return OK


def _which(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> ExecutionFilter:
    by_filter = arguments.all or says_which(arguments)
    if bool(arguments.executions) == bool(by_filter):
        raise UsageError("name one or more executions by their ids, or give --all or a filter; one or the other")
    for execution_id in arguments.executions:
        operator.get_execution(execution_id)
    return ExecutionFilter(ids=arguments.executions) if arguments.executions else filter_of(arguments, screen)
