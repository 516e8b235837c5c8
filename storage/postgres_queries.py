"""How PostgreSQL writes what SQL leaves open. Lists go down as one array each, written as text: they may be long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from .postgres_schema import CORRELATION_OF_LABELS, LABELS, NUMBERS
from .rows import Row, is_storable
from .sql import Dialect


def array(values: Iterable[Any]) -> str:
    """Numbers, texts and absent values as one parameter. psycopg's own way takes several times as long."""
    values = list(values)
    kinds = set(map(type, values))
    if kinds == {int}:
        return "{" + ",".join(map(str, values)) + "}"
    if kinds == {str}:
        text = '","'.join(values)
        if "\\" not in text and text.count('"') == 2 * (len(values) - 1):
            return '{"' + text + '"}'
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if type(value) is int:
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def listed(values: Iterable[str]) -> str:
    """A list of texts as one parameter, without those that nothing in the database can equal."""
    return array([value for value in values if is_storable(value)])


POSTGRES: Final = Dialect(
    mark="?",
    among="{column} = ANY (?::text[])",
    not_among="{column} <> ALL (?::text[])",
    pack=listed,
    labelled=f"{LABELS} ->> ? = ?",
    has_label=f"{LABELS} ->> ? IS NOT NULL",
    correlated=f"labels <> '{{}}' AND {CORRELATION_OF_LABELS} = ?",
    greatest="greatest",
    unlimited=None,
)


def typed(column: str) -> str:
    """A parameter that is an array of this column's values."""
    return "?::bigint[]" if column in NUMBERS else "?::text[]"


def insert_all(columns: Sequence[str], table: str) -> str:
    """A statement that takes an array for each column, however many rows there are."""
    arrays = ", ".join(typed(column) for column in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM unnest({arrays})"


def insert_unknown(table: str, columns: Sequence[tuple[str, str]]) -> str:
    """A statement that inserts the rows whose id is new. Columns with what they are made of: `same`, a parameter for
    all of them; `each`, an array; or the name of a column of which they are a copy.
    """
    sources = {name: {"same": _scalar(name), "each": name}.get(source, source) for name, source in columns}
    arrays = [name for name, source in columns if source == "each"]
    return (
        f"INSERT INTO {table} ({', '.join(sources)}) SELECT {', '.join(sources.values())} "
        f"FROM unnest({', '.join(map(typed, arrays))}) AS new ({', '.join(arrays)}) "
        "ON CONFLICT (id) DO NOTHING"
    )


def _scalar(column: str) -> str:
    return "?::bigint" if column in NUMBERS else "?::text"


def update_all(columns: Sequence[str], table: str) -> str:
    """A statement that takes an array for each column, and the last one for the ids."""
    assigned = ", ".join(f"{column} = new.{column}" for column in columns)
    arrays = ", ".join(typed(column) for column in (*columns, "id"))
    return (
        f"UPDATE {table} SET {assigned} FROM unnest({arrays}) AS new ({', '.join(columns)}, id) "
        f"WHERE {table}.id = new.id"
    )


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The parameters of those statements."""
    return [array(column) for column in zip(*rows, strict=True)]
