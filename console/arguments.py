"""What the commands' own parsers are made of: how a command is added, and the arguments that several of them take.

A command module offers a function that takes `AddCommand` and adds its command; `main.py` has the table of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn, TypeAlias

from .errors import USAGE
from .target import EXAMPLE

AddCommand: TypeAlias = Callable[..., argparse.ArgumentParser]
"""`add_parser` of the top parser's commands, or of a command's own."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where to read on."""

    def error(self, message: str) -> NoReturn:
        print(f"clepsydra: error: {message} (see '{self.prog} --help')", file=sys.stderr)
        raise SystemExit(USAGE)


def add_command(
    add: AddCommand,
    name: str,
    does: Callable[[argparse.Namespace], int],
    summary: str,
    more: str = "",
) -> argparse.ArgumentParser:
    """Add a command, which `does` something with what was parsed and gives the exit code; its parser."""
    command = add(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {more}".rstrip(),
    )
    command.set_defaults(command=does)
    command.add_argument("--debug", action="store_true", help="show where an error came from")
    return command


def add_target(command: argparse.ArgumentParser) -> None:
    """The scheduler that a command is about."""
    command.add_argument(
        "target",
        metavar="MODULE:SCHEDULER",
        help=f"such as {EXAMPLE}; a function that makes it will do, or clepsydra.toml",
    )


def add_backend(command: argparse.ArgumentParser) -> None:
    """The event loop."""
    command.add_argument(
        "--backend", choices=("asyncio", "trio"), default="asyncio", help="the event loop (default: asyncio)"
    )


def count_up_to(most: int) -> Callable[[str], int]:
    """A type of argument: a whole number from 1 on."""

    def read(text: str) -> int:
        if not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 to {most}")
        return int(text)

    return read


def seconds(text: str) -> float:
    """A type of argument: a length of time."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0")
    return number
