"""The audit of a whole store: a sound one has no findings, and each way to damage one is found.

Damage is done behind the store's back: with SQL in the file, with assignments to the memory store's own rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, frozen

from clepsydra import Every, Finding, MemoryStorage, SQLiteStorage, StoreError, Verification, verify_store
from clepsydra.model.execution import Attempt, Ending, Kind, Range, State
from clepsydra.model.filters import JobFilter
from clepsydra.model.instants import HOUR, MINUTE
from clepsydra.model.job import JobState
from clepsydra.storage import verifying
from clepsydra.storage.postgres import PostgresStorage
from clepsydra.storage.promises.ground import NODE, T0, World, a_job

from ..postgres import PostgresMaker, Schemas


@define
class Scene:
    """A store with something of everything, and the rows that the damage is done to."""

    world: World
    path: Path | None
    job_id: str
    ids: dict[str, str]

    @property
    def memory(self) -> Any:
        """The memory store, to be opened up."""
        assert isinstance(self.world.store, MemoryStorage)
        return self.world.store

    def row(self, which: str) -> Any:
        """A row of the memory store itself."""
        return self.memory._executions[self.ids[which]]

    def attempts(self, which: str) -> list[Attempt]:
        """The past attempts that the memory store has of an execution."""
        return self.memory._attempts[self.ids[which]]  # type: ignore[no-any-return]

    def sql(self, *statements: str) -> None:
        """Do something to the file, as another program would."""
        assert self.path is not None
        with closing(sqlite3.connect(self.path)) as connection:
            for statement in statements:
                connection.execute(statement, {**self.ids, "job": self.job_id, "t0": T0, "minute": MINUTE})
            connection.commit()

    def verify(self) -> Verification:
        """What the auditor says."""
        return verify_store(self.world.store)


def scene(backend: str, folder: Path) -> Scene:
    """Times that fired, were coalesced, paused and missed; work that waits, runs, was retried, and failed."""
    path = folder / "jobs.db" if backend == "sqlite" else None

    class Maker:
        def __call__(self) -> Any:
            return MemoryStorage() if path is None else SQLiteStorage(path, synchronous="NORMAL")

        def again(self, storage: Any) -> Any:
            return storage if path is None else SQLiteStorage(path, synchronous="NORMAL")

    world = World(Maker())
    world.store.open(NODE, T0)
    record = world.put(a_job())
    ids: dict[str, str] = {}
    ids["fired"] = world.fire(record, T0 + MINUTE)
    world.run(ids["fired"], now=T0 + MINUTE)
    ids["later"] = world.fire(record, T0 + 5 * MINUTE)  # 2, 3 and 4 are coalesced
    world.run(ids["later"], now=T0 + 5 * MINUTE)
    world.store.set_job_state(JobFilter(names="report"), JobState.PAUSED, T0 + 6 * MINUTE)
    world.store.set_job_state(JobFilter(names="report"), JobState.ACTIVE, T0 + 8 * MINUTE)
    ids["running"] = world.fire(record, T0 + 9 * MINUTE)
    world.claim(ids["running"], T0 + 9 * MINUTE)
    ids["pending"] = world.fire(record, T0 + 10 * MINUTE)
    ids["done"] = world.enqueue()
    claim = world.claim(ids["done"])
    world.finish(claim, Ending.RETRY, error="first")
    world.run(ids["done"])
    ids["failed"] = world.enqueue()
    world.finish(world.claim(ids["failed"]), Ending.FAILED, error="on purpose")
    ids["waiting"] = world.enqueue()
    removed = world.put(a_job("gone", schedule=Every(minutes=2)))
    world.run(world.fire(removed, T0 + 2 * MINUTE), now=T0 + 2 * MINUTE)
    world.store.delete_jobs(JobFilter(names="gone"), T0 + 5 * MINUTE)
    world.put(a_job("gone", schedule=Every(minutes=3)), T0 + 6 * MINUTE)
    return Scene(world, path, record.id, ids)


@pytest.fixture(params=["memory", "sqlite"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = scene(request.param, tmp_path)
    yield made
    made.world.store.close()


# ---- sound ones


@pytest.mark.parametrize("chunk", [1, 3, 512])
def test_a_sound_store_has_no_findings_however_small_the_steps(at: Scene, chunk: int) -> None:
    report = verify_store(at.world.store, chunk=chunk)

    assert (report.ok, report.jobs, report.executions) == (True, 3, 8), str(report)
    assert str(report) == "every law holds: 3 jobs and 8 executions looked at"


def test_a_year_of_a_per_second_job_costs_a_few_steps(at: Scene) -> None:
    record = at.world.put(a_job("often", schedule=Every(seconds=1)))
    at.world.store.set_job_state(JobFilter(ids=record.id), JobState.PAUSED, T0)
    at.world.store.set_job_state(JobFilter(ids=record.id), JobState.ACTIVE, T0 + 366 * 24 * HOUR)

    assert at.verify().ok


def test_a_file_is_audited_without_a_node_a_lock_or_a_write(tmp_path: Path) -> None:
    made = scene("sqlite", tmp_path)
    made.world.store.close()
    assert made.path is not None
    before = made.path.read_bytes()

    report = verify_store(SQLiteStorage(made.path))

    assert report.ok
    assert made.path.read_bytes() == before
    assert list(tmp_path.glob("jobs.db-nodes/*")) == []


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such file"):
        verify_store(SQLiteStorage(tmp_path / "none.db"))

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_older_is_not_migrated(tmp_path: Path) -> None:
    (tmp_path / "old.db").touch()

    with pytest.raises(StoreError, match="brought up to date when a scheduler is entered"):
        verify_store(SQLiteStorage(tmp_path / "old.db"))

    assert (tmp_path / "old.db").read_bytes() == b""


def test_a_database_is_audited_as_no_node(postgres: Schemas) -> None:
    maker = PostgresMaker(postgres)
    world = World(maker)
    with pytest.raises(StoreError, match="brought up to date"):
        verify_store(PostgresStorage(postgres.dsn, schema="clepsydra_test_never_made"))
    world.store.open(NODE, T0)
    world.run(world.fire(world.put(), T0 + 3 * MINUTE), now=T0 + 3 * MINUTE)

    report = verify_store(maker.again(world.store))

    assert str(report) == "every law holds: 1 job and 1 execution looked at"
    assert [node.id for node in world.store.nodes()] == [NODE.id]
    maker.close()


def test_a_step_reads_a_bounded_number_of_rows(at: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for minute in range(11, 200):
        at.world.fire(at.world.job(), T0 + minute * MINUTE)
    sizes: list[int] = []
    whole = verifying.take_step

    def counted(storage: Any, place: Any, chunk: int) -> Any:
        given: list[Any] = []
        store: Any = Counting(storage, given)
        step = whole(store, place, chunk)
        sizes.append(sum(given))
        return step

    monkeypatch.setattr(verifying, "take_step", counted)
    verify_store(at.world.store, chunk=10)

    assert max(sizes) <= 2 * 10
    assert sum(sizes) > 2 * 189


@frozen
class Counting:
    """A store that counts the rows it gives."""

    store: Any
    given: list[int]

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            answer = getattr(self.store, name)(*args)
            match name:
                case "account":
                    self.given.append(len(answer.page.marks) + len(answer.page.ranges))
                case "lives":
                    self.given.append(len(answer.items))
                case _:
                    self.given.append(len(answer))
            return answer

        return call


# ---- damaged ones


@frozen
class Column:
    """One column of one row is changed."""

    which: str
    column: str
    value: Any
    law: int
    words: str

    def __str__(self) -> str:
        return f"{self.which}-{self.column}"


COLUMNS = [
    Column("fired", "verdict", None, 1, "has no verdict"),
    Column("fired", "verdict", Kind.MISSED, 1, "its verdict is missed instead of fired"),
    Column("pending", "verdict", Kind.FIRED, 1, "has never started"),
    Column("pending", "verdict", Kind.PAUSED, 1, "has a verdict already"),
    Column("done", "verdict", Kind.FIRED, 1, "no nominal time, but a verdict"),
    Column("fired", "nominal", T0 + MINUTE + 7, 1, "no schedule names it"),
    Column("pending", "nominal", T0 + 20 * MINUTE, 2, "lies beyond the cursor"),
    Column("pending", "nominal", T0 + 3 * MINUTE, 1, "is coalesced in a range as well"),
    Column("pending", "nominal", None, 1, "has a job and no nominal time"),
    Column("waiting", "job_id", "nobody", 1, "has a job and no nominal time"),
    Column("waiting", "state", State.RUNNING, 4, "not said where"),
    Column("waiting", "state", State.SUCCEEDED, 3, "not said when it ended"),
    Column("waiting", "state", State.SKIPPED, 3, "not said when it ended"),
    Column("waiting", "state", State.HELD, 4, "held for its job's overlap"),
    Column("waiting", "finished_at", T0, 3, "has ended already"),
    Column("waiting", "node", "node-z", 4, "said to have been started on node node-z"),
    Column("waiting", "occupies", True, 4, "though it has never started"),
    Column("waiting", "cancel_revision", 3, 3, "was cancelled already"),
    Column("waiting", "attempt", 2, 3, "has no earlier ones"),
    Column("running", "occupies", False, 4, "does not occupy its job"),
    Column("running", "node", None, 4, "not said where"),
    Column("failed", "error", None, 3, "failed without an error"),
    Column("failed", "first_started_at", None, 3, "never started"),
    Column("failed", "state", State.EXPIRED, 3, "though it has started"),
    Column("failed", "occupies", True, 4, "still occupies its job"),
    Column("done", "attempt", 3, 3, "not in order"),
    Column("done", "attempt", 1, 3, "not in order"),
]


@pytest.mark.parametrize("damage", COLUMNS, ids=str)
def test_a_damaged_execution_is_found(at: Scene, damage: Column) -> None:
    if at.path is None:
        _set_in_memory(at, damage)
    else:
        value = damage.value
        at.sql(f"UPDATE executions SET {damage.column} = {_literal(value)} WHERE id = :{damage.which}")

    report = at.verify()

    assert not report.ok
    found = [each for each in report.findings if each.law == damage.law and damage.words in each.what]
    assert found, str(report)
    assert at.ids[damage.which] in {each.execution_id for each in found}


def _set_in_memory(at: Scene, damage: Column) -> None:
    row = at.row(damage.which)
    old = row.nominal
    setattr(row, damage.column, damage.value)
    if damage.column == "nominal":
        of_job = at.memory._by_job.get(at.job_id)
        marks = of_job.marks
        del marks[old]
        if damage.value is not None:
            marks[damage.value] = row.id
        of_job.nominals = None


def _literal(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "NULL" if value is None else str(int(value))
    return str(value) if isinstance(value, int) and not isinstance(value, str) else f"'{value}'"


@frozen
class Damage:
    """Something is done to the file, or the like to the memory store."""

    name: str
    sql: tuple[str, ...]
    memory: Callable[[Scene], object]
    law: int
    words: str

    def __str__(self) -> str:
        return self.name


def _ranges(at: Scene) -> dict[int, Range]:
    return at.memory._history._ranges_of[at.job_id]  # type: ignore[no-any-return]


def _change_range(at: Scene, kind: Kind, **changes: Any) -> None:
    (number,) = (number for number, span in _ranges(at).items() if span.kind is kind)
    _ranges(at)[number] = evolve(_ranges(at)[number], **changes)


def _change_epoch(at: Scene, **changes: Any) -> None:
    epochs = at.memory._history._epochs[at.job_id]
    epochs[0] = evolve(epochs[0], **changes)


def _double(at: Scene) -> None:
    """A second execution of the time that `fired` has."""
    at.memory._executions["twin"] = evolve(at.row("fired"), id="twin", attempt_id="twin")
    at.memory._by_job.get(at.job_id).marks[T0 + MINUTE] = (at.ids["fired"], "twin")


def _crowd(at: Scene) -> None:
    row = at.row("pending")
    row.state, row.node, row.occupies, row.verdict = State.RUNNING, "node-a", True, Kind.FIRED
    row.started_at = row.first_started_at = T0 + 10 * MINUTE


OTHERS = [
    Damage(
        "hole",
        ("DELETE FROM ranges WHERE kind = 'coalesced'",),
        lambda at: [_ranges(at).pop(number) for number, span in [*_ranges(at).items()] if span.kind is Kind.COALESCED],
        1,
        "neither a verdict nor an execution",
    ),
    Damage(
        "lost execution",
        ("DELETE FROM executions WHERE id = :fired",),
        lambda at: at.memory.delete_execution_rows([at.ids["fired"]]),
        1,
        "neither a verdict nor an execution",
    ),
    Damage(
        "overlapping ranges",
        ("UPDATE ranges SET until = :t0 + 7 * :minute WHERE kind = 'coalesced'",),
        lambda at: _change_range(at, Kind.COALESCED, end=T0 + 7 * MINUTE),
        1,
        "it is in two ranges: coalesced times",
    ),
    Damage(
        "range of another schedule",
        ("UPDATE ranges SET generation = 9 WHERE kind = 'paused'",),
        lambda at: _change_range(at, Kind.PAUSED, generation=9),
        1,
        "has no schedule to read it with",
    ),
    Damage(
        "range before the job",
        ("UPDATE ranges SET first = :t0 WHERE kind = 'coalesced'",),
        lambda at: _change_range(at, Kind.COALESCED, start=T0),
        1,
        "leaves the span of its schedule",
    ),
    Damage(
        "range beyond the cursor",
        ("UPDATE ranges SET until = :t0 + 60 * :minute WHERE kind = 'paused'",),
        lambda at: _change_range(at, Kind.PAUSED, end=T0 + HOUR),
        2,
        "reaches beyond the cursor",
    ),
    Damage(
        "no schedule kept",
        ("DELETE FROM epochs WHERE job_id = :job",),
        lambda at: at.memory._history._forget_bearer("report", at.job_id),
        1,
        "no span of its life has the schedule that it has now",
    ),
    Damage(
        "another schedule kept",
        ("UPDATE epochs SET anchor = anchor + 1 WHERE job_id = :job",),
        lambda at: _change_epoch(at, anchor=T0 + 1),
        1,
        "is not under the schedule that the job has now",
    ),
    Damage(
        "span that overlaps",
        (
            "INSERT INTO epochs SELECT job_id, 0, name, schedule, anchor, since - 9, since + 9"
            " FROM epochs WHERE job_id = :job",
        ),
        lambda at: at.memory._history._epochs[at.job_id].append(
            evolve(at.memory._history._epochs[at.job_id][0], generation=0, since=T0 - 9, until=T0 + 9)
        ),
        1,
        "overlap",
    ),
    Damage(
        "span beyond the cursor",
        ("UPDATE epochs SET until = :t0 + 60 * :minute WHERE job_id = :job",),
        lambda at: _change_epoch(at, until=T0 + HOUR),
        1,
        "does not end between its beginning and the cursor",
    ),
    Damage(
        "horizon beyond the cursor",
        ("UPDATE jobs SET horizon = cursor + 2 WHERE id = :job",),
        lambda at: setattr(at.memory._jobs[at.job_id], "horizon", T0 + HOUR),
        1,
        "lies beyond its cursor",
    ),
    Damage(
        "cursor set back",
        ("UPDATE jobs SET cursor = :t0 + 8 * :minute WHERE id = :job",),
        lambda at: setattr(at.memory._jobs[at.job_id], "cursor", T0 + 8 * MINUTE),
        2,
        "lies beyond the cursor",
    ),
    Damage(
        "two executions of one time",
        (
            "DROP INDEX job_times",
            "CREATE INDEX job_times ON executions (job_id, nominal, target) WHERE job_id IS NOT NULL",
            "CREATE TEMP TABLE twin AS SELECT * FROM executions WHERE id = :fired",
            "UPDATE twin SET id = 'twin', attempt_id = 'twin'",
            "INSERT INTO executions SELECT * FROM twin",
        ),
        _double,
        2,
        "more than one for a target",
    ),
    Damage(
        "two beside each other",
        (
            "UPDATE executions SET state = 'running', node = 'node-a', occupies = 1, verdict = 'fired',"
            " started_at = :t0 + 10 * :minute, first_started_at = :t0 + 10 * :minute WHERE id = :pending",
        ),
        _crowd,
        4,
        "started beside others: 2 occupy it, and it may have 1",
    ),
    Damage(
        "attempts lost",
        ("DELETE FROM attempts WHERE execution_id = :done",),
        lambda at: at.attempts("done").clear(),
        3,
        "has no earlier ones",
    ),
    Damage(
        "attempts of a first attempt",
        ("UPDATE attempts SET execution_id = :failed WHERE execution_id = :done",),
        lambda at: at.memory._attempts.update({at.ids["failed"]: at.attempts("done")}),
        3,
        "is at its first attempt, and has 1 earlier ones",
    ),
    Damage(
        "attempt that had succeeded",
        ("UPDATE attempts SET ending = 'succeeded' WHERE execution_id = :done",),
        lambda at: at.attempts("done").append(evolve(at.attempts("done").pop(), ending="succeeded")),
        3,
        "nothing follows on that",
    ),
    Damage(
        "attempt of no node",
        ("UPDATE attempts SET node = NULL WHERE execution_id = :done",),
        lambda at: at.attempts("done").append(evolve(at.attempts("done").pop(), node=None)),
        3,
        "was started by no node",
    ),
    Damage(
        "attempt out of order",
        ("UPDATE attempts SET number = 2 WHERE execution_id = :done",),
        lambda at: at.attempts("done").append(evolve(at.attempts("done").pop(), number=2)),
        3,
        "not in order: numbers 2 before 2",
    ),
    Damage(
        "attempt that is past and present",
        ("UPDATE attempts SET id = (SELECT attempt_id FROM executions WHERE id = :done) WHERE execution_id = :done",),
        lambda at: at.attempts("done").append(evolve(at.attempts("done").pop(), id=at.row("done").attempt_id)),
        3,
        "is a past one as well",
    ),
]


@pytest.mark.parametrize("damage", OTHERS, ids=str)
def test_a_damaged_ledger_is_found(at: Scene, damage: Damage) -> None:
    if at.path is None:
        damage.memory(at)
    else:
        at.sql(*damage.sql)

    report = at.verify()

    assert [each for each in report.findings if each.law == damage.law and damage.words in each.what], str(report)


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE executions SET state = 'lost' WHERE id = :waiting", "execution"),
        ("UPDATE jobs SET definition = '{' WHERE id = :job", "job"),
    ],
)
def test_a_row_that_cannot_be_understood_is_found_each_time(tmp_path: Path, statement: str, finding: str) -> None:
    made = scene("sqlite", tmp_path)
    made.sql(statement)

    reports = [made.verify(), made.verify()]

    for report in reports:
        assert [each.what for each in report.findings if each.law == 10] == ["its row cannot be understood"]
    made.world.store.close()


# ---- the report


def test_a_finding_says_which_law_and_where() -> None:
    nominal = datetime(2027, 1, 1, tzinfo=UTC)
    finding = Finding(1, "it has neither a verdict nor an execution", "feeds", "id", nominal)

    assert str(finding) == (
        "law 1, one verdict: job 'feeds', 2027-01-01T00:00:00+00:00: it has neither a verdict nor an execution"
    )


def test_what_is_wrong_everywhere_is_told_in_part_and_counted(at: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "MOST_FINDINGS", 2)
    for which in ("done", "failed", "waiting"):
        if at.path is None:
            at.row(which).verdict = Kind.FIRED
        else:
            at.sql(f"UPDATE executions SET verdict = 'fired' WHERE id = :{which}")

    report = at.verify()

    assert (len(report.findings), report.more, report.ok) == (2, 1, False)
    assert str(report).startswith("3 findings, 3 jobs and 8 executions looked at\nlaw 1")
    assert str(report).endswith("\nand 1 more")
