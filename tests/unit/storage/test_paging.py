"""Cursors are opaque, checked, and bound to their order; pages meet without gap or overlap."""

from __future__ import annotations

import base64
import json
from operator import attrgetter
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from clepsydra.model.errors import ClepsydraError
from clepsydra.model.filters import Order
from clepsydra.storage.paging import EXECUTION_COLUMNS, JOB_COLUMNS, column_of, decode_cursor, encode_cursor, page_rows


@frozen
class Row:
    id: str
    value: int | None


COUNTED = [Order.DUE, Order.DUE_DESC, Order.CREATED, Order.CREATED_DESC, Order.FINISHED, Order.FINISHED_DESC]
NAMED = [Order.ID, Order.ID_DESC, Order.NAME, Order.NAME_DESC]


def cursor_of(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


# ---- Cursors


@given(st.sampled_from(COUNTED), st.integers(-(2**63) + 1, 2**63 - 1), st.text(st.characters(codec="utf-8")))
def test_a_cursor_gives_back_the_value_and_the_id(order: Order, value: int, row_id: str) -> None:
    assert decode_cursor(encode_cursor(order, value, row_id), order) == (value, row_id)


@given(st.sampled_from(NAMED), st.text(st.characters(codec="utf-8")))
def test_a_cursor_may_hold_any_text(order: Order, name: str) -> None:
    assert decode_cursor(encode_cursor(order, name, "7"), order) == (name, "7")


def test_a_cursor_is_safe_in_a_url() -> None:
    cursor = encode_cursor(Order.NAME, "?" * 50 + "ÿ" * 50, "~")

    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_a_cursor_of_another_order_is_refused_naming_both() -> None:
    cursor = encode_cursor(Order.DUE, 5, "a")

    with pytest.raises(ValueError, match=r"made for order='due', not '-due'"):
        decode_cursor(cursor, Order.DUE_DESC)


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "x",
        "rubbish!",
        "ünïcode",
        "a b",
        "=" * 9,
        "5",
        cursor_of(),
        cursor_of("due", 5),
        cursor_of("due", 5, "a", "b"),
        cursor_of("sideways", 5, "a"),
        cursor_of(["due"], 5, "a"),
        cursor_of("due", 5, 6),
        cursor_of("due", 5, "\ud800"),
        cursor_of("due", "soon", "a"),
        cursor_of("due", True, "a"),
        cursor_of("due", 1.5, "a"),
        cursor_of("due", None, "a"),
        cursor_of("due", 2**63, "a"),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        base64.urlsafe_b64encode(b'["due",' + b"9" * 5000 + b',"a"]').decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_garbage_is_no_cursor(garbage: str) -> None:
    with pytest.raises(ValueError, match="no cursor of this list") as raised:
        decode_cursor(garbage, Order.DUE)

    assert isinstance(raised.value, ClepsydraError)
    assert len(str(raised.value)) < 300


@given(st.text())
def test_any_other_text_is_refused_as_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        decode_cursor(text, Order.ID)


def test_what_is_no_text_at_all_is_no_cursor() -> None:
    not_text: Any = 5

    with pytest.raises(ValueError, match="no cursor of this list"):
        decode_cursor(not_text, Order.ID)


def test_only_finished_rows_may_lack_their_value() -> None:
    assert decode_cursor(encode_cursor(Order.FINISHED, None, "a"), Order.FINISHED) == (None, "a")


# ---- What can be ordered by what


def test_an_order_names_its_column_and_its_direction() -> None:
    assert column_of(Order.DUE_DESC, EXECUTION_COLUMNS) == ("due_at", True)
    assert column_of(Order.NAME, JOB_COLUMNS) == ("name", False)


def test_an_order_that_rows_do_not_have_is_refused_with_those_they_have() -> None:
    with pytest.raises(ValueError, match=r"order='due'.*id, -id, created, -created, name, -name"):
        column_of(Order.DUE, JOB_COLUMNS)
    with pytest.raises(ValueError, match=r"order='-name'"):
        column_of(Order.NAME_DESC, EXECUTION_COLUMNS)


# ---- Pages

ROWS = st.lists(
    st.builds(Row, st.text("abcdef", min_size=1, max_size=3), st.none() | st.integers(0, 4)),
    unique_by=lambda row: row.id,
    max_size=25,
)


def expected(rows: list[Row], order: Order) -> list[Row]:
    sign = -1 if order.value.startswith("-") else 1
    return sorted(rows, key=lambda row: (row.value is None, sign * (row.value or 0), row.id))


@given(ROWS, st.sampled_from([Order.FINISHED, Order.FINISHED_DESC]), st.integers(1, 7))
def test_pages_put_together_are_the_whole_list_in_order(rows: list[Row], order: Order, limit: int) -> None:
    pages: list[list[Row]] = []
    cursor: str | None = None

    while not pages or cursor is not None:
        page, cursor = page_rows(rows, order, attrgetter("value"), limit, cursor)
        pages.append(page)

    assert [row for page in pages for row in page] == expected(rows, order)
    assert all(len(page) == limit for page in pages[:-1])


@given(ROWS, st.sampled_from([Order.FINISHED, Order.FINISHED_DESC]), st.integers(0, 9), st.integers(0, 9))
def test_an_offset_passes_rows_over(rows: list[Row], order: Order, limit: int, offset: int) -> None:
    page, _ = page_rows(rows, order, attrgetter("value"), limit, offset=offset)

    assert page == expected(rows, order)[offset : offset + limit]


@pytest.mark.parametrize(("order", "ids"), [(Order.ID, "abc"), (Order.ID_DESC, "cba")])
def test_ids_are_ordered_both_ways(order: Order, ids: str) -> None:
    rows = [Row(row_id, None) for row_id in "bca"]

    first, cursor = page_rows(rows, order, attrgetter("id"), 2)
    second, end = page_rows(rows, order, attrgetter("id"), 2, cursor)

    assert "".join(row.id for row in first + second) == ids
    assert end is None


def test_the_last_page_has_no_cursor_even_when_it_is_full() -> None:
    rows = [Row("a", 1), Row("b", 2)]

    assert page_rows(rows, Order.DUE, attrgetter("value"), 2) == (rows, None)


def test_without_a_limit_the_page_is_all_there_is() -> None:
    rows = [Row("a", 1), Row("b", 2), Row("c", 3)]

    assert page_rows(rows, Order.DUE, attrgetter("value"), None, offset=1) == (rows[1:], None)


def test_the_row_of_the_cursor_may_be_gone() -> None:
    rows = [Row("a", 1), Row("b", 2), Row("c", 3)]
    _, cursor = page_rows(rows, Order.DUE, attrgetter("value"), 2)

    page, _ = page_rows([rows[0], rows[2]], Order.DUE, attrgetter("value"), 2, cursor)

    assert page == [rows[2]]


def test_the_rows_given_are_left_as_they_were() -> None:
    rows = [Row("b", 1), Row("a", 1)]

    page_rows(rows, Order.DUE, attrgetter("value"), 1)

    assert [row.id for row in rows] == ["b", "a"]
