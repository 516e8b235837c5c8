"""Tables fit: no line is wider than the terminal, what is cut says so, and nothing in a cell is obeyed by it."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clepsydra.console.tables import Column, cut, fitted, harmless, visible, wide
from clepsydra.console.words import Paint

PLAIN = Paint(io.StringIO())
COLUMNS = (Column("NAME", least=6), Column("N", right=True), Column("WHY", least=8, rank=1), Column("MORE", rank=2))
ROWS = [("a", "1", "because", "m"), ("a name that is long", "12345", "for a reason that is long, too", "more")]


def test_without_a_width_everything_is_there() -> None:
    assert fitted(COLUMNS, ROWS, None, PLAIN) == [
        "NAME                     N  WHY                             MORE",
        "a                        1  because                         m",
        "a name that is long  12345  for a reason that is long, too  more",
    ]


@pytest.mark.parametrize(
    ("width", "last"),
    [
        (60, "a name that is long  12345  for a reason that is long…  more"),
        (40, "a name that…  12345  for a reason…  more"),
        (30, "a name…  12345  for a r…  more"),
        (28, "a name t…  12345  for a rea…"),
        (20, "a name that …  12345"),
        (15, "a name …  12345"),
    ],
)
def test_columns_are_cut_and_then_left_out_by_their_rank(width: int, last: str) -> None:
    assert fitted(COLUMNS, ROWS, width, PLAIN)[-1] == last


def test_a_column_that_may_go_and_says_nothing_goes() -> None:
    assert fitted(COLUMNS, [("a", "1", "", "x")], None, PLAIN)[0].split() == ["NAME", "N", "MORE"]


def test_colours_take_no_room() -> None:
    terminal = Paint(io.StringIO())
    terminal.wanted = True

    (_, line) = fitted((Column("A", least=2), Column("B")), [(("long text", "red"), "b")], 8, terminal)

    assert line == "\x1b[31mlong…\x1b[0m  b"


@given(
    st.lists(st.tuples(st.text(), st.text(max_size=5), st.text(), st.text(max_size=5)), max_size=5),
    st.integers(min_value=22, max_value=100),
)
def test_no_line_is_wider_than_the_terminal_and_none_has_anything_that_it_obeys(
    rows: list[tuple[str, str, str, str]], width: int
) -> None:
    lines = fitted(COLUMNS, rows, width, PLAIN)

    narrow = [row for row in rows if wide(visible(row[1])) <= 12]
    if len(narrow) == len(rows):
        assert all(wide(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("text", "width", "told"),
    [
        ("日本語の仕事", 7, "日本語…"),
        ("日本語の仕事", 6, "日本…"),
        ("e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"),
        ("abc", 2, "a…"),
    ],
)
def test_characters_are_as_wide_as_a_terminal_shows_them(text: str, width: int, told: str) -> None:
    assert cut(text, width) == told
    assert wide(cut(text, width)) <= width


def test_what_a_terminal_would_obey_is_made_visible() -> None:
    assert visible("a\x1b[31mred\nb\tc") == "a\\x1b[31mred b c"
    assert harmless("a\tb\r\n\x1b]0;title\x07") == ["a       b", "\\x1b]0;title\\x07"]
