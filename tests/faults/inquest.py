"""What is asked when processes have died: do their effects and the store tell one story, and does it keep the laws?"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from attrs import frozen

from clepsydra import Execution, Kind, Node, Order, SQLiteStorage, State
from clepsydra.model.filters import EVERY_EXECUTION
from clepsydra.storage.audit import audit
from clepsydra.storage.protocol import Storage

EVER = 2**62
_PAGE = 1000


@frozen
class Effect:
    """A line that a task has written: `begun`, `ended` or `failed`."""

    what: str
    at: int
    process: str
    execution: str
    lease: str
    attempt: int
    job: str | None
    job_id: str | None
    nominal: int | None
    task: str


class Effects:
    """The file that processes write their lines to, of which each line is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[dict[str, Any]] = []
        self._by_process: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._read = 0

    def all(self) -> list[dict[str, Any]]:
        """All lines so far."""
        self._read_on()
        return self._lines

    def of(self, process: str) -> list[dict[str, Any]]:
        """Those of one process."""
        self._read_on()
        return self._by_process[process]

    def _read_on(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in map(json.loads, whole.splitlines()):
            self._lines.append(line)
            self._by_process[line["process"]].append(line)


def runs_in(lines: list[dict[str, Any]]) -> list[Effect]:
    """Those that a task has written of its run, in the order of time."""
    found = [Effect(**line) for line in lines if "lease" in line]
    return sorted(found, key=lambda effect: effect.at)


@contextmanager
def reading(store: Storage | Path) -> Generator[Storage]:
    """The store (a path: that file), as one more node that does nothing."""
    storage = SQLiteStorage(store, busy_timeout=30) if isinstance(store, Path) else store
    storage.open(Node("inquest", "inquest", 0, 0), 0)
    try:
        yield storage
    finally:
        storage.close()


def violations_of_law_1(store: Storage | Path, jobs: Collection[str], since: int = 0) -> list[str]:
    """For nominal times from `since` on."""
    with reading(store) as storage:
        return [
            f"{job}: {violation}"
            for job in jobs
            for violation in audit(storage.verdicts(job, since, EVER), start=since, end=EVER)
        ]


def executions_in(store: Storage) -> dict[str, Execution]:
    """All, by id."""
    with reading(store) as storage:
        rows: dict[str, Execution] = {}
        cursor: str | None = None
        while True:
            page = storage.list_executions(EVERY_EXECUTION, Order.ID, _PAGE, cursor)
            rows |= {row.id: row for row in page.items}
            cursor = page.cursor
            if cursor is None:
                return rows


@frozen
class Inquest:
    """The effects of processes, of which some were killed, beside what the store says when all work is settled."""

    lines: list[dict[str, Any]]
    rows: Mapping[str, Execution]
    killed: Mapping[str, int]
    """When, by the name of the process; or when it was frozen for so long that it was taken for dead."""

    def objections(self) -> list[str]:
        """All that should not be; none in a sound scheduler."""
        return [
            *self._begun_twice(),
            *self._executions_of_one_time(),
            *self._differs_from_store(),
            *self._not_kept_promises(),
        ]

    def overlaps(self, jobs: Collection[str]) -> list[str]:
        """Where two executions of a job ran at once."""
        spans: dict[str, list[tuple[int, int, Effect]]] = defaultdict(list)
        ends = {effect.lease: effect.at for effect in self._runs("ended", "failed")}
        for begun in self._runs("begun"):
            end = ends.get(begun.lease, self.killed.get(begun.process, EVER))
            if begun.job in jobs and begun.job_id is not None:
                spans[begun.job_id].append((begun.at, end, begun))
        return [
            f"{second} began before {first} had ended"
            for job_spans in spans.values()
            for (_, end, first), (start, _, second) in pairwise(sorted(job_spans, key=lambda span: span[0]))
            if start < end
        ]

    def _runs(self, *what: str) -> list[Effect]:
        return [effect for effect in runs_in(self.lines) if effect.what in what]

    def _begun_twice(self) -> Iterator[str]:
        failed = {effect.lease for effect in self._runs("failed")}
        by_execution: dict[str, list[Effect]] = defaultdict(list)
        for begun in self._runs("begun"):
            by_execution[begun.execution].append(begun)
        for lease, times in Counter(effect.lease for effect in self._runs("begun")).items():
            if times > 1:
                yield f"attempt {lease} was begun {times} times"
        for begins in by_execution.values():
            for first, second in pairwise(begins):
                retried = first.lease in failed and second.attempt == first.attempt + 1
                recovered = self.killed.get(first.process, EVER) < second.at
                # What it had claimed before it was frozen may begin when it is thawed; the outcome is refused.
                claimed_before = second.lease < first.lease and self.killed.get(second.process, EVER) < second.at
                if not retried and not recovered and not claimed_before:
                    yield f"{second} repeats {first}, whose process was not killed before"

    def _executions_of_one_time(self) -> Iterator[str]:
        seen: dict[tuple[str | None, int], str] = {}
        for begun in self._runs("begun"):
            if begun.nominal is not None:
                first = seen.setdefault((begun.job_id, begun.nominal), begun.execution)
                if first != begun.execution:
                    yield f"{begun.job} ran twice for {begun.nominal}: as {first} and as {begun.execution}"

    def _differs_from_store(self) -> Iterator[str]:
        ended = {effect.execution for effect in self._runs("ended")}
        for begun in self._runs("begun"):
            row = self.rows.get(begun.execution)
            if row is None:
                yield f"the store does not know {begun}"
            elif row.nominal is not None and row.verdict is not Kind.FIRED:
                yield f"{begun} has the verdict {row.verdict}"
        for row in self.rows.values():
            if not row.finished:
                yield f"{row.id} of {row.job_name or row.work.task} has not ended: {row.state}"
            elif row.state is State.SUCCEEDED and row.id not in ended:
                yield f"{row.id} of {row.job_name or row.work.task} has succeeded, but nothing was done"
            elif row.state is State.FAILED:
                yield f"{row.id} of {row.job_name or row.work.task} has failed: {row.error}"

    def _not_kept_promises(self) -> Iterator[str]:
        for line in self.lines:
            for child in line.get("executions", ()):
                row = self.rows.get(child)
                if row is None or row.state is not State.SUCCEEDED:
                    yield f"{child} was acknowledged to its caller and is {'gone' if row is None else row.state}"
