"""Filters and orders as SQL conditions: what the databases have in common, the way to write a parameter abstracted.

A `Dialect` says how one database writes a parameter, membership in a list of any length, and a question about labels;
`Conditions` collects terms with their parameters. Values are always parameters, never text. Knows no connection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from attrs import Factory, define, frozen

from ..model.filters import Between, ExecutionFilter, JobFilter, LabelFilter, Order
from ..model.payload import CORRELATION
from .paging import EXECUTION_COLUMNS, JOB_COLUMNS, column_of, decode_cursor
from .rows import stored


@frozen
class Dialect:
    """How one database writes what SQL leaves open."""

    mark: str
    """A parameter: `?`, unless the adapter's own statements write it otherwise."""
    among: str
    """A column's membership in a list that is one parameter, with `{column}`."""
    not_among: str
    """Its absence from such a list."""
    pack: Callable[[Iterable[str]], Any]
    """That list as the database takes it."""
    labelled: str
    """Whether the `labels` column has a label, key and value being parameters."""
    has_label: str
    """Whether it has a label of this key."""
    greatest: str
    """The function that gives the greatest of its arguments."""
    unlimited: Any
    """What a parameter after LIMIT is where there is no limit."""
    correlated: str = ""
    """Whether an execution has this correlation id, in the words of an index of its own; empty: as for any label."""
    index: str = ""
    """What follows a table's name to have it read by this `{index}`, where the database has to be told."""

    def listed(self, column: str) -> str:
        """Membership of this column in a list that is one parameter."""
        return self.among.format(column=column)

    def unlisted(self, column: str) -> str:
        """Absence of this column from a list that is one parameter."""
        return self.not_among.format(column=column)

    def by(self, index: str) -> str:
        """What follows the name of a table that is to be read by this index."""
        return self.index.format(index=index)


@define
class Conditions:
    """Terms joined by AND, with their parameters in order."""

    dialect: Dialect
    terms: list[str] = Factory(list[str])
    parameters: list[Any] = Factory(list[Any])

    def add(self, term: str, *parameters: Any) -> None:
        """A term as it is."""
        self.terms.append(term)
        self.parameters += parameters

    def compare(self, column: str, operator: str, value: Any) -> None:
        """A column against a value."""
        self.add(f"{column} {operator} {self.dialect.mark}", value)

    def among(self, column: str, values: Iterable[str] | None) -> None:
        """Membership; None means any, an empty collection nothing."""
        if values is None:
            return
        chosen = [str(stored(value)) for value in values]
        if not chosen:
            self.add("1 = 0")
        elif len(chosen) == 1:
            self.compare(column, "=", chosen[0])
        else:
            self.add(self.dialect.listed(column), self.dialect.pack(chosen))

    def within(self, column: str, between: Between) -> None:
        """A half-open range."""
        first, end = between
        if first is not None:
            self.compare(column, ">=", first)
        if end is not None:
            self.compare(column, "<", end)

    def labelled(self, labels: LabelFilter) -> None:
        """Every one of the labels; one without a value only has to exist."""
        for key, value in labels:
            if value is None:
                self.add(self.dialect.has_label, stored(key))
            elif key == CORRELATION and self.dialect.correlated:
                self.add(self.dialect.correlated, stored(value))
            else:
                self.add(self.dialect.labelled, stored(key), stored(value))

    def after(self, column: str, descending: bool, value: Any, row_id: str) -> None:
        """Only what comes after the row with this value and id."""
        sign, mark = "<" if descending else ">", self.dialect.mark
        if column == "id":
            self.compare("id", sign, row_id)
        else:
            # The first comparison says nothing new; it is the one that an index can begin from.
            self.add(f"{column} {sign}= {mark} AND ({column} {sign} {mark} OR id > {mark})", value, value, row_id)

    def copy(self) -> Conditions:
        """The same, to be added to."""
        return Conditions(self.dialect, [*self.terms], [*self.parameters])

    @property
    def text(self) -> str:
        """What comes after WHERE."""
        return " AND ".join(self.terms) or "1 = 1"


def execution_conditions(dialect: Dialect, where: ExecutionFilter) -> Conditions:
    """The filter's `matches`, in SQL."""
    conditions = Conditions(dialect)
    chosen: tuple[tuple[str, Collection[str] | None], ...] = (
        ("id", where.ids),
        ("state", where.states),
        ("job_id", where.job_ids),
        ("job_name", where.jobs),
        ("task", where.tasks),
        ("queue", where.queues),
        ("cause", where.causes),
        ("verdict", where.verdicts),
        ("key", where.keys),
        ("node", where.nodes),
    )
    for column, values in chosen:
        conditions.among(column, values)
    conditions.within("due_at", where.due)
    conditions.within("nominal", where.nominal)
    conditions.within("created_at", where.created)
    conditions.within("finished_at", where.finished)
    conditions.labelled(where.labels)
    return conditions


def job_conditions(dialect: Dialect, where: JobFilter) -> Conditions:
    """The filter's `matches`, in SQL."""
    conditions = Conditions(dialect)
    conditions.among("id", where.ids)
    conditions.among("name", where.names)
    conditions.among("task", where.tasks)
    conditions.among("state", where.states)
    conditions.within("created_at", where.created)
    if where.declared is not None:
        conditions.compare("declared", "=", 1 if where.declared else 0)
    conditions.labelled(where.labels)
    return conditions


@frozen
class Part:
    """A query that gives the rows of a list, or the next of them once it has no more."""

    conditions: Conditions
    order: str
    """What comes after ORDER BY."""


@frozen
class Sorting:
    """An order as SQL: ties by id, ascending, and those without a value last."""

    order: Order
    column: str
    descending: bool

    def parts(self, conditions: Conditions, cursor: str | None) -> list[Part]:
        """The queries that give the rows in this order, one after the other, beginning after the cursor's row.

        Two where some rows have no value, so that each can read its rows in the order of an index.
        """
        value, row_id = (None, "") if cursor is None else decode_cursor(cursor, self.order)
        if self.column not in _NULLABLE:
            return [self._with_value(conditions, cursor is not None, value, row_id)]
        absent = conditions.copy()
        absent.add(f"{self.column} IS NULL AND open = 1")  # the second follows from the first, and has an index
        last = Part(absent, "id")
        if cursor is not None and value is None:
            absent.after("id", False, None, row_id)
            return [last]
        present = conditions.copy()
        present.add(f"{self.column} IS NOT NULL")
        return [self._with_value(present, cursor is not None, value, row_id), last]

    def _with_value(self, conditions: Conditions, begun: bool, value: Any, row_id: str) -> Part:
        if begun:
            conditions.after(self.column, self.descending, value, row_id)
        direction = " DESC" if self.descending else ""
        return Part(conditions, f"id{direction}" if self.column == "id" else f"{self.column}{direction}, id")


_NULLABLE = ("finished_at",)


def execution_sorting(order: Order) -> Sorting:
    """Raises `InvalidArgument` for an order that executions do not have."""
    return Sorting(order, *column_of(order, EXECUTION_COLUMNS))


def job_sorting(order: Order) -> Sorting:
    """Raises `InvalidArgument` for an order that jobs do not have."""
    return Sorting(order, *column_of(order, JOB_COLUMNS))
