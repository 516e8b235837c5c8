"""What a process writes, as lines that can go into a log: one at a time, bounded, and with nothing in them that moves a
cursor, rings a bell or forges a line of its own. Pure: bytes in, text out.
"""

from __future__ import annotations

from typing import Final

LONGEST: Final = 4096
"""Bytes of a line that are shown; the rest is counted."""


class Lines:
    """Cuts a stream into lines. Holds at most one line of `LONGEST` bytes, however long the real one is."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._begun = bytearray()
        self._left_out = 0

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that end in this chunk."""
        *ended, begun = chunk.split(b"\n")
        lines: list[str] = []
        for part in ended:
            self._take(part)
            lines.append(self._line())
        self._take(begun)
        return lines

    def rest(self) -> list[str]:
        """The last line, if it has no end of its own."""
        return [self._line()] if self._begun or self._left_out else []

    def _take(self, part: bytes) -> None:
        room = self._longest - len(self._begun)
        self._begun += part[:room]
        self._left_out += max(0, len(part) - room)

    def _line(self) -> str:
        text = printable(_whole_signs(self._begun) if self._left_out else bytes(self._begun).removesuffix(b"\r"))
        if self._left_out:
            text += f" ... ({self._left_out} bytes more)"
        self._begun.clear()
        self._left_out = 0
        return text


def _whole_signs(data: bytearray) -> bytes:
    """Without the first bytes of a sign that was cut in the middle."""
    cut = data.decode("utf-8", "ignore").encode()
    return cut if data.startswith(cut) and len(data) - len(cut) < 4 else bytes(data)


def printable(data: bytes) -> str:
    r"""Bytes as text: what is no UTF-8 and what does not print is written with a backslash; tabs stay.

    >>> printable("née\t".encode() + b"\xff\x1b[31m")
    'née\t\\xff\\x1b[31m'
    """
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign == "\t" else _escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")
