"""`clepsydra stats`, `verdicts`, `explain`, `verify`: what operators ask about a store, and about times of a job."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from .. import (
    Execution,
    ExecutionFilter,
    Explanation,
    JobFilter,
    JobNotFound,
    JobState,
    Kind,
    Node,
    Operator,
    State,
    Verdict,
    to_instant,
)
from .arguments import AddCommand
from .documents import of_explanation, of_node, of_verdict, of_verification
from .errors import OK, PROBLEM
from .screen import Screen, iso, page_hint, paged
from .store_executions import name_of
from .store_jobs import STATE_COLOURS, add_paging, described, job_of, sign_of
from .stores import add_store_command
from .tables import Cell, Column, harmless
from .times import moment_of

_OPEN: Final = "open"
"""Not settled yet."""
_SPANS: Final = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
_ENDED: Final = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED, State.SKIPPED)
_UNFINISHED: Final = (State.RUNNING, State.PENDING, State.HELD, State.PLACING)


# ---- stats


def add_stats(add: AddCommand) -> None:
    """`clepsydra stats`."""
    add_store_command(add, "stats", _stats, "show who is at work on a store, and how many jobs and executions it has")


def _stats(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    states = operator.stats()
    spans = {
        name: operator.stats(ExecutionFilter(finished=(screen.now - length // timedelta(microseconds=1), None)))
        for name, length in _SPANS.items()
    }
    jobs = {state: operator.count_jobs(JobFilter(states=[state])) for state in JobState}
    nodes = operator.nodes()
    oldest = next(iter(operator.executions(ExecutionFilter(states=["pending"]), order="due", limit=1).items), None)
    waits = oldest if oldest is not None and oldest.not_before <= screen.now else None
    if screen.as_json:
        screen.document(
            {
                "nodes": [of_node(node) for node in nodes],
                "jobs": {state.value: count for state, count in jobs.items()},
                "executions": {state.value: states[state] for state in State},
                "ended_within": {
                    name: {state.value: counts[state] for state in _ENDED} for name, counts in spans.items()
                },
                "oldest_waiting": None if waits is None else {"id": waits.id, "due": iso(waits.due_at)},
            }
        )
        return OK
    screen.lines(
        [
            *_nodes(nodes, screen),
            "",
            *described([("jobs", _counts({state.value: count for state, count in jobs.items()}, screen))], indent=""),
            *described([("work", _counts({state.value: states[state] for state in _UNFINISHED}, screen))], indent=""),
            *_oldest(waits, screen),
            "",
            *_ended_within(spans, states, screen),
        ]
    )
    return OK


def _nodes(nodes: Sequence[Node], screen: Screen) -> list[str]:
    if not nodes:
        return ["no scheduler is at work on this store"]
    words = {True: ("at work", "green"), False: ("gone", "red"), None: ("registered", None)}
    rows: list[list[Cell]] = [
        [node.name, words[node.alive], screen.moment(node.started_at), screen.away(node.started_at), node.id]
        for node in nodes
    ]
    columns = (
        Column("SCHEDULER", least=10),
        Column("IS"),
        Column(f"SINCE ({screen.zone_name})"),
        Column("", rank=1),
        Column("ID", rank=2),
    )
    return screen.table(columns, rows)


def _counts(counts: Mapping[str, int], screen: Screen) -> str:
    told = [
        screen.paint(STATE_COLOURS.get(state) if count else "grey", f"{count:,} {state}")
        for state, count in counts.items()
    ]
    return ", ".join(told)


def _oldest(row: Execution | None, screen: Screen) -> list[str]:
    if row is None:
        return []
    return [f"oldest that could start: {name_of(row)}, ready since {screen.away(row.not_before)}, {row.id}"]


def _ended_within(spans: Mapping[str, Mapping[State, int]], states: Mapping[State, int], screen: Screen) -> list[str]:
    columns = [
        Column("ENDED"),
        *(Column(f"LAST {name.upper()}", right=True) for name in spans),
        Column("ALL", right=True),
    ]
    rows: list[list[Cell]] = [
        [
            (state.value, STATE_COLOURS.get(state.value)),
            *(f"{counts[state]:,}" for counts in spans.values()),
            f"{states[state]:,}",
        ]
        for state in _ENDED
    ]
    return screen.table(columns, rows)


# ---- verdicts


def add_verdicts(add: AddCommand) -> None:
    """`clepsydra verdicts`."""
    command = add_store_command(
        add,
        "verdicts",
        _verdicts,
        "list the nominal times of a job, those that never ran too, with what became of each",
    )
    command.add_argument("name", metavar="JOB")
    command.add_argument("--since", metavar="TIME", default="1d", help="from this time on (default: 1d, a day ago)")
    command.add_argument("--until", metavar="TIME", help="before this time (default: now)")
    command.add_argument(
        "--verdict",
        action="append",
        choices=[*(kind.value for kind in Kind), _OPEN],
        metavar="VERDICT",
        help=f"only these: {', '.join(Kind)}, or {_OPEN}",
    )
    add_paging(command)
    command.add_argument("--count", action="store_true", help="only how many there are of each")


def _verdicts(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    start = moment_of(arguments.page or arguments.since, screen, "--page" if arguments.page else "--since")
    end = moment_of(arguments.until or "now", screen, "--until")
    told = (
        each
        for each in _of_job(operator, arguments.name, start, end)
        if not arguments.verdict or (each.kind or _OPEN) in arguments.verdict
    )
    if arguments.count:
        return _counted(Counter(str(each.kind or _OPEN) for each in told), screen)
    page, following = _page(told, arguments.limit)
    if screen.as_json:
        screen.document(paged([of_verdict(each) for each in page], iso(following)))
        return OK
    columns = (
        Column(f"TIME ({screen.zone_name})"),
        Column("BECAME"),
        Column("EXECUTION", rank=2),
        Column("TARGET", least=8, rank=3),
        Column("REASON", least=10, rank=1),
    )
    rows: list[list[Cell]] = [
        [
            screen.moment(to_instant(each.nominal)),
            ((each.kind or _OPEN).replace("_", " "), sign_of(each.kind or _OPEN)[1]),
            each.execution_id or "",
            each.target,
            each.reason or "",
        ]
        for each in page
    ]
    screen.lines([*screen.table(columns, rows), "", *page_hint(len(page), None, iso(following), "time")])
    return OK


def _of_job(operator: Operator, job: str, start: datetime, end: datetime) -> Iterator[Verdict]:
    try:
        return operator.verdicts(job, start, end)
    except JobNotFound:
        job_of(operator, job)  # raises with the name that was probably meant
        raise


def _page(told: Iterator[Verdict], limit: int) -> tuple[list[Verdict], datetime | None]:
    """So many, and all those of the same time as the last; and the time that the next page begins with."""
    page = list(islice(told, limit))
    for each in told:
        if each.nominal != page[-1].nominal:
            return page, each.nominal
        page.append(each)
    return page, None


def _counted(counts: Counter[str], screen: Screen) -> int:
    if screen.as_json:
        screen.document(dict(counts.most_common()))
        return OK
    for kind, count in counts.most_common():
        print(f"{count:,} {kind.replace('_', ' ')}")
    return OK


# ---- explain


def add_explain(add: AddCommand) -> None:
    """`clepsydra explain`."""
    command = add_store_command(
        add,
        "explain",
        _explain,
        "say why a time of a job ran, ran late or did not run, or whether it will",
        "The time, or any moment: then the last time up to it is explained. Without one, an execution by its id.",
    )
    command.add_argument("job", metavar="JOB", help="a job, or without TIME the id of an execution")
    command.add_argument("time", metavar="TIME", nargs="?", help="2027-03-28T01:30, 2h (so long ago), +2h, yesterday")


def _explain(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    if arguments.time is None:
        told = operator.explain_execution(arguments.job)
    else:
        at = moment_of(arguments.time, screen, "TIME", ahead=True)
        told = _of_time(operator, arguments.job, at)
    if screen.as_json:
        screen.document(of_explanation(told))
        return OK
    screen.lines(screen.prose(line for text in str(told).splitlines() for line in harmless(text) or [""]))
    return OK


def _of_time(operator: Operator, job: str, at: datetime) -> Explanation:
    try:
        return operator.explain(job, at)
    except JobNotFound:
        job_of(operator, job)  # raises with the name that was probably meant
        raise


# ---- verify


def add_verify(add: AddCommand) -> None:
    """`clepsydra verify`."""
    add_store_command(
        add,
        "verify",
        _verify,
        "audit a store against the laws that it should keep",
        "A few rows at a time, while schedulers go on. Ends with 1 if something was found.",
    )


def _verify(arguments: argparse.Namespace, operator: Operator, screen: Screen) -> int:
    report = operator.verify()
    if screen.as_json:
        screen.document(of_verification(report))
    else:
        first, *others = str(report).splitlines()
        screen.lines([screen.paint("green" if report.ok else "red", first), *screen.prose(others)])
    return OK if report.ok else PROBLEM
