"""What processes write, cut into lines."""

from __future__ import annotations

import pytest

from clepsydra.console.spoken import Lines, printable


def lines_of(*chunks: bytes, longest: int = 100) -> list[str]:
    """All lines of a stream that comes in these pieces."""
    lines = Lines(longest)
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.rest()


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"o", b"ne\ntw", b"o"], ["one", "two"]),
        ([b"\n\n"], ["", ""]),
        ([b"dos\r\n"], ["dos"]),
        ([b"10%\r20%\r\n"], ["10%\\r20%"]),
        ([b"n\xc3", b"\xa9e\n"], ["née"]),
        ([], []),
    ],
)
def test_a_stream_becomes_lines_however_it_is_cut(chunks: list[bytes], lines: list[str]) -> None:
    assert lines_of(*chunks) == lines


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_long_line_is_cut_and_its_rest_counted(pieces: int) -> None:
    data = b"x" * 1000 + b"\nnext\n"
    chunks = [data[start : start + pieces] for start in range(0, len(data), pieces)]

    assert lines_of(*chunks) == ["x" * 100 + " ... (900 bytes more)", "next"]


def test_a_long_line_is_not_cut_within_a_sign() -> None:
    assert lines_of("é".encode() * 3, longest=3) == ["é ... (3 bytes more)"]


def test_nothing_that_moves_a_cursor_or_forges_a_line_gets_through() -> None:
    assert printable(b"\x1b[2J\x07\x00 tab\t \xff " + "\u2028\u202e".encode()) == (
        "\\x1b[2J\\x07\\x00 tab\t \\xff \\u2028\\u202e"
    )


def test_a_line_without_end_takes_no_more_room_than_is_shown() -> None:
    lines = Lines(longest=10)
    for _ in range(1000):
        lines.feed(b"x" * 1000)

    assert lines.rest() == ["x" * 10 + " ... (999990 bytes more)"]
