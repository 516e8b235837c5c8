"""Where lines go. One that cannot be written because nobody reads any more ends the program, in good order."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final, TextIO

from .errors import BY_SIGNAL

NOBODY_READS: Final = BY_SIGNAL + 13
"""The exit code of a program whose reader went away, as if SIGPIPE had ended it."""


class Output:
    """Lines to a stream, each at once. `on_broken` is called when its reader has gone; further lines are dropped."""

    def __init__(self, stream: TextIO, on_broken: Callable[[], None] = lambda: None) -> None:
        self._stream = stream
        self.on_broken = on_broken
        self.broken = False

    def line(self, text: str = "") -> None:
        """Write a line."""
        if self.broken:
            return
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except BrokenPipeError:
            self.broken = True
            forget_stdout()
            self.on_broken()


def take_any_sign(stream: TextIO) -> None:
    """Let signs that the stream's encoding lacks be written with a backslash, instead of failing."""
    reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def forget_stdout() -> None:
    """Let the interpreter flush into nothing at its end, instead of failing at it once more."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
