"""Pages of long lists, by keyset: a cursor names the last row of a page, and the next page begins after it.

Rows may come and go between two pages: no other is shown twice for it, and none is left out. A cursor is opaque to
users; it holds its order, so that one made for another order is refused instead of misread. Pure functions, the same
for every store: SQL adapters put what `decode_cursor` gives into a WHERE clause, `page_rows` does the like in memory.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Protocol, TypeAlias, TypeVar

from ..model.errors import InvalidArgument
from ..model.filters import Order

SortValue: TypeAlias = int | str | None
"""What a row is ordered by; None comes last, in either direction."""

EXECUTION_COLUMNS: Mapping[Order, str] = {
    Order.ID: "id",
    Order.DUE: "due_at",
    Order.CREATED: "created_at",
    Order.FINISHED: "finished_at",
}
"""What executions can be ordered by."""

JOB_COLUMNS: Mapping[Order, str] = {Order.ID: "id", Order.CREATED: "created_at", Order.NAME: "name"}
"""What jobs can be ordered by."""

_TEXTS = (Order.ID, Order.NAME)
_ORDERS = [order.value for order in Order]
_LARGEST = 2**63 - 1


class HasId(Protocol):
    """A row with an id."""

    @property
    def id(self) -> str:
        """Unique among the rows."""
        ...


Row = TypeVar("Row", bound=HasId)


def column_of(order: Order, columns: Mapping[Order, str]) -> tuple[str, bool]:
    """The column that an order sorts by, and whether it descends. Raises `InvalidArgument` where there is none."""
    column = columns.get(_ascending(order))
    if column is None:
        known = ", ".join(f"{sign}{one.value}" for one in columns for sign in ("", "-"))
        raise InvalidArgument("order", order.value, f"this list can be ordered by: {known}")
    return column, _descends(order)


def encode_cursor(order: Order, value: SortValue, row_id: str) -> str:
    """The cursor of the page that begins after the row with this value and id."""
    text = json.dumps([order.value, value, row_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(text: str, order: Order) -> tuple[SortValue, str]:
    """The value and the id of the row that a page begins after. Raises `InvalidArgument`, a `ValueError`, on others."""
    made_for, value, row_id = _parts(text)
    if made_for not in _ORDERS:
        raise _not_a_cursor(text)
    if made_for != order.value:
        raise InvalidArgument(
            "cursor", text, f"was made for order={made_for!r}, not {order.value!r}; start at a first page"
        )
    if not _fits(order, value) or not _is_text(row_id):
        raise _not_a_cursor(text)
    return value, row_id


def page_rows(
    rows: Iterable[Row],
    order: Order,
    key: Callable[[Row], Any],
    limit: int | None,
    cursor: str | None = None,
    offset: int = 0,
) -> tuple[list[Row], str | None]:
    """The rows of one page in their order, and the cursor of the next page if there is one."""
    wanted = list(rows) if cursor is None else _rows_after(rows, order, key, cursor)
    ordered = _sorted(wanted, order, key)
    if limit is None:
        return ordered[offset:], None
    page = ordered[offset : offset + limit]
    if offset + limit >= len(ordered):
        return page, None
    return page, encode_cursor(order, key(page[-1]), page[-1].id) if page else cursor


def _sorted(rows: list[Row], order: Order, key: Callable[[Row], Any]) -> list[Row]:
    """By value, those without one last; ties by id, ascending."""
    rows.sort(key=attrgetter("id"))
    absent = [row for row in rows if key(row) is None]
    present = [row for row in rows if key(row) is not None] if absent else rows
    # Both sorts are stable, a reversed one too: rows of the same value stay in the order of their ids.
    present.sort(key=key, reverse=_descends(order))
    return present + absent


def _rows_after(rows: Iterable[Row], order: Order, key: Callable[[Row], Any], cursor: str) -> list[Row]:
    value, row_id = decode_cursor(cursor, order)
    descending = _descends(order)
    return [row for row in rows if _comes_after(key(row), row.id, value, row_id, descending)]


def _comes_after(value: Any, row_id: str, last_value: Any, last_id: str, descending: bool) -> bool:
    if value == last_value:
        return row_id > last_id
    if value is None or last_value is None:
        return value is None
    return bool(value < last_value if descending else value > last_value)


def _ascending(order: Order) -> Order:
    return Order(order.value.removeprefix("-"))


def _descends(order: Order) -> bool:
    return order.value.startswith("-")


def _parts(text: str) -> tuple[Any, Any, Any]:
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        made_for, value, row_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise _not_a_cursor(text) from None
    return made_for, value, row_id


def _fits(order: Order, value: Any) -> bool:
    """Whether the value can stand in the order's column: a store is asked for nothing else."""
    column = _ascending(order)
    if column in _TEXTS:
        return _is_text(value)
    if value is None:
        return column is Order.FINISHED
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _not_a_cursor(text: object) -> InvalidArgument:
    return InvalidArgument(
        "cursor", text, "is no cursor of this list; give what an earlier page had as its cursor, or None"
    )
