"""What a command ends with when it cannot do what it was asked: one line for the user, and an exit code.

0 is success, 1 a problem that was found or met while working, 2 a command line that cannot be understood, 3 a job or an
execution that is not in the store, 4 a store that cannot be used; 128 and the number of a signal when one cut the work
off, as shells count it.
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
PROBLEM: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
STORE: Final = 4
BY_SIGNAL: Final = 128


class CommandError(Exception):
    """A command cannot go on. The text is the line that the user reads; `code` is the exit code."""

    code = PROBLEM


class UsageError(CommandError):
    """The command line names something that is not there, or not what it should be."""

    code = USAGE
