"""Tables that fit a terminal: columns are cut with an ellipsis where they must be, and nothing wraps.

Pure: rows in, lines out. What comes from a store may hold anything: what a terminal would obey is made visible, and
characters are as wide as a terminal shows them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from attrs import frozen

from .words import Paint

Cell: TypeAlias = "str | tuple[str, str | None]"
"""Text, or text and its colour."""

ELLIPSIS: Final = "…"
_GAP: Final = 2


@frozen
class Column:
    """A column of a table."""

    title: str
    least: int = 0
    """It is never cut below this; 0: it is never cut."""
    rank: int = 0
    """Where the table is too wide all the same, columns of the highest rank go first; 0: it stays."""
    right: bool = False


def fitted(
    columns: Sequence[Column], rows: Iterable[Sequence[Cell]], width: int | None, paint: Paint, indent: str = ""
) -> list[str]:
    """The lines of a table, its titles first. `width` None: as wide as it comes."""
    cells = [[_text_and_colour(cell) for cell in row] for row in rows]
    titles: list[tuple[str, str | None]] = [(column.title, "bold") for column in columns]
    natural = [
        max(len(column.title), *(wide(row[number][0]) for row in cells)) if cells else len(column.title)
        for number, column in enumerate(columns)
    ]
    empty = {number for number in range(len(columns)) if cells and not any(row[number][0] for row in cells)}
    shown = [number for number, column in enumerate(columns) if number not in empty or not column.rank]
    widths = _widths(columns, natural, shown, None if width is None else width - len(indent))
    return [indent + _line(columns, row, widths, paint) for row in [titles, *cells]]


def _text_and_colour(cell: Cell) -> tuple[str, str | None]:
    text, colour = (cell, None) if isinstance(cell, str) else cell
    return visible(text), colour


def _widths(columns: Sequence[Column], natural: Sequence[int], shown: list[int], width: int | None) -> dict[int, int]:
    """How wide each column is that is shown."""
    widths = {number: natural[number] for number in shown}
    if width is None:
        return widths
    while _least(columns, widths) > width:
        rank, number = max((columns[number].rank, number) for number in widths)
        if not rank:
            break
        del widths[number]
    while _total(widths) > width:
        able = [number for number in widths if columns[number].least and widths[number] > columns[number].least]
        if not able:
            break
        widths[max(able, key=lambda number: widths[number])] -= 1
    return widths


def _least(columns: Sequence[Column], widths: dict[int, int]) -> int:
    return _total({number: min(columns[number].least or wide, wide) for number, wide in widths.items()})


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _line(
    columns: Sequence[Column], row: Sequence[tuple[str, str | None]], widths: dict[int, int], paint: Paint
) -> str:
    parts: list[str] = []
    for number, width in widths.items():
        text, colour = row[number]
        text = cut(text, width)
        space = " " * (width - wide(text))
        coloured = paint(colour, text) if colour and text else text
        parts.append(space + coloured if columns[number].right else coloured + space)
    return (" " * _GAP).join(parts).rstrip()


def cut(text: str, width: int) -> str:
    """The text, with an ellipsis where it is too wide."""
    if wide(text) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += _cells(character)
        if used > width - 1:
            break
        kept += character
    return kept + ELLIPSIS


def wide(text: str) -> int:
    """How many cells of a terminal the text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def visible(text: str) -> str:
    """The text on one line, with nothing in it that a terminal would obey."""
    return text if text.isprintable() else "".join(map(_shown, " ".join(text.split())))


def harmless(text: str) -> list[str]:
    """The lines of a text, with nothing else in them that a terminal would obey."""
    return ["".join(map(_shown, line.expandtabs())) for line in text.splitlines()]


def _shown(character: str) -> str:
    return character if character.isprintable() else f"\\x{ord(character):02x}"
